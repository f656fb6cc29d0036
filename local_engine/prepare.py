"""From a checked call to what the engine needs: prompt, guides, and readers of the answers. May take a while; has a limit.

A grammar that takes too long to compile is refused, but its thread works on to its end: our reading of a form takes linear
time and llguidance bounds its work. The threads are daemons, so that none of them keeps the process from ending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from local_engine.daemon_threads import DaemonThreads
from local_engine.engine import Engine
from local_engine.errors import ContextTooLong, InvalidRequest
from local_engine.request import Request
from local_engine.structured.grammar import AnswerForm, GrammarCompiler
from local_engine.structured.guide import Guide
from local_engine.structured.message import MessageReader, ThoughtReader, ToolReader
from local_engine.structured.thought import ThoughtGuide, thought_tags
from local_engine.tools.definitions import ToolUse, call_form, demand, instruct
from local_engine.wire.call import Call
from local_engine.wire.chat import ChatCall
from local_engine.wire.completion import CompletionCall, Prompt

PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prompt as token ids, and what makes the guide and the reader of each choice. `echo` is the prompt's text, if wanted."""

    prompt: list[int]
    guide: Callable[[], Guide | None]
    reader: Callable[[], MessageReader]
    markup: bool
    echo: str = ""


class Preparer:
    """Prepares calls for one engine, on threads of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokenizer = engine.tokenizer
        self._compiler = GrammarCompiler(engine.tokenizer)
        self._tags = thought_tags(engine.tokenizer)
        self._threads = DaemonThreads(2, "prepare")

    async def prepare(self, call: ChatCall | CompletionCall) -> Prepared:
        """What the call needs. Raises InvalidRequest for what cannot be served."""
        call.call.check_tokens(self._engine.model_config.vocab_size)
        work = partial(self._chat, call) if isinstance(call, ChatCall) else partial(self._completion, call)
        running = self._threads.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(running), PATIENCE_SECONDS)
        except TimeoutError as error:
            raise InvalidRequest(
                f"preparing the request took more than {PATIENCE_SECONDS:.0f} s: use a simpler schema or grammar"
            ) from error

    def encode(self, prompt: Prompt, param: str) -> list[int]:
        """Token ids of a prompt. Raises InvalidRequest for ids the model does not have."""
        if isinstance(prompt, str):
            return self._tokenizer.encode(prompt)
        vocabulary = self._engine.model_config.vocab_size
        for token in prompt:
            if not 0 <= token < vocabulary:
                raise InvalidRequest(f"{param} holds token id {token!r}, expected 0 to {vocabulary - 1}", param=param)
        return prompt

    def _completion(self, call: CompletionCall) -> Prepared:
        prompt = self.encode(call.prompt, "prompt")
        echo = "" if not call.echo else call.prompt if isinstance(call.prompt, str) else self._tokenizer.decode(prompt)
        return Prepared(prompt, self._guides(call.form), MessageReader, markup=False, echo=echo)

    def _chat(self, chat: ChatCall) -> Prepared:
        use, messages = chat.tools, chat.messages
        if not self._tokenizer.knows_tools:
            messages = instruct(messages, use)
        if use is not None and use.forced:
            messages = demand(messages, use)
        text = self._tokenizer.render_chat(messages, use.tools if use is not None else None, chat.options)
        forced = use is not None and bool(use.forced)
        inner = self._guides(call_form(use) if use is not None and forced else chat.form)
        opened = self._tags is not None and text.rstrip().endswith(self._tags.open)

        def guide() -> Guide | None:
            if self._tags is None or (chat.budget == 0 and not opened):
                return inner()
            return ThoughtGuide(self._tokenizer, self._tags, opened=opened, budget=chat.budget, inner=inner())

        def reader() -> MessageReader:
            tags = self._tags
            thoughts = None if tags is None else ThoughtReader((tags.open, tags.close), opened=opened)
            return MessageReader(thoughts, None if use is None else self._tool_reader(use))

        markup = self._tags is not None or use is not None
        return Prepared(self._tokenizer.encode_part(text), guide, reader, markup)

    def _guides(self, form: AnswerForm | None) -> Callable[[], Guide | None]:
        """Makes guides of this form; compiles it now, so that a wrong one is refused now."""
        if form is None:
            return lambda: None
        return self._compiler.maker(form)

    def _tool_reader(self, use: ToolUse) -> ToolReader:
        short = "[TOOL_CALLS]" in (
            self._tokenizer.template_source or ""
        )  # Mistral's template asks for ids of nine letters
        return ToolReader(use.names, forced=bool(use.forced), short_ids=short)


def make_requests(engine: Engine, call: Call, prepared: Prepared, param: str) -> list[Request]:
    """One request per choice, or ContextTooLong with the numbers; `param` is the field the prompt came from."""
    limit, prompt = engine.max_context, prepared.prompt
    room = limit - len(prompt)
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    most = engine.config.max_batch + engine.config.max_queue
    if call.choices > most:
        raise InvalidRequest(f"n is {call.choices!r}, this server takes at most {most} requests at once", param="n")
    if room < (call.max_tokens or 1):
        asked = f" and max_tokens asks for {call.max_tokens}" if call.max_tokens else ""
        raise ContextTooLong(
            f"the prompt has {len(prompt)} tokens{asked}, the context holds {limit}: shorten the prompt or the answer",
            param=param,
        )
    max_tokens = min(room, engine.config.default_max_tokens) if call.max_tokens is None else call.max_tokens
    return [
        engine.new_request(
            prompt,
            call.sampling(max_tokens, choice, markup=prepared.markup),
            cache_salt=call.cache_salt,
            priority=call.priority,
            seconds=call.deadline_seconds,
            guide=prepared.guide(),
        )
        for choice in range(call.choices)
    ]
