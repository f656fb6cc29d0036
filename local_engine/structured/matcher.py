"""A guide that follows an answer through a compiled grammar; what exceeds llguidance's limits shows as `failure`."""

from __future__ import annotations

from collections.abc import Collection

import torch
from llguidance import LLMatcher
from torch import Tensor


class GrammarGuide:
    """One answer in one grammar. When nothing can follow any more, only the tokens that end an answer are allowed."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, ends: Collection[int]) -> None:
        self._matcher = matcher
        self._words = (vocab_size + 31) // 32
        self._ends = ends
        self.length = 0
        self.thought = 0
        self.failure: str | None = None

    def advance(self, token: int) -> bool:
        """As Guide.advance."""
        if self._matcher.is_error() or self._matcher.try_consume_tokens([token]) != 1:
            return False
        self.length += 1
        return True

    def retreat(self, count: int) -> None:
        """As Guide.retreat."""
        if count:
            self._matcher.rollback(count)
            self.length -= count

    def allowed(self) -> Tensor:
        """As Guide.allowed; never empty."""
        if self.failure is None and not self._matcher.is_stopped():
            bits = torch.zeros(self._words, dtype=torch.int32)
            self._matcher.unsafe_compute_mask_ptr(bits.data_ptr(), self._words * 4)
            if not self._matcher.is_error() and bool(bits.any()):
                return bits
        if self._matcher.is_error():
            self.failure = self._matcher.get_error().strip().splitlines()[0]
        return bits_of(self._ends, self._words)


def bits_of(tokens: Collection[int], words: int) -> Tensor:
    """int32 [words] with the bits of these tokens set."""
    values = [0] * words
    for token in tokens:
        if token < words * 32:
            values[token // 32] |= 1 << token % 32
    return torch.tensor(values, dtype=torch.int64).to(torch.int32)
