"""The visible text of one answer: whole characters only, cut before the first stop string.

A part of a stop string is never shown: text that could still become one is held back until it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

from local_engine.stream_decoder import stream_decoder
from local_engine.tokenizer import Tokenizer


class StopMatcher:
    """Finds the first of several strings in text that arrives in pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._firsts = frozenset(stop[0] for stop in self._stops)  # few places of a text can begin one at all
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """The text that is safe to show now; after a stop string nothing is shown any more."""
        if self.stopped:
            return ""
        self._held += piece
        found = min((at for at in map(self._held.find, self._stops) if at >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            shown, self._held = self._held[:found], ""
            return shown
        keep = self._possible_start()
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back when the answer ends without a stop string."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self) -> int:
        """Length of the longest tail that begins some stop string."""
        held = self._held
        for start in range(max(0, len(held) - self._longest + 1), len(held)):
            if held[start] in self._firsts and any(stop.startswith(held[start:]) for stop in self._stops):
                return len(held) - start
        return 0


class AnswerText:
    """Decoder and stop matcher in a row."""

    __slots__ = ("_decoder", "_matched", "_matcher", "stopped")

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], *, markup: bool = False) -> None:
        self._decoder = stream_decoder(tokenizer, markup=markup)
        self._matcher = StopMatcher(stops)
        self._matched = bool(stops)
        self.stopped = False
        """Whether a stop string was met."""

    def push(self, token: int) -> str:
        """Text to show after this token; `stopped` tells whether a stop string ended the answer."""
        piece = self._decoder.push(token)
        return self._match(piece) if self._matched else piece

    def finish(self) -> str:
        """Text still held when the answer ends, without a character it was cut in the middle of."""
        return self._match(self._decoder.flush().rstrip("\ufffd")) + self._matcher.flush()

    def _match(self, piece: str) -> str:
        shown = self._matcher.push(piece)
        self.stopped = self._matcher.stopped
        return shown
