"""A plain completion request and the bodies of /tokenize, /detokenize and /v1/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from local_engine.errors import InvalidRequest, UnsupportedParameter
from local_engine.request import SamplingDefaults
from local_engine.structured.grammar import AnswerForm
from local_engine.wire.call import Call, parse_call
from local_engine.wire.fields import flag, integer, model_name, valid_unicode
from local_engine.wire.form import parse_form

COMPLETION_MAX_TOKENS = 16  # OpenAI's default for /v1/completions
MAX_LOGPROBS = 5
MAX_INPUTS = 256
Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """One parsed completion request. `echo`: the answer begins with the prompt."""

    call: Call
    prompt: Prompt
    form: AnswerForm | None
    echo: bool


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """One parsed embedding request; `dimensions` None keeps all."""

    model: str
    inputs: list[Prompt]
    dimensions: int | None
    encoding: Literal["float", "base64"]


def parse_completion(body: Mapping[str, Any], defaults: SamplingDefaults) -> CompletionCall:
    """Check a completion request; one prompt, as text or token ids."""
    prompt: Any = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not _is_prompt(prompt):
        raise InvalidRequest(
            "prompt must be one non-empty string or one list of token ids: send a request for each prompt",
            param="prompt",
        )
    if isinstance(prompt, str):
        valid_unicode(prompt, "prompt")
    if body.get("suffix"):
        raise UnsupportedParameter("suffix is not available from this engine: leave the field out", param="suffix")
    echo, logprobs = flag(body, "echo"), integer(body, "logprobs", 0, MAX_LOGPROBS)
    if echo and logprobs is not None:
        raise UnsupportedParameter("logprobs of an echoed prompt are not available: leave one out", param="echo")
    limit = integer(body, "max_tokens", 1)
    limit = COMPLETION_MAX_TOKENS if limit is None else limit
    call = parse_call(body, defaults, max_tokens=limit, logprobs=logprobs)
    return CompletionCall(call, prompt, parse_form(body), echo)


def parse_embedding(body: Mapping[str, Any]) -> EmbeddingCall:
    """Check an embedding request: one input or several, each text or token ids."""
    value = body.get("input")
    inputs = [value] if _is_prompt(value) else value
    if not isinstance(inputs, list) or not inputs or not all(_is_prompt(each) for each in inputs):
        raise InvalidRequest("input must be non-empty text, a list of token ids, or a list of these", param="input")
    if len(inputs) > MAX_INPUTS:
        raise InvalidRequest(f"input may hold {MAX_INPUTS} texts, got {len(inputs)}", param="input")
    encoding: Any = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise InvalidRequest(f"encoding_format is {encoding!r}, expected 'float' or 'base64'", param="encoding_format")
    checked = [valid_unicode(each, "input") if isinstance(each, str) else each for each in inputs]
    return EmbeddingCall(model_name(body), checked, integer(body, "dimensions", 1), encoding)


def parse_tokens(body: Mapping[str, Any]) -> list[int]:
    """The token ids of a /detokenize request."""
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise InvalidRequest("tokens must be a list of token ids", param="tokens")
    return tokens


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)
