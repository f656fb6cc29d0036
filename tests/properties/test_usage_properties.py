"""Usage: whatever a provider sends, the buckets are disjoint, never negative, and add up to what it reported."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.normalise import MAX_TOKENS, normalise
from gateway.types import usage_fields

COUNTS = st.integers(0, 1_000_000)
rubbish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = [
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "prompt_cache_hit_tokens",
    "gpu_seconds",
]  # fmt: skip
DETAILS = ["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "reasoning_tokens", "text_tokens"]
details = rubbish | st.dictionaries(st.sampled_from(DETAILS), COUNTS | rubbish)
reports = st.dictionaries(
    st.sampled_from(NAMES), COUNTS | rubbish
).flatmap(
    lambda report: st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens_details": details, "input_tokens_details": details,
            "completion_tokens_details": details, "output_tokens_details": details,
        },
    ).map(lambda more: {**report, **more})
)  # fmt: skip


@given(rubbish | reports)
def test_nothing_a_provider_sends_raises_or_makes_a_bucket_negative_or_huge(raw: Any) -> None:
    usage = normalise(raw)
    assert all(0 <= getattr(usage, name) <= 86_400_000_000 for name in usage_fields())
    assert usage.input_total <= 2 * MAX_TOKENS
    assert usage.output_total <= 3 * MAX_TOKENS


@st.composite
def consistent(draw: st.DrawFn) -> tuple[dict[str, Any], int, int]:
    """A report as OpenAI documents it, its input total and its output total."""
    text, cached, written = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    audio, image = draw(COUNTS), draw(COUNTS)
    visible, reasoning, spoken = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    inside, outside = text + cached + written + audio + image, visible + reasoning + spoken
    exclusive = draw(st.booleans()) and reasoning > 0
    report: dict[str, Any] = {
        "prompt_tokens": inside,
        "completion_tokens": outside - reasoning if exclusive else outside,
        "total_tokens": inside + outside,
        "prompt_tokens_details": {
            "cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio, "image_tokens": image,
        },
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": spoken},
    }  # fmt: skip
    return report, inside, outside


@given(consistent())
def test_a_consistent_report_keeps_its_totals_and_its_parts_and_is_not_an_estimate(
    case: tuple[dict[str, Any], int, int],
) -> None:
    report, inside, outside = case
    usage = normalise(report)
    assert not usage.estimated
    assert (usage.input_total, usage.output_total) == (inside, outside)
    parts = report["prompt_tokens_details"]
    assert (usage.cache_read, usage.cache_write_5m) == (parts["cached_tokens"], parts["cache_write_tokens"])
    assert (usage.audio_input, usage.image_input) == (parts["audio_tokens"], parts["image_tokens"])
    assert usage.reasoning == report["completion_tokens_details"]["reasoning_tokens"]
    assert usage.audio_output == report["completion_tokens_details"]["audio_tokens"]


@given(
    st.integers(0, 10_000), st.integers(0, 10_000), st.dictionaries(st.sampled_from(DETAILS), st.integers(0, 20_000)),
    st.dictionaries(st.sampled_from(DETAILS), st.integers(0, 10_000)),
)  # fmt: skip
def test_the_input_total_is_kept_however_wrong_its_parts_are(
    inside: int, outside: int, parts: dict[str, int], more: dict[str, int]
) -> None:
    usage = normalise({
        "prompt_tokens": inside, "completion_tokens": outside,
        "prompt_tokens_details": parts, "completion_tokens_details": more,
    })  # fmt: skip
    assert usage.input_total == inside
    reasoning = more.get("reasoning_tokens", 0)
    assert usage.output_total == (outside if reasoning <= outside else outside + reasoning)
