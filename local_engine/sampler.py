"""The next token of each request from its logits; every request draws from its own generator.

Greedy takes the largest logit. Otherwise penalties, temperature, top-k and top-p shape the distribution and one uniform
number picks from it in vocabulary order, so a seeded request takes the same numbers whatever else is in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.request import Request, Row, SamplingParams


class Sampler:
    """Holds one random generator per running request; `forget` drops it when the request ends."""

    def __init__(self) -> None:
        self._generators: dict[int, torch.Generator] = {}

    def sample(self, logits: Tensor, rows: list[Row]) -> list[int]:
        """One token id per row. `logits` [rows, vocab] float32 on any device."""
        logits = logits.cpu()
        greedy = logits.argmax(-1).tolist()
        return [
            int(greedy[place]) if _is_plain_greedy(row.request.params) else self._sample_one(logits[place], row.request)
            for place, row in enumerate(rows)
        ]

    def forget(self, request: Request) -> None:
        """Drop the request's generator."""
        self._generators.pop(request.id, None)

    @property
    def owners(self) -> set[int]:
        """Ids of the requests that have a generator; it stays while a preempted request waits."""
        return set(self._generators)

    def _sample_one(self, logits: Tensor, request: Request) -> int:
        params = request.params
        logits = _penalise(logits, request)
        if params.temperature == 0:
            return int(logits.argmax())
        probabilities = shape_distribution(logits, params)
        point = torch.rand((), dtype=torch.float64, generator=self._generator(request))
        cumulative = probabilities.double().cumsum(0)
        index = int(torch.searchsorted(cumulative, point * cumulative[-1], right=True))
        return min(index, int(probabilities.nonzero()[-1]))  # rounding at the very end must not leave the support

    def _generator(self, request: Request) -> torch.Generator:
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


def _is_plain_greedy(params: SamplingParams) -> bool:
    return params.temperature == 0 and params.frequency_penalty == 0 and params.presence_penalty == 0


def _penalise(logits: Tensor, request: Request) -> Tensor:
    """Subtract OpenAI's penalties for tokens the answer already holds; the prompt does not count."""
    params = request.params
    if (params.frequency_penalty == 0 and params.presence_penalty == 0) or not request.answer:
        return logits
    counts = torch.bincount(torch.tensor(request.answer), minlength=logits.numel())
    return logits - params.frequency_penalty * counts - params.presence_penalty * (counts > 0)
