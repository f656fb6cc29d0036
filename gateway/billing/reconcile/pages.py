"""Pages of a provider's cost or usage API, saved as JSON files: read exactly, complete, and of the month that was asked for.

Both providers answer with `{"data": [bucket, ...], "has_more", "next_page"}`. A chain of pages that lacks its end or a page
in the middle would be a smaller bill, so it is an UnreadableBill.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.lines import UnreadableBill, check_month


@dataclass(frozen=True, slots=True)
class File:
    """One file as it was given."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of time with its results, each an object."""

    where: str
    start: datetime
    end: datetime
    results: tuple[dict[str, Any], ...]

    @property
    def day(self) -> date:
        """The day it begins on, UTC."""
        return self.start.date()


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the API."""

    name: str
    buckets: tuple[Bucket, ...]
    has_more: bool
    of_openai: bool
    """Whether its moments are Unix seconds, as OpenAI writes them; Anthropic writes RFC 3339."""


def read_page(file: File) -> Page:
    """A saved answer. Numbers become Decimal, so that nothing of the bill passes through a float."""
    try:
        document = json.loads(file.content.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_no_constant)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnreadableBill(
            f"{file.name}: not JSON ({error}); give the answers of the API as they came, one page per file"
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise UnreadableBill(f"{file.name}: not a page of a cost or usage API: it has no list `data`")
    if not isinstance(document.get("has_more"), bool):
        raise UnreadableBill(f"{file.name}: `has_more` is {document.get('has_more')!r}, so its end is not known")
    buckets = tuple(_bucket(each, f"{file.name}, bucket {number}") for number, each in enumerate(document["data"], 1))
    return Page(file.name, buckets, document["has_more"], any("start_time" in bucket for bucket in document["data"]))


def complete_chain(pages: list[Page], month: Month, what: str) -> Iterator[Bucket]:
    """The buckets of all pages in order of time. Raises UnreadableBill unless they cover the month without a gap."""
    buckets = sorted((bucket for page in pages for bucket in page.buckets), key=lambda bucket: bucket.start)
    if not buckets:
        raise UnreadableBill(f"the pages of {what} have no buckets of {month}")
    for bucket in buckets:
        check_month(bucket.day, month, bucket.where)
    for before, after in itertools.pairwise(buckets):
        if after.start < before.end:
            raise UnreadableBill(
                f"{after.where} begins at {after.start:%Y-%m-%d %H:%M}, which {before.where} has: is a page given twice?"
            )
        if after.start > before.end:
            raise UnreadableBill(
                f"{what}: nothing between {before.end:%Y-%m-%d %H:%M} and {after.start:%Y-%m-%d %H:%M}: a page is missing"
            )
    first, last = buckets[0].start, buckets[-1].end
    cut = next(page.has_more for page in pages if buckets[-1] in page.buckets)
    if cut or first > month.start or last < month.end:
        raise UnreadableBill(
            f"{what}: the pages cover {first:%Y-%m-%d} to {last:%Y-%m-%d}, which is not all of {month}"
            f"{', and the last one says that there are more' if cut else ''}. Ask for the whole month and follow `next_page` "
            "until `has_more` is false."
        )
    yield from buckets


def _bucket(value: Any, where: str) -> Bucket:
    if not isinstance(value, dict) or not isinstance(value.get("results"), list):
        raise UnreadableBill(f"{where}: no list `results`")
    start = _moment(value, ("start_time", "starting_at"), where)
    end = _moment(value, ("end_time", "ending_at"), where)
    if end <= start:
        raise UnreadableBill(f"{where}: it ends at {end.isoformat()}, before it begins")
    results = value["results"]
    if not all(isinstance(result, dict) for result in results):
        raise UnreadableBill(f"{where}: a result is not an object")
    return Bucket(where, start, end, tuple(results))


def _moment(bucket: dict[str, Any], names: tuple[str, str], where: str) -> datetime:
    """Unix seconds as OpenAI writes them, or RFC 3339 as Anthropic does."""
    value = next((bucket[name] for name in names if name in bucket), None)
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        found = None
    if found is None or found.tzinfo is None:
        raise UnreadableBill(f"{where}: {names[0]} is {value!r}, which is not a moment")
    return found.astimezone(UTC)


def _no_constant(name: str) -> None:
    raise UnreadableBill(f"{name} is not a number that a bill may have")
