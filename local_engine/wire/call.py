"""What chat and plain completions have in common: how tokens are chosen, when the answer ends, how it is delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local_engine.errors import InvalidRequest, UnsupportedParameter
from local_engine.request import SamplingDefaults, SamplingParams
from local_engine.wire.fields import flag, integer, model_name, number, valid_unicode

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1000
MAX_CHOICES = 128
MAX_SALT_CHARACTERS = 1000
MAX_PRIORITY = 100
MAX_DEADLINE_SECONDS = 86400.0
MAX_BIASES = 1024
_SMALLEST_TEMPERATURE = 1e-3  # below, dividing by it says nothing that greedy does not


@dataclass(frozen=True, slots=True)
class Call:
    """The common part. `max_tokens` None means: the engine's default, or less where the context leaves less."""

    model: str
    max_tokens: int | None
    choices: int
    stream: bool
    include_usage: bool
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: tuple[str, ...]
    frequency_penalty: float
    presence_penalty: float
    repetition_penalty: float
    logit_bias: tuple[tuple[int, float], ...]
    logprobs: int | None
    ignore_eos: bool
    cache_salt: str | None
    priority: int
    deadline_seconds: float | None

    def sampling(self, max_tokens: int, choice: int, *, markup: bool = False) -> SamplingParams:
        """Parameters of one choice; seeded choices differ from each other and repeat from call to call."""
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
            stop=self.stop,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            ignore_eos=self.ignore_eos,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
            logprobs=self.logprobs,
            markup=markup,
        )

    def check_tokens(self, vocab_size: int) -> None:
        """Refuse biases of tokens the model does not have."""
        for token, _ in self.logit_bias:
            if token >= vocab_size:
                raise InvalidRequest(
                    f"logit_bias names token {token}, expected 0 to {vocab_size - 1}", param="logit_bias"
                )


def parse_call(
    body: Mapping[str, Any], defaults: SamplingDefaults, *, max_tokens: int | None, logprobs: int | None
) -> Call:
    """The common fields of a body."""
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise InvalidRequest(f"stream_options must be an object, got {options!r}", param="stream_options")
    temperature = number(body, "temperature", defaults.temperature, 0.0, 2.0)
    choices = integer(body, "n", 1, MAX_CHOICES) or 1
    best_of = integer(body, "best_of", 1)
    if best_of not in (None, choices):
        raise UnsupportedParameter(
            f"best_of is {best_of!r} and n is {choices!r}: this engine returns every choice it computes, so leave best_of "
            "out or make both the same",
            param="best_of",
        )
    top_k = integer(body, "top_k", -1)
    return Call(
        model=model_name(body),
        max_tokens=max_tokens,
        choices=choices,
        stream=flag(body, "stream"),
        include_usage=flag(options, "include_usage"),
        temperature=0.0 if temperature < _SMALLEST_TEMPERATURE else temperature,
        top_p=number(body, "top_p", defaults.top_p, 0.0, 1.0),
        top_k=defaults.top_k if top_k is None else max(0, top_k),
        min_p=number(body, "min_p", 0.0, 0.0, 1.0),
        seed=integer(body, "seed", -(2**63), 2**63 - 1),
        stop=_stops(body),
        frequency_penalty=number(body, "frequency_penalty", 0.0, -2.0, 2.0),
        presence_penalty=number(body, "presence_penalty", 0.0, -2.0, 2.0),
        repetition_penalty=number(body, "repetition_penalty", 1.0, 0.1, 10.0),
        logit_bias=_biases(body),
        logprobs=logprobs,
        ignore_eos=flag(body, "ignore_eos"),
        cache_salt=_salt(body),
        priority=integer(body, "priority", -MAX_PRIORITY, MAX_PRIORITY) or 0,
        deadline_seconds=_seconds(body),
    )


def _salt(body: Mapping[str, Any]) -> str | None:
    salt = body.get("cache_salt")
    if salt is None:
        return None
    if not isinstance(salt, str) or not 0 < len(salt) <= MAX_SALT_CHARACTERS:
        raise InvalidRequest(
            f"cache_salt must be a string of 1 to {MAX_SALT_CHARACTERS} characters: leave it out to share with all",
            param="cache_salt",
        )
    return valid_unicode(salt, "cache_salt")


def _seconds(body: Mapping[str, Any]) -> float | None:
    if body.get("deadline_seconds") is None:
        return None
    return number(body, "deadline_seconds", 0.0, 0.0, MAX_DEADLINE_SECONDS)


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if isinstance(stops, list) and len(stops) > MAX_STOPS:
        raise InvalidRequest(f"stop may hold {MAX_STOPS} strings, got {len(stops)}", param="stop")
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest("stop must be a non-empty string or a list of them", param="stop")
    if any(len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise InvalidRequest(f"a stop string may have {MAX_STOP_CHARACTERS} characters", param="stop")
    return tuple(valid_unicode(stop, "stop") for stop in stops)


def _biases(body: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    value = body.get("logit_bias") or {}
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise InvalidRequest(f"logit_bias must map at most {MAX_BIASES} token ids to numbers", param="logit_bias")
    biases = []
    for token, bias in value.items():
        if not token.isascii() or not token.isdigit() or len(token) > 9:
            raise InvalidRequest(f"logit_bias names {token!r}, expected token ids", param="logit_bias")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise InvalidRequest(f"logit_bias[{token}] is {bias!r}, expected -100 to 100", param="logit_bias")
        biases.append((int(token), float(bias)))
    return tuple(biases)
