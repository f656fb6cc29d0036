"""Usage: whatever a provider sends, the buckets are disjoint, never negative, and add up to what it reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.conventions import CONVENTIONS, Convention
from gateway.metering.normalise import MAX_TOKENS, normalise, read_usage, recognise
from gateway.types import Usage, usage_fields
from tests.properties.usage_reports import FORMS, consistent, corrupted, rubbish

conventions = st.none() | st.sampled_from(CONVENTIONS)
every_form = pytest.mark.parametrize("form", FORMS)


@every_form
@given(data=st.data())
def test_a_consistent_report_gives_back_exactly_what_was_used_and_is_no_estimate(
    form: str, data: st.DataObject
) -> None:
    convention, used, report = data.draw(consistent(form))
    reading = read_usage(report, convention)
    assert reading.usage == used, reading.problems
    assert reading.problems == ()


@every_form
@given(data=st.data(), more=st.integers(1, 1000))
def test_a_total_that_does_not_sum_up_is_marked_unless_it_tells_of_more_reasoning(
    form: str, data: st.DataObject, more: int
) -> None:
    """Where reasoning may be beside the output, a larger total may be true; then the buckets sum to that total."""
    convention, _, report = data.draw(consistent(form))
    for name in {"total_tokens", "totalTokenCount", "totalTokens"} & report.keys():
        reading = read_usage(report | {name: report[name] + more}, convention)
        assert reading.problems or reading.usage.input_total + reading.usage.output_total == report[name] + more


@every_form
@given(data=st.data())
def test_nothing_a_provider_sends_raises_or_makes_a_bucket_negative_or_more_than_it_reported(
    form: str, data: st.DataObject
) -> None:
    convention, raw = data.draw(corrupted(form) | st.tuples(conventions, rubbish))
    convention = data.draw(st.sampled_from([convention, convention, None]) | conventions)
    usage = normalise(raw, convention)
    assert all(getattr(usage, name) >= 0 for name in usage_fields())
    assert usage.gpu_seconds <= 86_400_000_000
    assert usage.input_total + usage.output_total <= _counted(raw)


def _counted(raw: Any) -> int:
    """All counts that stand anywhere in a report."""
    if isinstance(raw, dict):
        return sum(map(_counted, raw.values()))
    if isinstance(raw, list):
        return sum(map(_counted, raw))
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= MAX_TOKENS or raw != int(raw):
        return 0
    return int(raw)


@given(st.integers(0, 10_000), st.integers(1, 10_000), st.sampled_from(["openai", "xai", "mistral", "gemini"]))
def test_more_cached_than_sent_is_marked_and_billed_as_what_was_sent(
    sent: int, more: int, convention: Convention
) -> None:
    report: dict[str, Any] = {
        "prompt_tokens": sent,
        "completion_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": sent + more},
    }
    if convention == "gemini":
        report = {"promptTokenCount": sent, "cachedContentTokenCount": sent + more}
    assert normalise(report, convention) == Usage(cache_read=sent, estimated=True)


@every_form
@given(data=st.data())
def test_a_usage_is_marked_exactly_when_there_is_a_reason(form: str, data: st.DataObject) -> None:
    convention, raw = data.draw(corrupted(form))
    reading = read_usage(raw, convention)
    assert reading.usage.estimated == bool(reading.problems)
    assert all(reading.problems)


@given(
    st.integers(0, 10_000), st.integers(0, 10_000),
    st.dictionaries(
        st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens"]), st.integers(0, 20_000)
    ),
    st.integers(0, 10_000),
)  # fmt: skip
def test_the_input_total_is_kept_however_wrong_its_parts_are(
    inside: int, outside: int, parts: dict[str, int], reasoning: int
) -> None:
    usage = normalise({
        "prompt_tokens": inside, "completion_tokens": outside,
        "prompt_tokens_details": parts, "completion_tokens_details": {"reasoning_tokens": reasoning},
    })  # fmt: skip
    assert usage.input_total == inside
    assert usage.output_total == (outside if reasoning <= outside else outside + reasoning)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_report_and_an_empty_one_are_marked_as_unknown(convention: Convention) -> None:
    for raw in (None, {}, {"unknown": 5}):
        assert normalise(raw, convention) == Usage(estimated=True)


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form.split()[0] not in ("xai", "mistral") and "compat" not in form]
)
@given(data=st.data())
def test_reports_are_recognised_by_their_fields_where_these_tell(form: str, data: st.DataObject) -> None:
    convention, used, report = data.draw(consistent(form))
    assert recognise(report) == convention
    assert normalise(report) == used
