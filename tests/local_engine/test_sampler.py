"""Sampling: the cuts, the penalties, the seed, and that frequencies follow the distribution."""

from __future__ import annotations

import math

import pytest
import torch

from local_engine.request import Request, Row, SamplingParams
from local_engine.sampler import Sampled, Sampler, shape_distribution

LOGITS = torch.log(torch.tensor([0.5, 0.25, 0.15, 0.1]))


def params(**changes: float) -> SamplingParams:
    return SamplingParams(max_tokens=8, **changes)  # type: ignore[arg-type]


def draw(count: int, logits: torch.Tensor = LOGITS, **changes: float) -> list[int]:
    sampler, request = Sampler(), Request(1, [0], params(**changes))
    return [sampler.sample(logits[None], [Row(request)])[0].token for _ in range(count)]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.0}, {0}),
        ({"top_k": 3, "top_p": 0.7}, {0, 1}),
    ],
    ids=str,
)
def test_only_the_tokens_inside_the_cuts_have_a_chance(changes: dict[str, float], kept: set[int]) -> None:
    probabilities = shape_distribution(LOGITS, params(**changes))
    assert set(probabilities.nonzero().flatten().tolist()) == kept
    assert set(draw(300, seed=1, **changes)) == kept


def test_drawn_frequencies_follow_the_distribution() -> None:
    count = 20_000
    drawn = draw(count, seed=3)
    for token, share in enumerate((0.5, 0.25, 0.15, 0.1)):
        deviation = math.sqrt(count * share * (1 - share))
        assert abs(drawn.count(token) - count * share) < 4 * deviation


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    cold, plain, hot = (shape_distribution(LOGITS, params(temperature=t)) for t in (0.2, 1.0, 2.0))
    torch.testing.assert_close(plain, LOGITS.exp())
    assert cold[0] > plain[0] > hot[0]


def test_temperature_zero_takes_the_largest_logit() -> None:
    assert draw(5, temperature=0) == [0] * 5


def test_the_same_seed_draws_the_same_whatever_else_is_in_the_batch() -> None:
    alone = draw(40, seed=11)
    sampler = Sampler()
    ours, other = Request(1, [0], params(seed=11)), Request(2, [0], params(seed=5))
    together = [
        sampler.sample(torch.stack([LOGITS.flip(0), LOGITS]), [Row(other), Row(ours)])[1].token for _ in range(40)
    ]
    assert together == alone
    assert draw(40, seed=12) != alone


def test_requests_without_a_seed_differ() -> None:
    assert draw(60) != draw(60)


def test_penalties_push_used_tokens_down_by_count_and_by_presence() -> None:
    sampler = Sampler()
    request = Request(1, [3], params(temperature=0, frequency_penalty=0.5))
    request.tokens += [0, 0]  # 0.69 ahead of token 1, minus 2 x 0.5
    assert sampler.sample(LOGITS[None], [Row(request)]) == [Sampled(1)]
    request = Request(2, [3], params(temperature=0, presence_penalty=0.6))
    request.tokens += [0, 0]  # once 0.6, however often it came
    assert sampler.sample(LOGITS[None], [Row(request)]) == [Sampled(0)]
    untouched = Request(3, [0, 0, 0], params(temperature=0, frequency_penalty=2.0))
    assert sampler.sample(LOGITS[None], [Row(untouched)]) == [Sampled(0)], "the prompt does not count"


def test_an_ended_request_leaves_no_generator_behind() -> None:
    sampler, request = Sampler(), Request(1, [0], params(seed=1))
    sampler.sample(LOGITS[None], [Row(request)])
    assert sampler.owners == {1}
    sampler.forget(request)
    assert sampler.owners == set()
