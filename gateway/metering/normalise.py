"""What a provider reports becomes disjoint buckets (pure). Malformed reports are clamped by rule and flagged, never raised.

The rule: a value that is not a whole number from 0 to MAX_TOKENS counts as not reported; a total that is missing is derived
from the others; a part larger than its total is cut to it. Each of these sets `estimated`. What is reported and consistent
is never estimated.
"""

from __future__ import annotations

from typing import Any, Literal

from gateway.types import Usage

Convention = Literal["openai"]
"""Who counts how. `openai` covers chat completions and responses of OpenAI, DeepSeek, xAI, Mistral, vLLM and our engine."""

MAX_TOKENS = 50_000_000
"""More than any context times any `n`; a larger count is a broken counter."""

CHARACTERS_PER_TOKEN = 4


def normalise(raw_usage: dict[str, Any] | None, convention: Convention = "openai") -> Usage:
    """The disjoint buckets of one attempt; all zero and `estimated` when nothing usable was reported."""
    if not isinstance(raw_usage, dict):
        return Usage(estimated=True)
    return _CONVENTIONS[convention](raw_usage)


def estimate_usage(prompt_characters: int, output_characters: int, reasoning_characters: int) -> Usage:
    """Usage of a stream that broke before its report: four characters per token, rounded up.

    `output_characters` is everything the model wrote, of which `reasoning_characters` is reasoning.
    """
    visible = max(0, output_characters - reasoning_characters)
    return Usage(
        input=_tokens(prompt_characters),
        output=_tokens(visible),
        reasoning=_tokens(reasoning_characters),
        estimated=True,
    )


class _Report:
    """Reads counts out of a usage object and remembers whether anything was wrong with it."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.malformed = False
        self._inputs = self._details("prompt_tokens_details", "input_tokens_details")
        self._outputs = self._details("completion_tokens_details", "output_tokens_details")

    def count(self, *names: str) -> int | None:
        """The first of `names` that is there; None when absent or not a count."""
        for name in names:
            value = self.raw.get(name)
            if value is not None and (count := self._checked(value)) is not None:
                return count
        return None

    def input_detail(self, name: str) -> int:
        """A count in the details of the prompt; zero when absent."""
        return self._detail(self._inputs, name)

    def output_detail(self, name: str) -> int:
        """A count in the details of the completion; zero when absent."""
        return self._detail(self._outputs, name)

    def _details(self, *names: str) -> dict[str, Any]:
        """The details object, in the words of either API."""
        for name in names:
            value = self.raw.get(name)
            if isinstance(value, dict):
                return value
            self.malformed |= value is not None
        return {}

    def _detail(self, details: dict[str, Any], name: str) -> int:
        value = details.get(name)
        return 0 if value is None else self._checked(value) or 0

    def _checked(self, value: Any) -> int | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS:
            return value
        self.malformed = True
        return None

    def cut(self, part: int, room: int) -> int:
        """The part, or what is left for it."""
        if part > room:
            self.malformed = True
            return room
        return part


def _openai(raw: dict[str, Any]) -> Usage:
    """OpenAI: the input total includes cache reads and writes and every modality, the output total includes reasoning."""
    report = _Report(raw)
    cached = report.input_detail("cached_tokens") or report.count("prompt_cache_hit_tokens") or 0
    written = report.input_detail("cache_write_tokens")
    audio, image = report.input_detail("audio_tokens"), report.input_detail("image_tokens")
    reasoning, audio_out = report.output_detail("reasoning_tokens"), report.output_detail("audio_tokens")
    total_in, total_out = _totals(report, max(cached + written, audio + image), reasoning + audio_out)
    cached = report.cut(cached, total_in)
    written = report.cut(written, total_in - cached)
    audio = report.cut(audio, total_in)
    image = report.cut(image, total_in - audio)
    # Cached tokens may themselves be audio or images; nobody reports which, so they count as cache reads only.
    rest = total_in - cached - written
    audio = min(audio, rest)
    image = min(image, rest - audio)
    audio_out = report.cut(audio_out, total_out)
    reasoning = report.cut(reasoning, total_out - audio_out)
    return Usage(
        input=rest - audio - image,
        cache_read=cached,
        cache_write_5m=written,
        audio_input=audio,
        image_input=image,
        output=total_out - audio_out - reasoning,
        reasoning=reasoning,
        audio_output=audio_out,
        gpu_seconds=_gpu_microseconds(report),
        estimated=report.malformed,
    )


def _totals(report: _Report, least_in: int, details_out: int) -> tuple[int, int]:
    """Input and output totals, reasoning included, whatever of prompt, completion and total was reported."""
    total_in = report.count("prompt_tokens", "input_tokens")
    total_out = report.count("completion_tokens", "output_tokens")
    total = report.count("total_tokens")
    if total_in is None and total_out is None:
        report.malformed = True
        return max(least_in, total or 0), details_out
    if total_in is None:
        report.malformed = True
        total_in = max(least_in, (total or 0) - (total_out or 0))
    if total_out is None:
        # Embeddings have no completion_tokens, which is not an error.
        report.malformed |= details_out > 0 or total is None or total < total_in
        total_out = max(details_out, (total or 0) - total_in)
    reasoning = report.output_detail("reasoning_tokens")
    if reasoning and total is not None and total == total_in + total_out + reasoning:
        total_out += reasoning  # xAI and some servers keep reasoning outside of completion_tokens; their total tells
    elif reasoning > total_out:
        report.malformed = True
        total_out += reasoning
    return total_in, total_out


def _gpu_microseconds(report: _Report) -> int:
    """Engine time, which self-hosted servers may report in seconds as `gpu_seconds`."""
    value = report.raw.get("gpu_seconds")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400:
        return round(value * 1_000_000)
    report.malformed |= value is not None
    return 0


def _tokens(characters: int) -> int:
    return -(-max(0, characters) // CHARACTERS_PER_TOKEN)


_CONVENTIONS = {"openai": _openai}
