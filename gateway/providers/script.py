"""A script: how a scripted upstream behaves, as data; unknown keys and wrong values are refused with the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from gateway.errors import ConfigError

Behaviour = Literal[
    "good", "slow", "flaky", "rate_limited", "cut", "wrong_json", "error_event", "unauthorized", "hang", "refuse", "huge",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts to report, as OpenAI counts: `input` includes `cached`, `output` includes `reasoning`. None: by the words."""

    input: int | None = None
    output: int | None = None
    reasoning: int | None = None
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """How one model behaves. All of it can be written in penstock.yaml under `script:`."""

    behaviour: Behaviour = "good"
    reply: str | None = None
    """The answer; the last user message when absent."""
    reasoning: str = ""
    """Sent as `reasoning_content` before the answer."""
    tool_call: Mapping[str, str] | None = None
    """`name` and `arguments` of a tool call that takes the answer's place."""
    tokens: Tokens = field(default_factory=Tokens)
    usage: Literal["report", "omit"] | Mapping[str, Any] = "report"
    """Report the tokens as OpenAI does, or nothing, or this object as it stands, as another provider would."""
    service_tier: str | None = None
    """What the reply says about the tier it was served in."""
    framing: Literal["length", "chunked"] = "length"
    """How a plain reply is delimited on the wire."""
    first_token_seconds: float = 0.0
    per_token_seconds: float = 0.0
    fail_first: int = 0
    """flaky: the first so many calls fail."""
    fail_every: int = 0
    """flaky: every so many-th call fails."""
    status: int | None = None
    """The status of a failure, instead of the behaviour's usual one."""
    retry_after: float = 1.0
    break_after: int = 1
    """cut, wrong_json, error_event, huge: so many good chunks are streamed first."""
    huge_bytes: int = 80 * 2**20

    @property
    def pauses(self) -> tuple[float, float]:
        """Seconds before the first chunk and before each further one; `slow` has some by itself."""
        given = (self.first_token_seconds, self.per_token_seconds)
        return (1.0, 0.05) if self.behaviour == "slow" and given == (0, 0) else given

    def fails(self, call_number: int) -> bool:
        """Whether a flaky upstream fails this call (counted from 1); every second one unless told otherwise."""
        if self.behaviour != "flaky":
            return False
        every = self.fail_every if self.fail_every or self.fail_first else 2
        return call_number <= self.fail_first or (every > 0 and call_number % every == 0)


def read_script(document: object, where: str) -> Script:
    """Check a `script:` mapping. Raises ConfigError naming the key, the value and the nearest right one."""
    values = dict(_mapping(document, Script, where))
    if "tokens" in values:
        values["tokens"] = _tokens(values["tokens"], f"{where}.tokens")
    _one_of(values, "behaviour", get_args(Behaviour), where)
    if not isinstance(values.get("usage"), dict):
        _one_of(values, "usage", ("report", "omit"), where)
    _one_of(values, "framing", ("length", "chunked"), where)
    for name in ("first_token_seconds", "per_token_seconds", "retry_after"):
        _number(values, name, (int, float), where)
    for name in ("fail_first", "fail_every", "break_after", "huge_bytes", "status"):
        _number(values, name, (int,), where)
    if not 300 <= values.get("status", 500) <= 599:
        raise ConfigError(f"{where}.status is {values['status']!r}: give the status of a failure, 300 to 599.")
    for name in ("reply", "reasoning", "service_tier"):
        if name in values and not isinstance(values[name], str):
            raise ConfigError(f"{where}.{name} is {values[name]!r}: give a text.")
    call = values.get("tool_call")
    if call is not None and not (
        isinstance(call, dict)
        and call.keys() == {"name", "arguments"}
        and all(isinstance(v, str) for v in call.values())
    ):
        raise ConfigError(f"{where}.tool_call is {call!r}: give `name` and `arguments`, both texts.")
    return Script(**values)


def _mapping(document: object, shape: type, where: str) -> Mapping[str, Any]:
    known = [entry.name for entry in fields(shape)]
    if not isinstance(document, Mapping):
        raise ConfigError(f"{where} is {document!r}: give a mapping with keys such as {known[0]!r}.")
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
            raise ConfigError(f"unknown key '{where}.{key}'; {hint}")
    return document


def _tokens(document: object, where: str) -> Tokens:
    values = dict(_mapping(document, Tokens, where))
    for name in values:
        _number(values, name, (int,), where)
    tokens = Tokens(**values)
    if tokens.cached and tokens.cached > (tokens.input or 0):
        raise ConfigError(f"{where}.cached is {tokens.cached}: it is a part of `input`, so give an `input` as large.")
    if tokens.output is not None and (tokens.reasoning or 0) > tokens.output:
        raise ConfigError(
            f"{where}.reasoning is {tokens.reasoning}: it is a part of `output`, which is {tokens.output}."
        )
    return tokens


def _number(values: Mapping[str, Any], name: str, types: tuple[type, ...], where: str) -> None:
    if name in values and (isinstance(values[name], bool) or not isinstance(values[name], types) or values[name] < 0):
        wanted = "a number" if float in types else "a whole number"
        raise ConfigError(f"{where}.{name} is {values[name]!r}: give {wanted}, 0 or more.")


def _one_of(values: Mapping[str, Any], name: str, known: tuple[str, ...], where: str) -> None:
    if name in values and values[name] not in known:
        near = difflib.get_close_matches(str(values[name]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(known)}."
        raise ConfigError(f"{where}.{name} is {values[name]!r}; {hint}")
