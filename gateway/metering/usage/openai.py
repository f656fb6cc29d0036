"""OpenAI's words, chat completions and responses, and what those who borrow them count otherwise (pure).

OpenAI: the input total includes cache reads, cache writes and every modality; the output total includes reasoning and audio.
So do DeepSeek, Mistral, vLLM, llama.cpp and our engine. xAI keeps reasoning outside of `completion_tokens` and inside of
`total_tokens`; so does Google's OpenAI-compatible endpoint, which does not even name it.
"""

from __future__ import annotations

from typing import Literal

from gateway.metering.usage.report import Fields, Report
from gateway.types import Usage

Reasoning = Literal["inside", "outside", "unnamed"]
"""Where reasoning is when no total tells: in the output total, beside it, or beside it and only in `total_tokens`."""


def read_openai(report: Report) -> Usage:
    """OpenAI, and everybody whose documentation does not say otherwise."""
    return _read(report, "inside")


def read_xai(report: Report) -> Usage:
    """xAI: chat completions keep reasoning beside `completion_tokens`; responses include it in `output_tokens`."""
    return _read(report, "outside" if "completion_tokens" in report.raw else "inside")


def read_compatible_gemini(report: Report) -> Usage:
    """Google's OpenAI-compatible endpoint: thoughts are what `total_tokens` has beyond prompt and completion."""
    return _read(report, "unnamed")


def read_deepseek(report: Report) -> Usage:
    """DeepSeek: the prompt is the sum of cache hits and misses."""
    usage = _read(report, "inside")
    hit, miss = report.count("prompt_cache_hit_tokens"), report.count("prompt_cache_miss_tokens")
    total = report.count("prompt_tokens")
    if hit is not None and miss is not None and total is not None and hit + miss != total:
        report.wrong(f"{hit} cache hits and {miss} misses are not the {total} prompt_tokens")
    return usage


def read_mistral(report: Report) -> Usage:
    """Mistral: as OpenAI. Audio is counted in seconds, which have no price here, so such a report is marked."""
    usage = _read(report, "inside")
    if report.raw.get("prompt_audio_seconds"):
        report.wrong("prompt_audio_seconds are billed by time, which has no price here")
    return usage


def _read(report: Report, where: Reasoning) -> Usage:
    inputs = report.fields("prompt_tokens_details", "input_tokens_details")
    outputs = report.fields("completion_tokens_details", "output_tokens_details")
    cached, written_5m, written_1h = _cached(report, inputs)
    audio, image = report.part("audio_tokens", inputs), report.part("image_tokens", inputs)
    reasoning, spoken = report.part("reasoning_tokens", outputs), report.part("audio_tokens", outputs)
    total_in, total_out = _totals(report, max(cached + written_5m + written_1h, audio + image), reasoning + spoken)
    total_out, reasoning = _reasoning(report, where, total_in, total_out, reasoning)
    return report.disjoint(
        total_in,
        total_out,
        cache_read=cached,
        cache_write_5m=written_5m,
        cache_write_1h=written_1h,
        audio_input=audio,
        image_input=image,
        reasoning=reasoning,
        audio_output=spoken,
    )


def _cached(report: Report, inputs: Fields) -> tuple[int, int, int]:
    """Cache reads, and writes for five minutes and for an hour.

    Proxies before Anthropic keep its names beside an inclusive `prompt_tokens`; DeepSeek has one of its own.
    """
    read = report.part("cached_tokens", inputs)
    written = report.part("cache_write_tokens", inputs)
    raw = report.raw
    if not read:
        read = report.first("prompt_cache_hit_tokens", "cache_read_input_tokens") or 0
    if not written and raw.get("cache_creation_input_tokens") is not None:
        written = report.part("cache_creation_input_tokens")
    hour = report.part("ephemeral_1h_input_tokens", report.fields("cache_creation")) if "cache_creation" in raw else 0
    hour = min(hour, written)
    return read, written - hour, hour


def _totals(report: Report, least_in: int, least_out: int) -> tuple[int, int]:
    """Input and output totals, whatever of prompt, completion and total was reported."""
    total_in = report.first("prompt_tokens", "input_tokens")
    total_out = report.first("completion_tokens", "output_tokens")
    if total_in is not None and total_out is not None:
        return total_in, total_out
    total = report.count("total_tokens")
    if total_in is None and total_out is None:
        report.wrong("neither input nor output is counted")
        return max(least_in, total or 0), least_out
    if total_in is None:
        report.wrong("the input is not counted")
        total_in = max(least_in, (total or 0) - (total_out or 0))
    if total_out is None:
        # Embeddings have no completion_tokens, which is not an error.
        if least_out > 0 or total is None or total < total_in:
            report.wrong("the output is not counted")
        total_out = max(least_out, (total or 0) - total_in)
    return total_in, total_out


def _reasoning(report: Report, where: Reasoning, total_in: int, total_out: int, reasoning: int) -> tuple[int, int]:
    """The output total with reasoning in it, and the reasoning. `total_tokens` decides where it is, if it is there."""
    total = report.count("total_tokens")
    if total is None:
        beyond = reasoning if where == "outside" else 0
    else:
        beyond = total - total_in - total_out
        if where == "unnamed" and beyond > 0 and not reasoning:
            reasoning = beyond
    if beyond == reasoning:
        return total_out + reasoning, reasoning
    if beyond:
        report.wrong(f"total_tokens is {total}, and its parts are {total_in} and {total_out}")
    if reasoning > total_out:
        report.wrong(f"{reasoning} reasoning tokens are more than the output of {total_out}")
        return total_out + reasoning, reasoning
    return total_out, reasoning
