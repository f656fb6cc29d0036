"""Reads counts out of a usage report and cuts them into disjoint buckets (pure). What is wrong is noted, never raised.

A value that is not a whole number from 0 to MAX_TOKENS counts as not reported; a part larger than its total is cut to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.types import Usage

MAX_TOKENS = 50_000_000
"""More than any context times any `n`; a larger count is a broken counter."""

MAX_GPU_SECONDS = 86_400

Fields = Mapping[str, Any]
NONE: Fields = {}


class Report:
    """One usage object and what was found wrong with it."""

    __slots__ = ("problems", "raw")

    def __init__(self, raw: Fields) -> None:
        self.raw = raw
        self.problems: list[str] = []

    def wrong(self, what: str) -> None:
        """Note that the report contradicts itself; its usage will be marked."""
        self.problems.append(what)

    def count(self, name: str, fields: Fields | None = None) -> int | None:
        """A count of the report, or of an object in it; None when it is absent or is no count."""
        value = (self.raw if fields is None else fields).get(name)
        # Nearly every value is a plain small int, and a request waits for a dozen of them.
        if value is None or (type(value) is int and 0 <= value <= MAX_TOKENS):
            return value
        if isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_TOKENS:
            return int(value)
        self.wrong(f"{name} is {_short(value)}, which is no count of tokens")
        return None

    def part(self, name: str, fields: Fields | None = None) -> int:
        """The same; zero when it is absent."""
        return self.count(name, fields) or 0

    def first(self, *names: str) -> int | None:
        """The first of these counts that is there."""
        for name in names:
            if (value := self.count(name)) is not None:
                return value
        return None

    def fields(self, *names: str) -> Fields:
        """The first of these objects that is there; empty when there is none."""
        for name in names:
            value = self.raw.get(name)
            if isinstance(value, dict):
                return value
            if value is not None:
                self.wrong(f"{name} is {_short(value)}, which is no object")
        return NONE

    def entries(self, name: str) -> list[Fields]:
        """The objects of a list; empty when there is none."""
        value = self.raw.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.wrong(f"{name} is {_short(value)}, which is no list of objects")
            return []
        return value

    def disjoint(
        self,
        total_in: int,
        total_out: int,
        *,
        cache_read: int = 0,
        cache_write_5m: int = 0,
        cache_write_1h: int = 0,
        audio_input: int = 0,
        image_input: int = 0,
        reasoning: int = 0,
        audio_output: int = 0,
    ) -> Usage:
        """The buckets of two totals that include all of these parts: input buckets sum to one, output buckets to the other.

        Audio and images that do not fit beside the cached tokens were cached themselves; nobody reports which, so they count
        as cache reads only.
        """
        rest = total_in
        if cache_read or cache_write_5m or cache_write_1h:
            cache_read = self._cut("cached input", cache_read, rest)
            rest -= cache_read
            cache_write_1h = self._cut("cache writes", cache_write_1h, rest)
            rest -= cache_write_1h
            cache_write_5m = self._cut("cache writes", cache_write_5m, rest)
            rest -= cache_write_5m
        if audio_input or image_input:
            audio_input = self._cut("audio input", audio_input, total_in)
            image_input = self._cut("image input", image_input, total_in - audio_input)
            audio_input = min(audio_input, rest)
            rest -= audio_input
            image_input = min(image_input, rest)
            rest -= image_input
        text = total_out
        if reasoning or audio_output:
            audio_output = self._cut("audio output", audio_output, text)
            text -= audio_output
            reasoning = self._cut("reasoning", reasoning, text)
            text -= reasoning
        gpu = self._gpu_microseconds()
        return Usage(
            rest, cache_read, cache_write_5m, cache_write_1h, audio_input, image_input, text, reasoning, audio_output,
            gpu, bool(self.problems),
        )  # fmt: skip

    def _cut(self, what: str, part: int, room: int) -> int:
        if part > room:
            self.wrong(f"{part} tokens of {what} do not fit into the {room} that are left of their total")
            return room
        return part

    def _gpu_microseconds(self) -> int:
        """Engine time, which self-hosted servers may report in seconds as `gpu_seconds`."""
        value = self.raw.get("gpu_seconds")
        if value is None:
            return 0
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_GPU_SECONDS:
            return round(value * 1_000_000)
        self.wrong(f"gpu_seconds is {_short(value)}, which is no time in seconds")
        return 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
