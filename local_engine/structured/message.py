"""What the text of an answer says: a thought, then content and tool calls. The same for any cut of the text into pieces.

No markup is shown: what could still become a tag is held back until it cannot.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from local_engine.tools.call_text import CallText

_MARKERS: dict[str, str | None] = {
    "<tool_call>": "</tool_call>",  # Hermes, Qwen
    "[TOOL_CALLS]": None,  # Mistral
    "<|python_tag|>": None,  # Llama 3
}
_STRAY = "</tool_call>"


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of the call number `index`; `id` and `name` come with its first piece only."""

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(slots=True)
class Delta:
    """What a piece of text added."""

    reasoning: str = ""
    content: str = ""
    calls: list[CallDelta] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


class ThoughtReader:
    """Divides text into a thought and what follows; whitespace around the tags belongs to neither."""

    def __init__(self, tags: tuple[str, str], *, opened: bool) -> None:
        self._open, self._close = tags
        self._state: Literal["start", "thought", "gap", "answer"] = "thought" if opened else "start"
        self._held = ""
        self._shown = False

    def push(self, text: str) -> tuple[str, str]:
        """Thought and answer that this piece adds."""
        self._held += text
        thought = ""
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(self._open):
                self._state, self._held = "thought", begun[len(self._open) :]
            elif not self._open.startswith(begun):
                self._state = "answer"
        if self._state == "thought":
            thought = self._read_thought()
        if self._state == "gap":
            self._held = self._held.lstrip()
            self._state = "answer" if self._held else "gap"
        if self._state != "answer":
            return thought, ""
        answer, self._held = self._held, ""
        return thought, answer

    def flush(self) -> tuple[str, str]:
        """What is held when the answer ends."""
        held, self._held = self._held, ""
        if self._state == "thought":
            return held.rstrip(), ""
        return "", held if self._state == "start" else ""

    def _read_thought(self) -> str:
        if not self._shown:
            self._held = self._held.lstrip()
        at = self._held.find(self._close)
        if at >= 0:
            thought, self._held = self._held[:at].rstrip(), self._held[at + len(self._close) :]
            self._state = "gap"
            return thought
        safe = len(self._held) - _tail_that_begins(self._held, (self._close,))
        thought = self._held[:safe].rstrip()
        self._held = self._held[len(thought) :]
        self._shown = self._shown or bool(thought)
        return thought


class ToolReader:
    """Divides text into content and tool calls; `names` are the tools a bare JSON object may name to be a call.

    `forced`: the text is JSON of one call or a list of them and nothing else.
    """

    def __init__(self, names: Collection[str], *, forced: bool, short_ids: bool = False) -> None:
        self._names = names
        self._short_ids = short_ids
        self._state: Literal["text", "gap", "call"] = "gap" if forced else "text"
        self._held = ""
        self._closer: str | None = None
        self._bare = False  # the group of calls was not announced by a marker
        self._begun = False  # content that counts has been shown
        self._call = CallText()
        self._announced = False
        self.calls = 0

    def push(self, text: str) -> Delta:
        """Content and pieces of calls that this text adds."""
        self._held += text
        delta = Delta()
        while self._step(delta):
            pass
        return delta

    def flush(self) -> Delta:
        """What is held when the answer ends: a call without a name is shown as the text it is."""
        delta = Delta()
        if self._state == "call":
            if self._announced:
                self._call.finish()
                self._pass_on(delta)
            else:
                delta.content = self._call.raw
        elif self._state == "text" and (self._held.strip() or not self.calls):
            delta.content = self._held
        self._held = ""
        return delta

    def _step(self, delta: Delta) -> bool:
        """Take something from what is held; False when more text is needed."""
        if not self._held:
            return False
        if self._state == "call":
            return self._read_call(delta)
        return self._read_gap() if self._state == "gap" else self._read_text(delta)

    def _read_text(self, delta: Delta) -> bool:
        if not self._begun and not self.calls and self._held.lstrip().startswith("{"):
            self._bare, self._closer, self._state = True, None, "gap"
            return True
        places = {self._held.find(mark): mark for mark in (*_MARKERS, _STRAY) if mark in self._held}
        if places:
            at = min(places)
            self._show(delta, self._held[:at].rstrip())
            self._held = self._held[at + len(places[at]) :]
            if places[at] != _STRAY:
                self._bare, self._closer, self._state = False, _MARKERS[places[at]], "gap"
            return True
        safe = len(self._held) - _tail_that_begins(self._held, (*_MARKERS, _STRAY))
        content = self._held[:safe].rstrip()
        self._held = self._held[len(content) :]
        self._show(delta, content)
        return False

    def _show(self, delta: Delta, content: str) -> None:
        if self.calls and not self._begun:
            content = content.lstrip()
        delta.content += content
        self._begun = self._begun or bool(content.strip())

    def _read_gap(self) -> bool:
        """Between calls: brackets and separators belong to nothing."""
        held = self._held = self._held.lstrip(" \t\r\n,;")
        closers = () if self._closer is None else (self._closer,)
        if not held or any(word.startswith(held) and word != held for word in (*_MARKERS, *closers)):
            return False  # it may become a tag
        if held.startswith("{"):
            self._call, self._announced = CallText(), False
            self._state = "call"
        elif held.startswith("[") and not held.startswith(tuple(_MARKERS)):
            self._held = held[1:]
        else:
            self._state = "text"
            for word in (*closers, "]"):
                if held.startswith(word):
                    self._held = held[len(word) :]
                    break
        return True

    def _read_call(self, delta: Delta) -> bool:
        call = self._call
        for at, character in enumerate(self._held, 1):
            call.push(character)
            if call.name is not None and not self._announced and not call.broken:
                if self._bare and call.name not in self._names:
                    call.broken = True
                else:
                    self._announce(delta, call.name)
            if call.broken or call.ended:
                self._held = self._held[at:]
                break
        else:
            self._held = ""
        self._pass_on(delta)
        if call.broken and not self._announced:
            self._state = "text"
            self._show(delta, call.raw)
        elif call.broken or call.ended:
            self._state = "gap"
        return True

    def _announce(self, delta: Delta, name: str) -> None:
        self._announced = True
        token = uuid.uuid4().hex
        delta.calls.append(CallDelta(self.calls, token[:9] if self._short_ids else f"call_{token[:24]}", name, ""))
        self.calls += 1

    def _pass_on(self, delta: Delta) -> None:
        fresh = self._call.take_arguments() if self._announced else ""
        if fresh:
            delta.calls.append(CallDelta(self.calls - 1, None, None, fresh))


class MessageReader:
    """Thought, content and calls of one answer."""

    def __init__(self, thoughts: ThoughtReader | None = None, tools: ToolReader | None = None) -> None:
        self._thoughts = thoughts
        self._tools = tools

    def push(self, text: str, *, last: bool = False) -> Delta:
        """What this piece of text adds; with `last`, what was held as well."""
        reasoning, content = self._thoughts.push(text) if self._thoughts else ("", text)
        if last and self._thoughts:
            more, rest = self._thoughts.flush()
            reasoning, content = reasoning + more, content + rest
        delta = Delta(content=content)
        if self._tools:
            delta = self._tools.push(content)
            if last:
                rest_of = self._tools.flush()
                delta = Delta(content=delta.content + rest_of.content, calls=delta.calls + rest_of.calls)
        delta.reasoning = reasoning
        return delta


def _tail_that_begins(text: str, words: Collection[str]) -> int:
    """Length of the longest end of `text` that begins one of `words` without being all of it."""
    for length in range(min(len(text), max(map(len, words)) - 1), 0, -1):
        if any(word.startswith(text[-length:]) for word in words):
            return length
    return 0
