"""Which deployment has a conversation in its prompt cache: the one that answered it last, for some minutes. A hint for the
price and nothing more, so it is bounded, in memory, and may be wrong.

A conversation is known by a chain of marks, one per message, that begins with its tools: two conversations share the marks of
the messages that they share. Marks are hashes of this process; nothing of the text is kept. Tenants share none.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.routing.ask import NOTHING_CACHED

KEPT_SECONDS = 300.0
"""How long providers keep a prompt at least, counted from its last use."""
LEAST_TOKENS = 1024
"""Shorter prompts are not cached by the large providers."""
MOST_CONVERSATIONS = 20_000
WHOLE_TEXT = 8_192
"""Of longer texts the length, the beginning and the end are marked."""
CHARACTERS_PER_TOKEN = 4
DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request's chain: a mark after each message, and about how many tokens there are up to it."""

    marks: tuple[int, ...]
    tokens: tuple[int, ...]


NO_CONVERSATION = Conversation((), ())


class Affinity:
    """Who answered which conversation last, in this process; the least recently used are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_CONVERSATIONS) -> None:
        self._clock = clock
        self._most = most
        self._last: OrderedDict[tuple[str, int], tuple[int, float]] = OrderedDict()

    def cached(self, tenant: str, conversation: Conversation) -> Mapping[int, int]:
        """Input tokens that a deployment (by its index) probably has in its cache."""
        # The last message is new; what was answered before is one of the marks before it.
        for position in range(len(conversation.marks) - 2, -1, -1):
            if conversation.tokens[position] < LEAST_TOKENS:
                break
            known = self._last.get((tenant, conversation.marks[position]))
            if known is not None and self._clock() - known[1] <= KEPT_SECONDS:
                return {known[0]: conversation.tokens[position]}
        return NOTHING_CACHED

    def answered(self, tenant: str, conversation: Conversation, index: int) -> None:
        """This deployment has just answered."""
        if not conversation.marks or conversation.tokens[-1] < LEAST_TOKENS:
            return
        mark = tenant, conversation.marks[-1]
        self._last[mark] = (index, self._clock())
        self._last.move_to_end(mark)
        if len(self._last) > self._most:
            self._last.popitem(last=False)


def conversation_of(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """The chain of one request. Linear in the number of messages and their parts, not in the length of texts; tools are hashed
    whole, as JSON.
    """
    mark = hash(_tools(body.get("tools")))
    characters = 0
    marks, tokens = [], []
    for message in messages:
        content = message.get("content")
        mark = hash((mark, message.get("role"), _mark(content, 0), _mark(message.get("tool_calls"), 0)))
        characters += _length(content)
        marks.append(mark)
        tokens.append(characters // CHARACTERS_PER_TOKEN)
    return Conversation(tuple(marks), tuple(tokens))


def _tools(tools: Any) -> bytes | None:
    try:
        return orjson.dumps(tools) if tools else None
    except orjson.JSONEncodeError:  # nested too deeply to be written, which no tool is
        return None


def _mark(value: Any, depth: int) -> object:
    """Something hashable that tells values apart."""
    if isinstance(value, str):
        return value if len(value) <= WHOLE_TEXT else (len(value), value[: WHOLE_TEXT // 2], value[-WHOLE_TEXT // 2 :])
    if depth >= DEEPEST:
        return None
    if isinstance(value, list):
        return tuple([_mark(each, depth + 1) for each in value])
    if isinstance(value, dict):
        return tuple([(name, _mark(each, depth + 1)) for name, each in value.items()])
    return value


def _length(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(len(part["text"]) for part in content if isinstance(part.get("text"), str))
    return 0
