"""Reported usage as disjoint buckets: one golden object per way of reporting, and every way of being wrong."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.metering.normalise import MAX_TOKENS, estimate_usage, normalise
from gateway.types import Usage

GOLDEN: dict[str, tuple[dict[str, Any], Usage]] = {
    "plain chat completion": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        Usage(input=10, output=5),
    ),
    "cached and reasoning tokens are parts of the totals": (
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 256,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 3,
                "rejected_prediction_tokens": 4,
            },
        },
        Usage(input=86, cache_read=1920, output=44, reasoning=256),
    ),
    "cache writes are inside the prompt": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 500},
        },
        Usage(input=200, cache_read=300, cache_write_5m=500, output=1),
    ),
    "audio and images are parts of the prompt": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "prompt_tokens_details": {"audio_tokens": 30, "image_tokens": 20, "text_tokens": 50},
            "completion_tokens_details": {"audio_tokens": 40, "text_tokens": 10},
        },
        Usage(input=50, audio_input=30, image_input=20, output=10, audio_output=40),
    ),
    "cached images are counted once, as cache reads": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 800, "image_tokens": 600},
        },
        Usage(cache_read=800, image_input=200),
    ),
    "responses API": (
        {
            "input_tokens": 75,
            "input_tokens_details": {"cached_tokens": 70},
            "output_tokens": 1186,
            "output_tokens_details": {"reasoning_tokens": 1024},
            "total_tokens": 1261,
        },
        Usage(input=5, cache_read=70, output=162, reasoning=1024),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 60,
            "total_tokens": 160,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "completion_tokens_details": {"reasoning_tokens": 50},
        },
        Usage(input=36, cache_read=64, output=10, reasoning=50),
    ),
    "reasoning outside of the completion, as the total tells": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Usage(input=24, cache_read=8, output=9, reasoning=94),
    ),
    "vLLM without details": (
        {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "prompt_tokens_details": None},
        Usage(input=12, output=3),
    ),
    "embeddings have no completion": ({"prompt_tokens": 8, "total_tokens": 8}, Usage(input=8)),
    "an engine that reports its time": (
        {"prompt_tokens": 8, "completion_tokens": 2, "gpu_seconds": 0.25},
        Usage(input=8, output=2, gpu_seconds=250_000),
    ),
    "whole numbers written as floats": ({"prompt_tokens": 8.0, "completion_tokens": 2.0}, Usage(input=8, output=2)),
    "nothing was used": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage()),
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN)
def test_what_is_reported_consistently_is_taken_over_exactly(case: str) -> None:
    raw, expected = GOLDEN[case]
    assert normalise(raw) == expected


MALFORMED: dict[str, tuple[Any, Usage]] = {
    "no object": (None, Usage()),
    "not an object": ([1, 2], Usage()),
    "empty": ({}, Usage()),
    "negative": ({"prompt_tokens": -5, "completion_tokens": 3}, Usage(output=3)),
    "text": ({"prompt_tokens": "12", "completion_tokens": 3, "total_tokens": 15}, Usage(input=12, output=3)),
    "truth value": ({"prompt_tokens": True, "completion_tokens": 3}, Usage(output=3)),
    "fraction": ({"prompt_tokens": 1.5, "completion_tokens": 3}, Usage(output=3)),
    "huge": ({"prompt_tokens": MAX_TOKENS + 1, "completion_tokens": 3}, Usage(output=3)),
    "more cached than sent": (
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 50}},
        Usage(cache_read=10, output=1),
    ),
    "cached and written exceed the prompt": (
        {
            "prompt_tokens": 10, "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 6},
        },
        Usage(cache_read=6, cache_write_5m=4, output=1),
    ),
    "more audio than sent": (
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"audio_tokens": 50}},
        Usage(audio_input=10, output=1),
    ),
    "more reasoning than output and no total": (
        {"prompt_tokens": 1, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 50}},
        Usage(input=1, output=5, reasoning=50),
    ),
    "more audio than output": (
        {"prompt_tokens": 1, "completion_tokens": 5, "completion_tokens_details": {"audio_tokens": 50}},
        Usage(input=1, audio_output=5),
    ),
    "details that are no object": (
        {"prompt_tokens": 1, "completion_tokens": 5, "prompt_tokens_details": "none"},
        Usage(input=1, output=5),
    ),
    "only a total": ({"total_tokens": 9}, Usage(input=9)),
    "no prompt, but a total": ({"completion_tokens": 4, "total_tokens": 9}, Usage(input=5, output=4)),
    "engine time below zero": ({"prompt_tokens": 1, "completion_tokens": 1, "gpu_seconds": -1}, Usage(input=1, output=1)),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_clamped_and_flagged(case: str) -> None:
    raw, expected = MALFORMED[case]
    found = normalise(raw)
    assert found.estimated
    assert found.quantities() == expected.quantities()


def test_a_cut_stream_is_estimated_at_four_characters_per_token() -> None:
    assert estimate_usage(9, 100, 60) == Usage(input=3, output=10, reasoning=15, estimated=True)
    assert estimate_usage(0, 0, 0) == Usage(estimated=True)
