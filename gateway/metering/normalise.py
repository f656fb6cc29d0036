"""What a provider reports becomes disjoint buckets (pure). Malformed reports are read by rule and marked, never raised.

Which convention a report follows is said by the model (`usage:`), follows from the host of its API, or is recognised by the
names of its fields. What is reported and consistent is never estimated; what contradicts itself sets `estimated` and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.conventions import Convention
from gateway.metering.usage.anthropic import read_anthropic
from gateway.metering.usage.bedrock import read_bedrock
from gateway.metering.usage.gemini import NATIVE, read_gemini
from gateway.metering.usage.openai import read_deepseek, read_mistral, read_openai, read_xai
from gateway.metering.usage.report import MAX_TOKENS, Report
from gateway.types import Usage

__all__ = ["MAX_TOKENS", "Reading", "estimate_usage", "normalise", "read_usage", "recognise", "reports_tokens"]

CHARACTERS_PER_TOKEN = 4

_READERS: dict[Convention, Callable[[Report], Usage]] = {
    "openai": read_openai,
    "anthropic": read_anthropic,
    "gemini": read_gemini,
    "deepseek": read_deepseek,
    "xai": read_xai,
    "mistral": read_mistral,
    "bedrock": read_bedrock,
}
_OPENAI_WORDS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens")
_WORDS: dict[Convention, tuple[str, ...]] = {
    **dict.fromkeys(_READERS, _OPENAI_WORDS),
    "gemini": (*NATIVE, *_OPENAI_WORDS),
    "bedrock": ("inputTokens", "outputTokens", *_OPENAI_WORDS),
}
"""Fields of which a report of the convention has at least one; another report is recognised by its own."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A report as buckets, the convention it was read by, and what contradicts itself in it."""

    usage: Usage
    convention: Convention
    problems: tuple[str, ...] = ()


def normalise(raw_usage: dict[str, Any] | None, convention: Convention | None = None) -> Usage:
    """The disjoint buckets of one attempt; all zero and `estimated` when nothing usable was reported."""
    return read_usage(raw_usage, convention).usage


def read_usage(raw_usage: object, convention: Convention | None = None) -> Reading:
    """The same with its reasons. `convention` is what the model is configured with; None recognises it."""
    if not isinstance(raw_usage, dict):
        return Reading(Usage(estimated=True), convention or "openai", ("no usage was reported",))
    if convention is None or not any(name in raw_usage for name in _WORDS[convention]):
        convention = recognise(raw_usage)
    report = Report(raw_usage)
    usage = _READERS[convention](report)
    if not report.problems:
        return Reading(usage, convention)
    return Reading(_marked(usage), convention, tuple(dict.fromkeys(report.problems)))


def recognise(raw_usage: Mapping[str, Any]) -> Convention:
    """The convention that a report's fields belong to. OpenAI's is also that of everybody who copies its words."""
    if "prompt_tokens" in raw_usage or "completion_tokens" in raw_usage:
        return "deepseek" if "prompt_cache_miss_tokens" in raw_usage else "openai"
    if "inputTokens" in raw_usage or "outputTokens" in raw_usage:
        return "bedrock"
    if any(name in raw_usage for name in NATIVE):
        return "gemini"
    if "cache_read_input_tokens" in raw_usage or "cache_creation_input_tokens" in raw_usage:
        return "anthropic"
    return "openai"


def reports_tokens(raw_usage: Mapping[str, Any] | None) -> bool:
    """Whether a report counts anything at all; without that the text of the answer has to be counted instead."""
    return raw_usage is not None and any(type(value) is int and value > 0 for value in raw_usage.values())


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


def _marked(usage: Usage) -> Usage:
    """A reader may find a contradiction after it has cut the buckets."""
    return usage if usage.estimated else replace(usage, estimated=True)


def _tokens(characters: int) -> int:
    return -(-max(0, characters) // CHARACTERS_PER_TOKEN)
