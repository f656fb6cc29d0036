"""What is kept of drafts leaves the answer's distribution as it is, however the drafts were made."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from local_engine.request import Request, Row, SamplingParams
from local_engine.sampler import Sampler
from local_engine.sampling.distribution import shape_distribution
from local_engine.speculative.drafter import Draft
from local_engine.speculative.verify import verify

VOCABULARY, DRAFTED, ROUNDS = 6, 2, 2500


def target_logits(path: tuple[int, ...]) -> torch.Tensor:
    """A small language model: logits [VOCABULARY] that depend on the tokens before."""
    generator = torch.Generator().manual_seed(hash(path) % 2**31)
    return 1.5 * torch.randn(VOCABULARY, generator=generator)


def propose_greedily(request: Request, generator: torch.Generator) -> Draft:
    """A point mass: sometimes the likeliest path, sometimes any."""
    del request
    tokens: list[int] = []
    for _ in range(DRAFTED):
        any_token = int(torch.randint(VOCABULARY, (1,), generator=generator))
        tokens.append(int(target_logits(tuple(tokens)).argmax()) if any_token < 3 else any_token)
    return Draft(tuple(tokens))


def propose_drawn(request: Request, generator: torch.Generator) -> Draft:
    """Drawn from a blurred target, with a token it never draws and one it likes too much."""
    tokens: list[int] = []
    rows = []
    for _ in range(DRAFTED):
        logits = target_logits(tuple(tokens)) / 2
        logits[1] += 1.5
        logits[4] = -torch.inf
        rows.append((logits / request.params.temperature).softmax(0))
        tokens.append(int(torch.multinomial(rows[-1], 1, generator=generator)))
    return Draft(tuple(tokens), torch.stack(rows))


def answer(
    params: SamplingParams, sampler: Sampler, number: int, propose: Callable[[Request, torch.Generator], Draft]
) -> tuple[int, ...]:
    """The first DRAFTED + 1 tokens of an answer, drafts verified as the engine does it."""
    request = Request(number, [0], params)
    generator = torch.Generator().manual_seed(number)
    while request.answered <= DRAFTED:
        before = tuple(request.answer)
        if before:
            sampled = sampler.sample(target_logits(before)[None], [Row(request)])
            request.tokens.append(sampled[0].token)
            continue
        draft = propose(request, generator)
        rows = [Row(request, draft.tokens[:count]) for count in range(DRAFTED + 1)]
        logits = torch.stack([target_logits(row.drafts) for row in rows])
        run = verify(logits, rows, sampler, {number: draft})[0]
        assert run.drafted == DRAFTED
        request.tokens += [each.token for each in run.sampled]
    sampler.forget(request)
    return tuple(request.answer[: DRAFTED + 1])


def expected(params: SamplingParams) -> dict[tuple[int, ...], float]:
    """Probability of every answer of DRAFTED + 1 tokens, token by token."""
    shares = {(): 1.0}
    for _ in range(DRAFTED + 1):
        shares = {
            (*path, token): share * float(chance)
            for path, share in shares.items()
            for token, chance in enumerate(_normalised(shape_distribution(target_logits(path), params)))
            if chance > 0
        }
    return shares


def _normalised(probabilities: torch.Tensor) -> list[float]:
    return [float(each) for each in probabilities / probabilities.sum()]


@pytest.mark.parametrize("propose", [propose_greedily, propose_drawn])
@pytest.mark.parametrize("wish", [{}, {"top_p": 0.8, "temperature": 0.7}, {"top_k": 3, "temperature": 1.4}], ids=str)
def test_answers_are_distributed_as_without_drafts(
    propose: Callable[[Request, torch.Generator], Draft], wish: dict[str, float]
) -> None:
    sampler = Sampler()
    params = SamplingParams(max_tokens=9, **wish)  # type: ignore[arg-type]
    counted: dict[tuple[int, ...], int] = {}
    for number in range(ROUNDS):
        request = Request(number, [0], params)
        sampler.generator(request).manual_seed(90_000 + number)  # fixed numbers, as if it had no seed of its own
        drawn = answer(params, sampler, number, propose)
        counted[drawn] = counted.get(drawn, 0) + 1
    shares = expected(params)
    assert set(counted) <= set(shares), "a token outside the cuts"
    statistic, cells = chi_square(counted, shares)
    assert statistic < cells + 4 * math.sqrt(2 * cells), f"chi-square {statistic:.0f} on {cells} cells"


def chi_square(counted: dict[tuple[int, ...], int], shares: dict[tuple[int, ...], float]) -> tuple[float, int]:
    """The statistic and its cells; paths too rare to count are one cell together."""
    common = [path for path, share in shares.items() if ROUNDS * share >= 5]
    statistic = sum((counted.get(path, 0) - ROUNDS * shares[path]) ** 2 / (ROUNDS * shares[path]) for path in common)
    rest = ROUNDS * (1 - sum(shares[path] for path in common))
    seen = ROUNDS - sum(counted.get(path, 0) for path in common)
    return statistic + (seen - rest) ** 2 / max(rest, 1.0), len(common) + 1


def test_a_wrong_rule_would_be_noticed() -> None:
    """Taking drawn drafts as they come bends the distribution far beyond what the test above lets pass."""
    shares = expected(SamplingParams(max_tokens=9))
    request = Request(0, [0], SamplingParams(max_tokens=9))
    counted: dict[tuple[int, ...], int] = {}
    for number in range(ROUNDS):
        generator = torch.Generator().manual_seed(number)
        tokens = propose_drawn(request, generator).tokens
        last = int(torch.multinomial(target_logits(tokens).softmax(0), 1, generator=generator))
        counted[*tokens, last] = counted.get((*tokens, last), 0) + 1
    statistic, cells = chi_square(counted, shares)
    assert statistic > 3 * (cells + 4 * math.sqrt(2 * cells))


def test_perfectly_weighed_drafts_are_all_kept() -> None:
    sampler, params = Sampler(), SamplingParams(max_tokens=9)
    generator = torch.Generator().manual_seed(2)
    for number in range(50):
        request = Request(number, [0], params)
        tokens: list[int] = []
        weights = []
        for _ in range(DRAFTED):
            weights.append(target_logits(tuple(tokens)).softmax(0))
            tokens.append(int(torch.multinomial(weights[-1], 1, generator=generator)))
        rows = [Row(request, tuple(tokens[:count])) for count in range(DRAFTED + 1)]
        logits = torch.stack([target_logits(row.drafts) for row in rows])
        run = verify(logits, rows, sampler, {number: Draft(tuple(tokens), torch.stack(weights))})[0]
        assert run.accepted == DRAFTED


def test_log_probabilities_belong_to_the_tokens_that_are_kept() -> None:
    sampler = Sampler()
    for temperature in (0.0, 1.0):
        request = Request(1, [0], SamplingParams(max_tokens=9, temperature=temperature, logprobs=2))
        rows = [Row(request, (3, 5)[:count]) for count in range(3)]
        logits = torch.stack([target_logits(row.drafts) for row in rows])
        for draft in (Draft((3, 5)), Draft((3, 5), torch.full((2, VOCABULARY), 1 / VOCABULARY))):
            for place, sampled in enumerate(verify(logits, rows, sampler, {1: draft})[0].sampled):
                assert sampled.logprobs is not None
                assert sampled.logprobs.token == sampled.token
                wanted = float(logits[place].log_softmax(0)[sampled.token])
                assert sampled.logprobs.value == pytest.approx(wanted, abs=1e-5)
