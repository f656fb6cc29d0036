"""A chat completion request: messages, tools, form, thinking.

Unknown fields are ignored. Known fields that would change the answer but are not supported are refused, because
ignoring them would hand the caller something else than was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local_engine.errors import InvalidRequest, UnsupportedParameter
from local_engine.request import SamplingDefaults
from local_engine.structured.grammar import AnswerForm
from local_engine.tools.definitions import ToolUse, parse_tools
from local_engine.wire.call import Call, parse_call
from local_engine.wire.fields import flag, integer
from local_engine.wire.form import parse_form
from local_engine.wire.messages import parse_messages

MAX_TOP_LOGPROBS = 20
EFFORTS: dict[str, int | None] = {
    "none": 0, "minimal": 256, "low": 1024, "medium": 4096, "high": 16384, "xhigh": None, "max": None
}  # fmt: skip
"""Tokens a thought may take; None: as many as it likes."""
_BUDGETS = ("thinking_budget", "max_thinking_tokens", "thinking_token_budget")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One parsed chat request. `budget` bounds a thought in tokens, None does not; `options` go to the chat template."""

    call: Call
    messages: list[dict[str, Any]]
    tools: ToolUse | None
    form: AnswerForm | None
    budget: int | None
    options: Mapping[str, Any]


def parse_chat(body: Mapping[str, Any], defaults: SamplingDefaults) -> ChatCall:
    """Check a chat completion request."""
    messages = parse_messages(body)
    _text_only(body)
    limit = integer(body, "max_completion_tokens", 1)
    if limit is None:
        limit = integer(body, "max_tokens", 1)
    tools, form = parse_tools(body), parse_form(body)
    if tools is not None and tools.forced and form is not None:
        raise InvalidRequest(f"tool_choice forces a call, so {form.param} cannot hold as well", param=form.param)
    budget, options = _thinking(body)
    call = parse_call(body, defaults, max_tokens=limit, logprobs=_logprobs(body))
    return ChatCall(call, messages, tools, form, budget, options)


def _text_only(body: Mapping[str, Any]) -> None:
    wanted = body.get("modalities")
    if wanted is None:
        return
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, str) for each in wanted):
        raise InvalidRequest(f"modalities is {wanted!r}, expected ['text']", param="modalities")
    if set(wanted) != {"text"}:
        raise UnsupportedParameter(
            f"modalities is {wanted!r}: this engine answers in text only, leave the field out or send ['text']",
            param="modalities",
        )


def _logprobs(body: Mapping[str, Any]) -> int | None:
    top = integer(body, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    if flag(body, "logprobs"):
        return top or 0
    if top is not None:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    return None


def _thinking(body: Mapping[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """The thought's budget and what the template is told of it. A number of tokens goes before an effort."""
    options = body.get("chat_template_kwargs") or {}
    if not isinstance(options, dict):
        raise InvalidRequest("chat_template_kwargs must be an object", param="chat_template_kwargs")
    options = dict(options)
    budget: int | None = None
    effort = body.get("reasoning_effort")
    if effort is not None:
        if not isinstance(effort, str) or effort not in EFFORTS:
            raise InvalidRequest(
                f"reasoning_effort is {effort!r}, expected one of {', '.join(EFFORTS)}", param="reasoning_effort"
            )
        budget = EFFORTS[effort]
        options.setdefault("reasoning_effort", effort)
    for name in _BUDGETS:
        tokens = integer(body, name, 0)
        budget = budget if tokens is None else tokens
    if budget == 0 or options.get("enable_thinking") is False:
        budget = 0
        options.setdefault("enable_thinking", False)
    return budget, options
