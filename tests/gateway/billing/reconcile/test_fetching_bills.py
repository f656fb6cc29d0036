"""Pages of a cost API over a real socket: the right questions, every page, patience with what is temporary, clear refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.fetch import fetch_pages
from gateway.billing.reconcile.read import read_bill
from gateway.errors import StartupError

SEPTEMBER = Month(2026, 9)
Answer = Callable[[str, dict[str, list[str]]], tuple[int, dict[str, str], bytes]]


@dataclass
class Api:
    """A server of a provider's shape; `asked` is every path with its query and key."""

    url: str
    asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)


@contextmanager
def serving(answer: Answer) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            api.asked.append((parts.path, query, {name.lower(): value for name, value in self.headers.items()}))
            status, headers, body = answer(parts.path, query)
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = Api(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def openai_answer(path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
    """Ten days a page: what the API gives when it is asked for a month."""
    first = int(query.get("page", ["0"])[0])
    buckets: list[dict[str, Any]] = []
    for number in range(first, min(first + 10, 30)):
        start = SEPTEMBER.start + timedelta(days=number)
        result = (
            {"object": "organization.costs.result", "amount": {"value": 0.5, "currency": "usd"}, "line_item": "m, output",
             "project_id": "p"}
            if path.endswith("/costs")
            else {"object": "organization.usage.completions.result", "model": "m", "input_tokens": 0, "output_tokens": 7,
                  "project_id": "p", "num_model_requests": 1}
        )  # fmt: skip
        stamps = {"start_time": int(start.timestamp()), "end_time": int(start.timestamp()) + 86400}
        buckets.append({"object": "bucket", **stamps, "results": [result]})
    more = first + 10 < 30
    page = {"object": "page", "data": buckets, "has_more": more, "next_page": str(first + 10) if more else None}
    return 200, {}, json.dumps(page).encode()


def test_all_pages_of_costs_and_usage_are_fetched_and_make_a_bill() -> None:
    with serving(openai_answer) as api:
        files = list(fetch_pages("openai", SEPTEMBER, "sk-admin-1", api.url))
    assert [file.name for file in files] == [
        f"openai-2026-09-{what}-{number:03d}.json" for what in ("costs", "usage") for number in (1, 2, 3)
    ]
    path, query, headers = api.asked[0]
    assert (path, headers["authorization"]) == ("/v1/organization/costs", "Bearer sk-admin-1")
    assert query["start_time"] == [str(int(SEPTEMBER.start.timestamp()))]
    assert (query["group_by[]"], query["bucket_width"]) == (["line_item", "project_id"], ["1d"])
    assert [query.get("page") for _, query, _ in api.asked] == [None, ["10"], ["20"]] * 2
    bill = read_bill("openai", SEPTEMBER, files)
    assert (bill.total, {line.quantity for line in bill.lines}) == (15 * 10**12, {7})


def test_anthropic_is_asked_in_its_own_way() -> None:
    with serving(lambda path, query: (200, {}, b'{"data": [], "has_more": false, "next_page": null}')) as api:
        assert len(list(fetch_pages("anthropic", SEPTEMBER, "sk-ant-admin-1", api.url))) == 2
    assert [path for path, _, _ in api.asked] == [
        "/v1/organizations/cost_report",
        "/v1/organizations/usage_report/messages",
    ]
    _, query, headers = api.asked[0]
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-ant-admin-1", "2023-06-01")
    assert (query["starting_at"], query["ending_at"]) == (["2026-09-01T00:00:00Z"], ["2026-10-01T00:00:00Z"])


def test_what_is_temporary_is_repeated_with_the_pauses_that_the_provider_asks_for() -> None:
    pauses: list[float] = []
    trouble = iter([(429, {"retry-after": "7"}), (503, {})])

    def answer(path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        for status, headers in trouble:
            return status, headers, b"busy"
        return openai_answer(path, query)

    with serving(answer) as api:
        assert len(list(fetch_pages("openai", SEPTEMBER, "k", api.url, sleep=pauses.append))) == 6
    assert pauses == [7.0, 4.0]


REFUSALS: dict[str, tuple[Answer, str]] = {
    "a plain key": (lambda path, query: (403, {}, b"no"), r"refuses the key \(403: no\). It must be an admin key"),
    "a wrong question": (lambda path, query: (400, {}, b"bad group"), "answered 400: bad group"),
    "always busy": (
        lambda path, query: (500, {}, b"oh"),
        "could not be read: 500: oh. Try again later; nothing was imported",
    ),
    "no page": (lambda path, query: (200, {}, b"<html>"), "answered something that is not a page: b'<html>'"),
    "no next page": (
        lambda path, query: (200, {}, b'{"data": [], "has_more": true, "next_page": null}'),
        "more pages and does not name the next one: None",
    ),
    "a circle": (
        lambda path, query: (200, {}, b'{"data": [], "has_more": true, "next_page": "a"}'),
        "gives the page 'a' again and again",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_fetched_is_said_without_the_key(what: str) -> None:
    answer, message = REFUSALS[what]
    with serving(answer) as api, pytest.raises(StartupError, match=message) as refused:
        list(fetch_pages("openai", SEPTEMBER, "sk-secret-7", api.url, sleep=lambda _: None))
    assert "sk-secret-7" not in str(refused.value)


def test_a_server_that_is_not_there_is_given_up() -> None:
    with pytest.raises(StartupError, match="could not be read: ConnectError"):
        list(fetch_pages("openai", SEPTEMBER, "k", "http://127.0.0.1:9", sleep=lambda _: None))
