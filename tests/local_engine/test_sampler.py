"""Sampling: the cuts, the penalties, the seed, and that frequencies follow the distribution."""

from __future__ import annotations

import math

import pytest
import torch

from local_engine.request import Request, Row, Sampled, SamplingParams
from local_engine.sampler import Sampler
from local_engine.sampling.distribution import draw_rows, shape_distribution, shape_rows

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
        ({"min_p": 0.3}, {0, 1, 2}),
        ({"min_p": 0.51}, {0}),
        ({"min_p": 1.0}, {0}),
    ],
    ids=str,
)
def test_only_the_tokens_inside_the_cuts_have_a_chance(changes: dict[str, float], kept: set[int]) -> None:
    probabilities = shape_distribution(LOGITS, params(**changes))
    assert set(probabilities.nonzero().flatten().tolist()) == kept
    assert set(draw(300, seed=1, **changes)) == kept


def test_drawn_frequencies_follow_the_distribution() -> None:
    count = 20_000
    points = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    drawn = draw_rows(LOGITS.expand(count, 4), [params()] * count, points).tolist()
    for token, share in enumerate((0.5, 0.25, 0.15, 0.1)):
        deviation = math.sqrt(count * share * (1 - share))
        assert abs(drawn.count(token) - count * share) < 4 * deviation


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    cold, plain, hot = (shape_distribution(LOGITS, params(temperature=t)) for t in (0.2, 1.0, 2.0))
    torch.testing.assert_close(plain, LOGITS.exp())
    assert cold[0] > plain[0] > hot[0]


def test_temperature_zero_takes_the_largest_logit() -> None:
    assert draw(5, temperature=0) == [0] * 5


def test_places_that_a_step_knows_are_taken_by_those_rows_alone_that_nothing_steers_and_nobody_draws() -> None:
    logits, known = LOGITS.repeat(3, 1), [2, 2, 2]  # not the largest ones: whose they are is seen
    greedy, drawn = params(temperature=0), params(seed=7)
    rows = [Row(Request(number, [0], each)) for number, each in enumerate((greedy, drawn, greedy))]
    chosen = [each.token for each in Sampler().sample(logits, rows, known)]
    assert chosen == [2, draw(1, seed=7)[0], 2]
    rows[0] = Row(Request(0, [0], params(temperature=0, logit_bias=((3, 50.0),))))
    assert [each.token for each in Sampler().sample(logits, rows, known)][::2] == [3, 0]


def test_the_same_seed_draws_the_same_whatever_else_is_in_the_batch() -> None:
    alone = draw(40, seed=11)
    sampler = Sampler()
    ours, other = Request(1, [0], params(seed=11)), Request(2, [0], params(seed=5))
    both = torch.stack([LOGITS.flip(0), LOGITS])
    together = [sampler.sample(both, [Row(other), Row(ours)])[1].token for _ in range(40)]
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


def test_a_repetition_penalty_counts_prompt_and_answer_once_whatever_the_sign() -> None:
    sampler = Sampler()
    logits = torch.tensor([[2.0, 1.5, -1.0, -1.4]])
    request = Request(1, [0, 0], params(temperature=0, repetition_penalty=2.0))
    assert sampler.sample(logits, [Row(request)]) == [Sampled(1)]
    request.tokens += [1, 2]
    steered = sampler.steer(logits, [Row(request)])
    torch.testing.assert_close(steered, torch.tensor([[1.0, 0.75, -2.0, -1.4]]))


def test_a_bias_is_added_to_the_logits_of_its_tokens() -> None:
    request = Request(1, [0], params(temperature=0, logit_bias=((3, 1.5), (0, -100.0))))
    steered = Sampler().steer(torch.zeros(1, 4), [Row(request)])
    torch.testing.assert_close(steered, torch.tensor([[-100.0, 0.0, 0.0, 1.5]]))
    assert Sampler().sample(torch.zeros(1, 4), [Row(request)]) == [Sampled(3)]


def test_drafts_count_as_if_they_had_come() -> None:
    sampler = Sampler()
    request = Request(1, [3], params(frequency_penalty=0.5, presence_penalty=0.25))
    request.tokens += [0]
    rows = [Row(request), Row(request, (0,)), Row(request, (0, 1)), Row(request)]
    steered = sampler.steer(torch.zeros(4, 4), rows)
    expected = torch.tensor([[0.75, 0, 0, 0], [1.25, 0, 0, 0], [1.25, 0.75, 0, 0], [0.75, 0, 0, 0]])
    torch.testing.assert_close(steered, -expected)


def test_a_rejected_draft_leaves_no_penalty_behind() -> None:
    sampler = Sampler()
    request = Request(1, [3], params(repetition_penalty=2.0))
    logits = torch.ones(1, 200)
    sampler.steer(logits, [Row(request, tuple(range(50, 150)))])
    assert (sampler.steer(logits, [Row(request)]) != 1).nonzero()[:, 1].tolist() == [3]
    request.tokens += [7] * 3 + list(range(100))
    assert (sampler.steer(logits, [Row(request)]) != 1).sum() == 100


def test_logprobs_are_those_of_the_model_before_temperature_and_cuts() -> None:
    request = Request(1, [0], params(temperature=0, logprobs=2, logit_bias=((2, 100.0),)))
    silent = Request(2, [0], params(temperature=0))
    chosen, other = Sampler().sample(torch.stack([LOGITS, LOGITS]), [Row(request), Row(silent)])
    assert chosen.token == 2
    assert other.logprobs is None
    assert chosen.logprobs is not None
    assert chosen.logprobs.value == pytest.approx(math.log(0.15))
    assert [token for token, _ in chosen.logprobs.top] == [0, 1]
    assert [math.exp(value) for _, value in chosen.logprobs.top] == pytest.approx([0.5, 0.25])


MANY = [
    {},
    {"temperature": 0.3},
    {"top_k": 5},
    {"top_k": 200},
    {"top_p": 0.4},
    {"top_p": 0.97},
    {"min_p": 0.4},
    {"min_p": 0.001},
    {"top_k": 150, "top_p": 0.8, "min_p": 0.05, "temperature": 1.7},
    {"top_p": 0.0},
]


def test_all_rows_at_once_get_what_the_plain_path_gives_one() -> None:
    several = [params(**changes) for changes in MANY]
    logits = torch.randn(len(several), 5000, generator=torch.Generator().manual_seed(5))
    shaped = shape_rows(logits, several)
    for row, each, got in zip(logits, several, shaped, strict=True):
        plain = shape_distribution(row, each)
        torch.testing.assert_close(got, plain / plain.sum(), atol=1e-6, rtol=1e-4)


def test_a_row_is_drawn_alike_alone_and_among_others() -> None:
    several = [params(**changes) for changes in MANY]
    generator = torch.Generator().manual_seed(6)
    for _ in range(20):
        logits = torch.randn(len(several), 5000, generator=generator).bfloat16().float()  # with ties
        points = torch.rand(len(several), dtype=torch.float64, generator=generator)
        together = draw_rows(logits, several, points).tolist()
        alone = [int(draw_rows(logits[[i]], [several[i]], points[[i]])) for i in range(len(several))]
        assert together == alone


def test_a_draw_from_a_large_vocabulary_is_where_the_running_sum_says() -> None:
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(400, 1000, generator=generator) * 2
    points = torch.rand(400, dtype=torch.float64, generator=generator)
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    expected = torch.searchsorted(cumulative, (points * cumulative[:, -1])[:, None])[:, 0]
    assert draw_rows(logits, [params()] * 400, points).tolist() == expected.tolist()


def test_a_draw_from_shaped_probabilities_is_the_draw_of_the_step() -> None:
    several = [params(seed=place, **changes) for place, changes in enumerate(MANY)]
    logits = torch.randn(len(several), 5000, generator=torch.Generator().manual_seed(9))
    rows = [Row(Request(place, [0], each)) for place, each in enumerate(several)]
    step, verify = Sampler(), Sampler()
    for _ in range(10):
        shaped = verify.probabilities(logits, rows)
        drawn = [verify.draw(each, row.request) for each, row in zip(shaped, rows, strict=True)]
        assert [sampled.token for sampled in step.sample(logits, rows)] == drawn


@pytest.mark.parametrize("point", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_the_ends_of_the_draw_stay_inside_the_support(point: float) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]])
    for each in (params(), params(top_p=0.99), params(top_k=4)):
        assert int(draw_rows(logits, [each], torch.tensor([point], dtype=torch.float64))) in (1, 3)
