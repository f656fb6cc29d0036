"""Google's usageMetadata (pure): the prompt includes cached content, tool prompts and thoughts are counted beside.

Input total = promptTokenCount + toolUsePromptTokenCount; output total = candidatesTokenCount (the live API calls it
responseTokenCount) + thoughtsTokenCount. Images and video are one bucket, documents count as text. Images that the model
made are output like text: no price list here tells them apart.
"""

from __future__ import annotations

from gateway.metering.usage.openai import read_compatible_gemini
from gateway.metering.usage.report import Report
from gateway.types import Usage

SEEN = ("IMAGE", "VIDEO")
NATIVE = ("promptTokenCount", "totalTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "responseTokenCount")


def read_gemini(report: Report) -> Usage:
    """generateContent, its streams, Vertex AI and the live API; or the OpenAI-compatible endpoint, by its words."""
    raw = report.raw
    if not any(name in raw for name in NATIVE):
        return read_compatible_gemini(report)
    prompt, tool = report.count("promptTokenCount"), report.part("toolUsePromptTokenCount")
    cached, thought = report.part("cachedContentTokenCount"), report.part("thoughtsTokenCount")
    # Fields that are zero are left out, so an answer that is all thoughts has no candidatesTokenCount.
    said = report.first("candidatesTokenCount", "responseTokenCount") or 0
    total = report.count("totalTokenCount")
    if prompt is None:
        report.wrong("promptTokenCount is missing")
        prompt = max(cached, (total or 0) - tool - said - thought)
    if total is not None and total != prompt + tool + said + thought:
        report.wrong(f"totalTokenCount is {total}, and its parts are {prompt}, {tool}, {said} and {thought}")
    inputs = [_modalities(report, name) for name in ("promptTokensDetails", "toolUsePromptTokensDetails")]
    outputs = _modalities(report, "candidatesTokensDetails") or _modalities(report, "responseTokensDetails")
    cache = _modalities(report, "cacheTokensDetails")
    heard = sum(found.get("AUDIO", 0) for found in inputs) - cache.get("AUDIO", 0)
    seen = sum(found.get(kind, 0) for found in inputs for kind in SEEN) - sum(cache.get(kind, 0) for kind in SEEN)
    return report.disjoint(
        prompt + tool,
        said + thought,
        cache_read=cached,
        audio_input=max(0, heard),
        image_input=max(0, seen),
        reasoning=thought,
        audio_output=outputs.get("AUDIO", 0),
    )


def _modalities(report: Report, name: str) -> dict[str, int]:
    """Tokens by modality of one list of details."""
    found: dict[str, int] = {}
    for entry in report.entries(name) if name in report.raw else ():
        modality = entry.get("modality")
        if isinstance(modality, str):
            found[modality] = found.get(modality, 0) + report.part("tokenCount", entry)
    return found
