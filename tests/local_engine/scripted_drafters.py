"""Drafters that tests can rely on: they know the answers by heart, or a part of them, and are always asked."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from local_engine.engine import Engine
from local_engine.request import Request
from local_engine.speculative.drafter import Draft, Drafter, Seen
from local_engine.speculative.speculator import Speculator


class Scripted:
    """Knows answers by heart; proposes them, junk, or the right beginning with junk behind it."""

    taps: tuple[int, ...] = ()
    costly = False
    kind = "scripted"

    def __init__(self, answers: dict[tuple[int, ...], list[int]], kind: str) -> None:
        self._answers, self._how = answers, kind
        self._chance = random.Random(1)

    def propose(self, requests: Sequence[Request], wanted: Sequence[int]) -> list[Draft]:
        return [self._propose(request, most) for request, most in zip(requests, wanted, strict=True)]

    def _propose(self, request: Request, most: int) -> Draft:
        right = self._answers[tuple(request.tokens[: request.prompt_tokens])][request.answered :][:most]
        if self._how == "perfect":
            return Draft(tuple(right))
        if self._how == "junk":
            return Draft(tuple(self._chance.randrange(300) for _ in range(self._chance.randint(0, most))))
        kept = self._chance.randint(0, len(right))
        tokens = (*right[:kept], *(self._chance.randrange(300) for _ in range(len(right) - kept)))
        if self._how == "half" or not tokens:
            return Draft(tokens)
        weights = torch.full((len(tokens), 400), 0.5 / 400)
        for place, token in enumerate(tokens):
            weights[place, token] += 0.5
        return Draft(tokens, weights)

    def observe(self, seen: Sequence[Seen]) -> None:
        raise AssertionError("it taps nothing")

    def forget(self, request: Request) -> None:
        pass


class Eager(Speculator):
    """Drafts as much as it may, whether it pays or not."""

    def _propose(self, able: list[Request], rows: int) -> None:
        most = [min(self.most, request.params.max_tokens - request.answered - 1) for request in able]
        for request, draft in zip(able, self.drafters[0].propose(able, most), strict=True):
            self._take(request, draft, self.most)


def eager(engine: Engine, drafter: Drafter, most: int = 5) -> Engine:
    """The engine, drafting as much as it may."""
    engine.speculator = Eager([drafter], most)
    return engine
