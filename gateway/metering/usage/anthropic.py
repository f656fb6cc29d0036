"""Anthropic's messages (pure): `input_tokens` excludes cache reads and writes, `output_tokens` includes thinking.

The input total is the sum of the three. Cache writes are told by lifetime in `cache_creation`; those without one live five
minutes, as is the default. Compactions of the context stand in `iterations` only and are billed beside the totals.
"""

from __future__ import annotations

from gateway.metering.usage.openai import read_openai
from gateway.metering.usage.report import Fields, Report
from gateway.types import Usage


def read_anthropic(report: Report) -> Usage:
    """A message's usage, or the end of a stream, whose counts are cumulative. Its OpenAI-compatible endpoint: as OpenAI."""
    raw = report.raw
    if "input_tokens" not in raw and "output_tokens" not in raw:
        return read_openai(report)
    uncached, wrote = report.count("input_tokens"), report.count("output_tokens")
    if uncached is None or wrote is None:
        report.wrong("the input or the output is not counted")
    uncached, wrote = uncached or 0, wrote or 0
    read = report.part("cache_read_input_tokens")
    minutes, hour = _written(report, raw, report.fields("cache_creation"))
    thought = report.part("thinking_tokens", report.fields("output_tokens_details"))
    for step in report.entries("iterations"):
        if step.get("type") == "compaction":
            creation = step.get("cache_creation")
            more_minutes, more_hour = _written(report, step, creation if isinstance(creation, dict) else {})
            uncached += report.part("input_tokens", step)
            wrote += report.part("output_tokens", step)
            read += report.part("cache_read_input_tokens", step)
            minutes, hour = minutes + more_minutes, hour + more_hour
    return report.disjoint(
        uncached + read + minutes + hour,
        wrote,
        cache_read=read,
        cache_write_5m=minutes,
        cache_write_1h=hour,
        reasoning=thought,
    )


def _written(report: Report, fields: Fields, creation: Fields) -> tuple[int, int]:
    """Cache writes for five minutes and for an hour."""
    total = report.count("cache_creation_input_tokens", fields)
    if not creation:
        return total or 0, 0
    minutes = report.part("ephemeral_5m_input_tokens", creation)
    hour = report.part("ephemeral_1h_input_tokens", creation)
    if total is not None and total != minutes + hour:
        report.wrong(f"cache writes of {minutes} and {hour} tokens are not the {total} that were created")
        minutes += max(0, total - minutes - hour)
    return minutes, hour
