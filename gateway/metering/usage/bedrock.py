"""Amazon Bedrock's Converse and ConverseStream (pure): `inputTokens` excludes cache reads and writes.

`cacheDetails` tells writes by lifetime. `totalTokens` includes the cached tokens at some models and not at others; both are
taken for right. Reasoning is inside of `outputTokens` and not told apart.
"""

from __future__ import annotations

from gateway.metering.usage.openai import read_openai
from gateway.metering.usage.report import Report
from gateway.types import Usage


def read_bedrock(report: Report) -> Usage:
    """The `usage` of a reply or of a stream's metadata event. Bedrock's OpenAI-compatible endpoint: as OpenAI."""
    raw = report.raw
    if "inputTokens" not in raw and "outputTokens" not in raw:
        return read_openai(report)
    uncached, wrote = report.count("inputTokens"), report.count("outputTokens")
    if uncached is None or wrote is None:
        report.wrong("the input or the output is not counted")
    uncached, wrote = uncached or 0, wrote or 0
    read, written = report.part("cacheReadInputTokens"), report.part("cacheWriteInputTokens")
    details = report.entries("cacheDetails")
    hour = sum(report.part("inputTokens", each) for each in details if each.get("ttl") == "1h")
    if details and sum(report.part("inputTokens", each) for each in details) != written:
        report.wrong(f"the cacheDetails do not sum to the {written} cacheWriteInputTokens")
    hour = min(hour, written)
    total = report.count("totalTokens")
    if total is not None and total not in (uncached + wrote, uncached + read + written + wrote):
        report.wrong(f"totalTokens is {total}, and its parts are {uncached}, {read}, {written} and {wrote}")
    return report.disjoint(
        uncached + read + written,
        wrote,
        cache_read=read,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
    )
