"""Fetch a month's pages from a provider's cost and usage API with an admin key; they are saved as they came and then imported.

Every request has a deadline, what is temporary is repeated, and a chain of pages that does not end is given up: StartupError
says what the provider answered. Nothing of the key is ever shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import orjson

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.pages import File
from gateway.errors import StartupError

SECONDS_PER_REQUEST = 30.0
CONNECT_SECONDS = 5.0
SECONDS_IN_ALL = 600.0
TRIES = 5
LONGEST_PAUSE = 60.0
MOST_PAGES = 1000
MOST_BYTES = 64 * 1024 * 1024
TEMPORARY = frozenset({408, 409, 429, 500, 502, 503, 504, 529})

Query = list[tuple[str, str | int | float | bool | None]]


@dataclass(frozen=True, slots=True)
class Api:
    """Where a provider's costs and usage are, and what to ask for."""

    base_url: str
    key_variable: str
    paths: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(what, path, groups)"""
    headers: Callable[[str], dict[str, str]]
    window: Callable[[Month], Query]


APIS: dict[str, Api] = {
    "openai": Api(
        "https://api.openai.com",
        "OPENAI_ADMIN_KEY",
        (
            ("costs", "/v1/organization/costs", ("line_item", "project_id")),
            ("usage", "/v1/organization/usage/completions", ("model", "service_tier", "batch", "project_id")),
        ),
        lambda key: {"authorization": f"Bearer {key}"},
        lambda month: [
            ("start_time", str(int(month.start.timestamp()))),
            ("end_time", str(int(month.end.timestamp()))),
        ],
    ),
    "anthropic": Api(
        "https://api.anthropic.com",
        "ANTHROPIC_ADMIN_KEY",
        (
            ("costs", "/v1/organizations/cost_report", ("description", "workspace_id")),
            (
                "usage",
                "/v1/organizations/usage_report/messages",
                ("model", "service_tier", "context_window", "workspace_id"),
            ),
        ),
        lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
        lambda month: [
            ("starting_at", f"{month.start:%Y-%m-%dT%H:%M:%SZ}"),
            ("ending_at", f"{month.end:%Y-%m-%dT%H:%M:%SZ}"),
        ],
    ),
}


def fetch_pages(
    form: str,
    month: Month,
    key: str,
    base_url: str | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[File]:
    """The pages of a month's costs, then of its usage, each as the provider sent it."""
    api = APIS[form]
    timeout = httpx.Timeout(SECONDS_PER_REQUEST, connect=CONNECT_SECONDS)
    ends = clock() + SECONDS_IN_ALL
    with httpx.Client(base_url=base_url or api.base_url, headers=api.headers(key), timeout=timeout) as client:
        for what, path, groups in api.paths:
            query = [*api.window(month), ("bucket_width", "1d"), ("limit", "31")]
            query += [("group_by[]", group) for group in groups]
            cursor: str | None = None
            seen: set[str] = set()
            for number in range(1, MOST_PAGES + 1):
                content = _get(client, path, [*query, *([("page", cursor)] if cursor else [])], ends, sleep, clock)
                yield File(f"{form}-{month}-{what}-{number:03d}.json", content)
                cursor = _next_page(content, path)
                if cursor is None:
                    break
                if cursor in seen:
                    raise StartupError(f"{path} gives the page {cursor!r} again and again; nothing was imported.")
                seen.add(cursor)
            else:
                raise StartupError(f"{path} has more than {MOST_PAGES} pages for {month}; nothing was imported.")


def _get(
    client: httpx.Client,
    path: str,
    query: Query,
    ends: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> bytes:
    """One page; temporary failures are repeated with growing pauses, or those that the provider asks for."""
    problem = ""
    for attempt in range(1, TRIES + 1):
        pause = min(2.0**attempt, LONGEST_PAUSE)
        try:
            reply = client.get(path, params=httpx.QueryParams(query))
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            if reply.status_code == 200:
                if len(reply.content) > MOST_BYTES:
                    raise StartupError(f"{path} answered {len(reply.content)} bytes, more than a page may have.")
                return reply.content
            problem = f"{reply.status_code}: {reply.text[:300]}"
            if reply.status_code in (401, 403):
                raise StartupError(f"{path} refuses the key ({problem}). It must be an admin key of the organisation.")
            if reply.status_code not in TEMPORARY:
                raise StartupError(f"{path} answered {problem}")
            pause = _asked_pause(reply, pause)
        if attempt < TRIES and clock() + pause < ends:
            sleep(pause)
        elif attempt < TRIES:
            break
    raise StartupError(f"{path} could not be read: {problem}. Try again later; nothing was imported.")


def _asked_pause(reply: httpx.Response, otherwise: float) -> float:
    try:
        return min(max(float(reply.headers.get("retry-after", "")), 0.0), LONGEST_PAUSE)
    except ValueError:
        return otherwise


def _next_page(content: bytes, path: str) -> str | None:
    try:
        page = orjson.loads(content)
        more, cursor = page["has_more"], page.get("next_page")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise StartupError(f"{path} answered something that is not a page: {content[:200]!r}") from None
    if more and not isinstance(cursor, str):
        raise StartupError(f"{path} says that there are more pages and does not name the next one: {cursor!r}")
    return cursor if more else None
