"""The next token of each request from its logits, for all rows of a step together; every request draws from its own generator.

Greedy takes the largest logit. Otherwise temperature and cuts shape the distribution and one uniform number picks from it, so
a seeded request takes the same numbers whatever else is in the batch. Bias, penalties and what a guide (a grammar, a thought
that must end) allows come first; a row of a step that verifies drafts is treated as if its drafts had come already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from local_engine.request import Request, Row, Sampled
from local_engine.sampling.distribution import draw_from, draw_rows, shape_rows
from local_engine.sampling.logprobs import logprobs_of
from local_engine.sampling.masks import allowed_rows, forbid
from local_engine.sampling.penalties import TokenCounts, is_steered, steer


class Sampler:
    """Holds generator and token counts of each running request; `forget` drops them when it ends."""

    def __init__(self) -> None:
        self._generators: dict[int, torch.Generator] = {}
        self._counts: dict[int, TokenCounts] = {}

    @torch.inference_mode()
    def sample(self, logits: Tensor, rows: Sequence[Row], likeliest: Sequence[int] | None = None) -> list[Sampled]:
        """One token per row. `logits` [rows, vocab] float32 on any device; `likeliest` if their largest are known."""
        if not rows:
            return []
        steered = self.steer(logits, rows)
        drawn = [place for place, row in enumerate(rows) if row.request.params.temperature > 0]
        if likeliest is None or steered is not logits:
            likeliest = largest(steered).tolist() if len(drawn) < len(rows) else [0] * len(rows)
        chosen = list(likeliest)
        if drawn:
            points = torch.stack([self.uniform(rows[place].request) for place in drawn]).to(logits.device)
            part = steered if len(drawn) == len(rows) else steered[drawn]
            tokens = draw_rows(part, [rows[place].request.params for place in drawn], points)
            for place, token in zip(drawn, tokens.tolist(), strict=True):
                chosen[place] = token
        return self.describe(logits, rows, chosen)

    @torch.inference_mode()
    def probabilities(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """What each row is drawn from, [rows, vocab] float32, each row summing to 1; a greedy row is one-hot."""
        steered = self.steer(logits, rows)
        drawn = [place for place, row in enumerate(rows) if row.request.params.temperature > 0]
        if len(drawn) == len(rows):
            return shape_rows(steered, [row.request.params for row in rows])
        shaped = torch.zeros_like(steered, dtype=torch.float32)
        shaped.scatter_(-1, largest(steered)[:, None], 1.0)
        if drawn:
            shaped[drawn] = shape_rows(steered[drawn], [rows[place].request.params for place in drawn])
        return shaped

    @torch.inference_mode()
    def steer(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """The logits after bias, penalties and guides; the given tensor itself when no row has any of them."""
        counted = [row.request for row in rows if is_steered(row.request.params)]
        masks = allowed_rows(rows)
        if not counted and not masks:
            return logits
        logits = logits.clone()
        for request in counted:
            self._counts_of(request).catch_up(request.tokens)
        if counted:
            steer(logits, rows, self._counts)
        if masks:
            forbid(logits, masks)
        return logits

    def describe(self, logits: Tensor, rows: Sequence[Row], tokens: Sequence[int]) -> list[Sampled]:
        """Tokens that were chosen from the rows, with log probabilities for those requests that want them."""
        values = logprobs_of(logits, tokens, [row.request.params.logprobs for row in rows])
        return [Sampled(*each) for each in zip(tokens, values, strict=True)]

    def draw(self, probabilities: Tensor, request: Request) -> int:
        """A token from `probabilities` [vocab] by the request's next random number: the one `sample` would take."""
        return draw_from(probabilities, self.uniform(request))

    def uniform(self, request: Request) -> Tensor:
        """The request's next random number: float64 from 0 to below 1."""
        return torch.rand((), dtype=torch.float64, generator=self.generator(request))

    def generator(self, request: Request) -> torch.Generator:
        """The request's own source of randomness, on the CPU."""
        generator = self._generators.get(request.id)
        if generator is None:
            generator = self._generators[request.id] = torch.Generator()
            if request.params.seed is None:
                generator.seed()
            else:
                generator.manual_seed(request.params.seed)
        return generator

    def forget(self, request: Request) -> None:
        """Drop what is kept for the request."""
        self._generators.pop(request.id, None)
        self._counts.pop(request.id, None)

    @property
    def owners(self) -> set[int]:
        """Ids of the requests something is kept for; it stays while a preempted request waits."""
        return {*self._generators, *self._counts}

    def _counts_of(self, request: Request) -> TokenCounts:
        counts = self._counts.get(request.id)
        if counts is None:
            counts = self._counts[request.id] = TokenCounts(request)
        return counts


def largest(logits: Tensor) -> Tensor:
    """The place of each row's largest logit [rows] int64, the first of equals."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.from_numpy(logits.numpy().argmax(-1))  # on a CPU a sixth of torch's time for 64 rows
