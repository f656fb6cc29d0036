"""A short soak on every run; the long one is `python -m benchmarks.engine_soak`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.engine_soak import SERVED, run_soak


def test_some_hundred_requests_of_every_kind_end_and_leave_nothing_behind(tiny_directory: Path) -> None:
    soak = run_soak(tiny_directory, requests=300, http_share=0.34, seed=11)
    outcomes = soak.outcomes
    assert sum(outcomes.values()) == 300
    assert set(outcomes) <= {"answered", "left", "queue_full", "deadline_exceeded", "context_length_exceeded"}, outcomes
    assert outcomes["answered"] > 150
    assert min(outcomes["left"], outcomes["context_length_exceeded"]) > 0
    assert len(soak.texts) > 10
    assert not soak.differing, "the same request answered differently"


def test_a_soak_of_the_engine_as_it_is_served_says_what_it_went_through(tiny_directory: Path) -> None:
    soak = run_soak(tiny_directory, requests=60, http_share=0.34, seed=5, plan=SERVED)
    report = soak.report()
    assert report["requests"] == 60
    assert report["engine"]["drafters"] == ["NgramDrafter"]
    assert report["engine"]["quantize"] == ("int8" if report["engine"]["native"] else "none")
    assert set(report["memory"]["in the loop"]) > {"growth_share_of_1000"}
