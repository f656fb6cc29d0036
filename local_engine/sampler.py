"""The next token of each request from its logits; every request draws from its own generator.

Greedy takes the largest logit. Otherwise penalties, temperature, top-k and top-p shape the distribution and one uniform
number picks from it in vocabulary order, so a seeded request takes the same numbers whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.request import Request, Row, SamplingParams


@dataclass(frozen=True, slots=True)
class Sampled:
    """One token of an answer."""

    token: int


class Sampler:
    """Holds one random generator per running request; `forget` drops it when the request ends."""

    def __init__(self) -> None:
        self._generators: dict[int, torch.Generator] = {}

    def sample(self, logits: Tensor, rows: Sequence[Row]) -> list[Sampled]:
        """One token per row. `logits` [rows, vocab] float32 on any device."""
        greedy: list[int] = logits.argmax(-1).tolist()
        tokens = [
            greedy[place]
            if self.is_plain_greedy(row.request)
            else self.draw(self.probabilities(logits[place : place + 1], [row])[0], row.request)
            for place, row in enumerate(rows)
        ]
        return self.describe(logits, rows, tokens)

    def describe(self, logits: Tensor, rows: Sequence[Row], tokens: Sequence[int]) -> list[Sampled]:
        """Tokens that were chosen from `rows`, with what the requests want to know about them."""
        return [Sampled(token) for token in tokens]

    def probabilities(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """What each row is drawn from, [rows, vocab] float32 on the CPU, normalised; greedy puts all on one token."""
        return torch.stack([_distribution(each.cpu(), row) for each, row in zip(logits, rows, strict=True)])

    def draw(self, probabilities: Tensor, request: Request) -> int:
        """A token from `probabilities` [vocab], by one number of the request's own generator."""
        if request.params.temperature == 0:
            return int(probabilities.argmax())
        point = torch.rand((), dtype=torch.float64, generator=self.generator(request))
        cumulative = probabilities.double().cumsum(0)
        index = int(torch.searchsorted(cumulative, point * cumulative[-1], right=True))
        return min(index, int(probabilities.nonzero()[-1]))  # rounding at the very end must not leave the support

    def is_plain_greedy(self, request: Request) -> bool:
        """Whether the largest logit is the answer, whatever came before."""
        params = request.params
        return params.temperature == 0 and params.frequency_penalty == 0 and params.presence_penalty == 0

    def forget(self, request: Request) -> None:
        """Drop the request's generator."""
        self._generators.pop(request.id, None)

    @property
    def owners(self) -> set[int]:
        """Ids of the requests that have a generator; it stays while a preempted request waits."""
        return set(self._generators)

    def generator(self, request: Request) -> torch.Generator:
        """The request's own random numbers; begun from its seed where it has one."""
        generator = self._generators.get(request.id)
        if generator is None:
            generator = self._generators[request.id] = torch.Generator()
            if request.params.seed is None:
                generator.seed()
            else:
                generator.manual_seed(request.params.seed)
        return generator


def shape_distribution(logits: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities [vocab] after temperature, top-k and top-p; not renormalised after the cuts.

    Top-p keeps the smallest set of most likely tokens whose mass reaches `top_p` (Holtzman et al. 2019, arXiv 1904.09751).
    """
    if 0 < params.top_k < logits.numel():
        kept, indices = logits.topk(params.top_k)
        logits = torch.full_like(logits, -torch.inf).scatter(0, indices, kept)
    probabilities = (logits / params.temperature).softmax(0)
    if params.top_p < 1:
        ordered, indices = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        probabilities = probabilities.scatter(0, indices, ordered.where(before < max(params.top_p, 1e-6), 0.0))
    return probabilities


def _distribution(logits: Tensor, row: Row) -> Tensor:
    logits = _penalise(logits, row)
    if row.request.params.temperature == 0:
        return torch.zeros_like(logits).index_fill_(0, logits.argmax(), 1.0)
    probabilities = shape_distribution(logits, row.request.params)
    return probabilities / probabilities.sum()


def _penalise(logits: Tensor, row: Row) -> Tensor:
    """Subtract OpenAI's penalties for tokens the answer already holds, drafts included; the prompt does not count."""
    params = row.request.params
    if params.frequency_penalty == 0 and params.presence_penalty == 0:
        return logits
    answer = [*row.request.answer, *row.drafts]
    if not answer:
        return logits
    counts = torch.bincount(torch.tensor(answer), minlength=logits.numel())
    return logits - params.frequency_penalty * counts - params.presence_penalty * (counts > 0)
