"""Reports of every convention made from random buckets, as the provider would count them; and reports that are rubbish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from gateway.conventions import Convention
from gateway.types import Usage

COUNTS = st.integers(0, 1_000_000)


def buckets(*names: str) -> st.SearchStrategy[Usage]:
    """Random disjoint buckets of these names, the others empty."""
    return st.builds(Usage, **dict.fromkeys(names, COUNTS))


def _openai(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output_total,
        "total_tokens": usage.input_total + usage.output_total,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write_5m,
            "audio_tokens": usage.audio_input, "image_tokens": usage.image_input,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_output},
    }  # fmt: skip


def _responses(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_total,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write_5m},
        "output_tokens": usage.output_total,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input_total + usage.output_total,
    }


def _xai(usage: Usage) -> dict[str, Any]:
    return _openai(usage) | {"completion_tokens": usage.output_total - usage.reasoning}


def _compatible_gemini(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output,
        "total_tokens": usage.input_total + usage.output_total,
    }


def _deepseek(usage: Usage) -> dict[str, Any]:
    return _openai(usage) | {"prompt_cache_hit_tokens": usage.cache_read, "prompt_cache_miss_tokens": usage.input}


def _anthropic(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m, "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output_total,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }  # fmt: skip


def _gemini(usage: Usage) -> dict[str, Any]:
    tool = usage.input // 3
    return {
        "promptTokenCount": usage.input_total - tool,
        "toolUsePromptTokenCount": tool,
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": usage.output + usage.audio_output,
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.input_total + usage.output_total,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": usage.input - tool},
            {"modality": "AUDIO", "tokenCount": usage.audio_input + usage.cache_read},
            {"modality": "VIDEO", "tokenCount": usage.image_input},
        ],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": usage.cache_read}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": usage.audio_output}],
    }


def _bedrock(usage: Usage) -> dict[str, Any]:
    return {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.input_total + usage.output,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write_5m + usage.cache_write_1h,
        "cacheDetails": [
            {"ttl": "1h", "inputTokens": usage.cache_write_1h},
            {"ttl": "5m", "inputTokens": usage.cache_write_5m},
        ],
    }


Report = Callable[[Usage], dict[str, Any]]
INPUT = ("input", "cache_read")
OUTPUT = ("output", "reasoning")
_CONSISTENT: list[tuple[Convention, Report, tuple[str, ...]]] = [
    ("openai", _openai, (*INPUT, "cache_write_5m", "audio_input", "image_input", *OUTPUT, "audio_output")),
    ("openai", _responses, (*INPUT, "cache_write_5m", *OUTPUT)),
    ("mistral", _openai, (*INPUT, *OUTPUT)),
    ("xai", _xai, (*INPUT, "image_input", *OUTPUT)),
    ("xai", _responses, (*INPUT, *OUTPUT)),
    ("deepseek", _deepseek, (*INPUT, *OUTPUT)),
    ("anthropic", _anthropic, (*INPUT, "cache_write_5m", "cache_write_1h", *OUTPUT)),
    ("gemini", _gemini, (*INPUT, "audio_input", "image_input", *OUTPUT, "audio_output")),
    ("gemini", _compatible_gemini, ("input", *OUTPUT)),
    ("bedrock", _bedrock, (*INPUT, "cache_write_5m", "cache_write_1h", "output")),
]

FORMS = tuple(f"{convention} {report.__name__.strip('_')}" for convention, report, _ in _CONSISTENT)
"""Every way in which some provider reports usage."""


def consistent(form: str) -> st.SearchStrategy[tuple[Convention, Usage, dict[str, Any]]]:
    """A convention, what was used, and how its provider reports that."""
    convention, report, names = _CONSISTENT[FORMS.index(form)]
    return buckets(*names).map(lambda usage: (convention, usage, report(usage)))


rubbish: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_odd = COUNTS | st.integers(-1000, -1) | st.integers(50_000_001, 10**19) | rubbish


@st.composite
def corrupted(draw: st.DrawFn, form: str) -> tuple[Convention, dict[str, Any]]:
    """A convention, and a report in its words with some of the values replaced or missing, at any depth."""
    convention, _, report = draw(consistent(form))
    report["gpu_seconds"] = 1.5
    for _ in range(draw(st.integers(1, 4))):
        at, place = draw(st.sampled_from(list(_leaves(report))))
        if draw(st.integers(0, 3)):
            at[place] = draw(_odd)
        else:
            del at[place]
            if not report:
                break
    return convention, report


def _leaves(at: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a report that has a value, inner ones too."""
    for place in list(at) if isinstance(at, dict) else range(len(at)):
        yield at, place
        if isinstance(at[place], dict | list):
            yield from _leaves(at[place])
