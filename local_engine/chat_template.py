"""Render a conversation with the model's own jinja template, sandboxed: a template comes from the internet.

What the template refuses (`raise_exception`) or cannot render becomes InvalidRequest for the caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from local_engine.errors import CorruptModelFile, InvalidRequest


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    """A compiled template with the names that published templates expect."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self.source = source
        try:
            self._template = environment.from_string(source)
            names = meta.find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError as error:
            raise CorruptModelFile(f"the model's chat template is malformed: {error}") from error
        self.tokens = {"bos_token": bos, "eos_token": eos}
        self.knows_tools = "tools" in names

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text of the conversation, up to where the assistant begins to answer.

        `tools` as OpenAI writes them, for templates that know tools; `options` are the template's own, like enable_thinking.
        """
        names: dict[str, Any] = {
            **(options or {}),
            **self.tokens,
            "messages": list(messages),
            "add_generation_prompt": True,
        }
        try:
            return self._template.render(tools=list(tools) if tools else None, **names)
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
