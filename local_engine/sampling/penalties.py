"""Logit bias and the three penalties, for the rows of a step in one scatter; a request's counts grow with its answer.

Frequency and presence penalties are OpenAI's and look at the answer only. The repetition penalty is CTRL's (Keskar et al.
2019, arXiv 1909.05858): positive logits of tokens seen in prompt or answer are divided by it, negative ones multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from local_engine.request import Request, Row, SamplingParams


def is_steered(params: SamplingParams) -> bool:
    """Whether bias or penalties change these logits at all."""
    return bool(
        params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1 or params.logit_bias
    )


class TokenCounts:
    """How often each token came in an answer; the prompt's tokens are listed with 0 when a repetition penalty needs them."""

    def __init__(self, request: Request) -> None:
        self._place: dict[int, int] = {}
        self._ids = np.zeros(64, dtype=np.int64)
        self._counts = np.zeros(64, dtype=np.float32)
        self._seen = request.prompt_tokens
        if request.params.repetition_penalty != 1:
            for token in request.tokens[: request.prompt_tokens]:
                self._slot(token)

    def catch_up(self, tokens: Sequence[int]) -> None:
        """Count what was added to a request's tokens since the last time."""
        for token in tokens[self._seen :]:
            slot = self._slot(token)
            self._counts[slot] += 1
        self._seen = len(tokens)

    def after(self, drafts: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Token ids and their counts if `drafts` had come as well."""
        known = len(self._place)
        fresh = {token: known + at for at, token in enumerate(dict.fromkeys(t for t in drafts if t not in self._place))}
        counts = np.concatenate([self._counts[:known], np.zeros(len(fresh), dtype=np.float32)])
        for token in drafts:
            counts[self._place.get(token, fresh.get(token, 0))] += 1
        return np.concatenate([self._ids[:known], np.fromiter(fresh, dtype=np.int64, count=len(fresh))]), counts

    def _slot(self, token: int) -> int:
        slot = self._place.setdefault(token, len(self._place))
        if slot == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[slot] = token
        return slot


def steer(logits: Tensor, rows: Sequence[Row], counts: dict[int, TokenCounts]) -> None:
    """Add biases and take penalties, in place. `counts` holds the request's counts by its id; rows without are left alone."""
    found = [
        (place, row, *counts[row.request.id].after(row.drafts))
        for place, row in enumerate(rows)
        if row.request.id in counts
    ]
    _penalise(logits, found)
    _add_bias(
        logits, [(place, row.request.params.logit_bias) for place, row, *_ in found if row.request.params.logit_bias]
    )


def _penalise(logits: Tensor, found: list[tuple[int, Row, NDArray[np.int64], NDArray[np.float32]]]) -> None:
    if not any(len(ids) for *_, ids, _ in found):
        return

    def spread(name: str) -> Tensor:
        values = [np.full(len(ids), getattr(row.request.params, name), np.float32) for _, row, ids, _ in found]
        return torch.from_numpy(np.concatenate(values)).to(logits.device)

    device = logits.device
    at = torch.from_numpy(np.concatenate([np.full(len(ids), place) for place, _, ids, _ in found])).to(device)
    ids = torch.from_numpy(np.concatenate([ids for *_, ids, _ in found])).to(device)
    count = torch.from_numpy(np.concatenate([counts for *_, counts in found])).to(device)
    values = logits[at, ids]
    repetition = spread("repetition_penalty")
    values = torch.where(values > 0, values / repetition, values * repetition)
    values -= spread("frequency_penalty") * count + spread("presence_penalty") * (count > 0)
    logits[at, ids] = values


def _add_bias(logits: Tensor, biased: list[tuple[int, tuple[tuple[int, float], ...]]]) -> None:
    if biased:
        device = logits.device
        at = torch.tensor([place for place, bias in biased for _ in bias], device=device)
        ids = torch.tensor([token for _, bias in biased for token, _ in bias], device=device)
        amount = torch.tensor([value for _, bias in biased for _, value in bias], dtype=logits.dtype, device=device)
        logits.index_put_((at, ids), amount, accumulate=True)
