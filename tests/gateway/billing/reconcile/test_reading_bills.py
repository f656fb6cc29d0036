"""Bills are read exactly or refused with a sentence: OpenAI and Anthropic pages, CSV with any columns, what is wrong in them.

The pages are written by hand from the fields that the providers document.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.lines import BillLine, Settings, UnreadableBill
from gateway.billing.reconcile.pages import File
from gateway.billing.reconcile.read import read_bill

FEBRUARY = Month(2026, 2)
Results = dict[int, list[dict[str, Any]]]


def pages(results: Results, *, openai: bool, sizes: tuple[int, ...] = (28,), name: str = "costs") -> list[File]:
    """A month of daily buckets as pages; results by day of the month."""
    buckets = []
    for number in range(28):
        start = FEBRUARY.start + timedelta(days=number)
        end = start + timedelta(days=1)
        stamps: dict[str, object] = (
            {"object": "bucket", "start_time": int(start.timestamp()), "end_time": int(end.timestamp())}
            if openai
            else {"starting_at": f"{start:%Y-%m-%dT00:00:00Z}", "ending_at": f"{end:%Y-%m-%dT00:00:00Z}"}
        )
        buckets.append({**stamps, "results": results.get(number + 1, [])})
    files, at = [], 0
    for number, size in enumerate(sizes, 1):
        more = number < len(sizes)
        page = {"data": buckets[at : at + size], "has_more": more, "next_page": "p" if more else None}
        files.append(File(f"{name}-{number}.json", json.dumps({"object": "page", **page} if openai else page).encode()))
        at += size
    return files


def cost(item: str, value: object = 0.06, **changes: Any) -> dict[str, Any]:
    """One result of /v1/organization/costs."""
    amount = {"value": value, "currency": "usd"}
    return {
        "object": "organization.costs.result",
        "amount": amount,
        "line_item": item,
        "project_id": "proj_1",
        **changes,
    }


def usage(model: str | None, **tokens: Any) -> dict[str, Any]:
    """One result of /v1/organization/usage/completions."""
    made = {"object": "organization.usage.completions.result", "model": model, "project_id": "proj_1", "batch": False}
    return {**made, "input_tokens": 0, "output_tokens": 0, "num_model_requests": 1, **tokens}


def lines(files: list[File], **how: Any) -> list[BillLine]:
    return list(read_bill("p", FEBRUARY, files, **how).lines)


@pytest.mark.parametrize(
    ("item", "model", "meter", "tier"),
    [
        ("gpt-4o-2024-08-06, input", "gpt-4o-2024-08-06", "input", None),
        ("gpt-4o-2024-08-06, cached input", "gpt-4o-2024-08-06", "cache_read", None),
        ("gpt-6-astra, input_tokens", "gpt-6-astra", "input", None),
        ("priority | gpt-5.6-sol, output, long context", "gpt-5.6-sol", "output", "priority+long"),
        ("gpt-5.6-sol, input, long context", "gpt-5.6-sol", "input", "default+long"),
        ("gpt-audio-mini-2025-12-15 audio, input", "gpt-audio-mini-2025-12-15", "audio_input", None),
        ("ft:gpt-4o-mini-2024-07-18:acme::x1, output", "ft:gpt-4o-mini-2024-07-18:acme::x1", "output", None),
        ("web search tool calls", None, "other", None),
        ("whisper-1, audio", "whisper-1", "other", None),
    ],
)
def test_line_items_of_openai_say_model_meter_and_tier(
    item: str, model: str | None, meter: str, tier: str | None
) -> None:
    [line] = lines(pages({3: [cost(item)]}, openai=True))
    assert (line.model, line.meter, line.tier, line.day) == (model, meter, tier, date(2026, 2, 3))
    assert (line.amount, line.account, line.description) == (60_000_000_000, "proj_1", item)


def test_amounts_are_read_digit_by_digit() -> None:
    text = pages({1: [cost("m, input", 1)]}, openai=True)[0].content.replace(
        b'"value": 1,', b'"value": 0.123456789012,'
    )
    [line] = lines([File("costs.json", text)])
    assert line.amount == 123_456_789_012
    tiny = text.replace(b"0.123456789012", b"1.5e-12")
    assert lines([File("costs.json", tiny)])[0].amount == 2


def test_quantities_come_from_the_costs_or_from_the_usage_pages() -> None:
    first = lines(pages({1: [cost("m, input", quantity=7, quantity_unit="tokens")]}, openai=True))
    thousands = lines(pages({1: [cost("m, input", quantity=7.5, quantity_unit="1000_tokens")]}, openai=True))
    minutes = lines(pages({1: [cost("m, input", quantity=7, quantity_unit="duration_minutes")]}, openai=True))
    assert [each[0].quantity for each in (first, thousands, minutes)] == [7, 7500, None]
    items = ("m, input", "m, cached input", "m, output", "batch | m, output")
    costs = pages({1: [cost(item) for item in items]}, openai=True, sizes=(10, 18))
    counted = usage("m", input_tokens=1000, input_cached_tokens=300, input_audio_tokens=20, output_tokens=50)
    used = pages({1: [counted, usage("m", output_tokens=9, batch=True)]}, openai=True, sizes=(28,), name="usage")
    found = lines([*used, *reversed(costs)])
    assert [(line.meter, line.tier, line.quantity) for line in found] == [
        ("input", None, 680), ("cache_read", None, 300), ("output", None, 50), ("output", "batch", 9),
        ("audio_input", None, 20),
    ]  # fmt: skip
    assert found[-1].amount == 0, "tokens that nothing was asked for are seen"


def test_cents_of_anthropic_and_its_token_types() -> None:
    def row(token_type: str | None, amount: str, **changes: Any) -> dict[str, Any]:
        made = {"currency": "USD", "model": "claude-opus-5", "service_tier": "standard", "context_window": "0-200k"}
        return {**made, "amount": amount, "cost_type": "tokens", "description": "Usage", "token_type": token_type,
                "workspace_id": None, "inference_geo": "global", **changes}  # fmt: skip

    results: Results = {
        28: [
            row("uncached_input_tokens", "123.78912"),
            row("cache_creation.ephemeral_1h_input_tokens", "0.000001"),
            row("output_tokens", "5", context_window="200k-1M", service_tier="batch"),
            row(None, "10", model=None, cost_type="web_search", service_tier=None, context_window=None),
        ]
    }
    used = {
        28: [{"model": "claude-opus-5", "service_tier": "standard", "context_window": "0-200k", "workspace_id": None,
              "uncached_input_tokens": 400, "cache_read_input_tokens": 0, "output_tokens": 0, "api_key_id": None,
              "cache_creation": {"ephemeral_1h_input_tokens": 3, "ephemeral_5m_input_tokens": 0},
              "server_tool_use": {"web_search_requests": 1}}]
    }  # fmt: skip
    found = lines(pages(results, openai=False) + pages(used, openai=False, name="usage"))
    assert [(line.meter, line.tier, line.amount, line.quantity) for line in found] == [
        ("input", "default", 1_237_891_200_000, 400),
        ("cache_write_1h", "default", 10_000, 3),
        ("output", "batch+long", 50_000_000_000, None),
        ("other", None, 100_000_000_000, None),
    ]


def broken(change: Callable[[dict[str, Any]], object]) -> list[File]:
    """One page with one cost, changed."""
    page = json.loads(pages({3: [cost("m, input")]}, openai=True)[0].content)
    change(page)
    return [File("costs.json", json.dumps(page).encode())]


def result(page: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = page["data"][2]["results"][0]
    return found


WRONG_PAGES: dict[str, tuple[list[File], str]] = {
    "unknown currency": (
        broken(lambda page: result(page)["amount"].update(currency="eur")),
        r"costs.json, bucket 3, result 1: the currency is 'eur', and Penstock keeps its books in USD",
    ),
    "huge": (broken(lambda page: result(page)["amount"].update(value=10**8)), "may be at most 9000000 USD"),
    "no number": (broken(lambda page: result(page)["amount"].update(value=None)), "the amount is None, which is not a dec"),
    "truth": (broken(lambda page: result(page)["amount"].update(value=True)), "the amount is True, which is not a decimal"),
    "no amount": (broken(lambda page: result(page).update(amount=3)), "`amount` is 3, not an object"),
    "not grouped": (broken(lambda page: result(page).update(line_item=None)), "ask for the costs with group_by=line_item"),
    "negative quantity": (
        broken(lambda page: result(page).update(quantity=-1, quantity_unit="tokens")),
        "the quantity is -1; a credit has a negative amount, not a negative quantity",
    ),
    "NaN": ([File("c.json", b'{"data": [], "has_more": NaN}')], "NaN is not a number that a bill may have"),
    "no JSON": ([File("c.json", b"<html>")], r"c.json: not JSON \(.*\); give the answers of the API as they came"),
    "not a page": ([File("c.json", b'{"results": []}')], "it has no list `data`"),
    "no end": (broken(lambda page: page.pop("has_more")), "`has_more` is None, so its end is not known"),
    "wrong month": (
        broken(lambda page: page["data"].append({**page["data"][0], "start_time": 1772323200, "end_time": 1772409600})),
        "the line is of 2026-03-01, and the bill is of 2026-02",
    ),
    "backwards": (broken(lambda page: page["data"][0].update(end_time=1)), "it ends at 1970-01-01T00:00:01.*before it begins"),
    "no moment": (broken(lambda page: page["data"][0].update(start_time="soon")), "start_time is 'soon', which is not a mom"),
    "days missing": (
        broken(lambda page: page.update(data=page["data"][:20])),
        r"the pages cover 2026-02-01 to 2026-02-21, which is not all of 2026-02\. .*until `has_more` is false",
    ),
    "the end missing": (
        pages({3: [cost("m, input")]}, openai=True, sizes=(14, 14))[:1],
        "not all of 2026-02, and the last one says that there are more",
    ),
    "the middle missing": (
        [pages({3: [cost("m, input")]}, openai=True, sizes=(7, 7, 14))[number] for number in (0, 2)],
        "costs: nothing between 2026-02-08 00:00 and 2026-02-15 00:00: a page is missing",
    ),
    "a page twice": (
        [*(same := pages({3: [cost("m, input")]}, openai=True)), *same],
        "costs-1.json is the same as costs-1.json; give every file once",
    ),
    "a bucket twice": (
        [*pages({3: [cost("m, input")]}, openai=True), *pages({3: [cost("m, output")]}, openai=True, name="again")],
        "which costs-1.json, bucket 1 has: is a page given twice",
    ),
    "usage alone": (pages({3: [usage("m")]}, openai=True), "the files are usage alone; add the pages of the costs"),
    "usage without a model": (
        [*pages({3: [cost("m, input")]}, openai=True), *pages({3: [usage(None)]}, openai=True, name="u")],
        "no model; ask for the usage with group_by=model",
    ),
    "parts beyond the total": (
        [*pages({3: [cost("m, input")]}, openai=True),
         *pages({3: [usage("m", input_tokens=1, input_cached_tokens=2)]}, openai=True, name="u")],
        "the parts of its tokens are more than input_tokens",
    ),
    "beyond every bill": (pages({3: [cost("m, input", 8e6)] * 2}, openai=True), "the bill is beyond 9000000 USD in total"),
    "nothing": (pages({}, openai=True), "the files have no lines of 2026-02"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_PAGES)
def test_what_is_wrong_with_pages_is_said(what: str) -> None:
    files, message = WRONG_PAGES[what]
    with pytest.raises(UnreadableBill, match=message):
        read_bill("openai", FEBRUARY, files)


def test_the_hash_knows_the_files_in_any_order_and_under_any_name() -> None:
    costs = pages({3: [cost("m, input")]}, openai=True, sizes=(14, 14))
    again = [File(f"{number}.json", file.content) for number, file in enumerate(reversed(costs))]
    first, second = (read_bill("openai", FEBRUARY, files) for files in (costs, again))
    other = read_bill("openai", FEBRUARY, costs, settings=Settings(ours=("proj_1",)))
    assert first.digest == second.digest != other.digest
    assert datetime.now(UTC) > FEBRUARY.end


def test_pages_are_of_utc_days() -> None:
    with pytest.raises(UnreadableBill, match="counts days in UTC; leave --zone out"):
        lines(pages({1: [cost("m, input")]}, openai=True), settings=Settings("America/New_York"))
