"""Which deployments have the beginning of a prompt in their cache: those that answered it lately, in this conversation or in
another. A hint for the price and nothing more, so it is bounded, in memory, and may be wrong.

A prompt is known by a chain of marks, one after each message, that begins with its tools: two prompts share the marks of the
messages that they share from the first one on. Marks are hashes of this process; nothing of the text is kept. Tenants share
none, and neither do requests of different `cache_salt`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

KEPT_SECONDS = 300.0
"""How long providers keep a prompt at least, counted from its last use."""
LEAST_TOKENS = 1024
"""Shorter prompts are not cached by the large providers."""
MOST_MARKS = 50_000
AT_EACH_END = 8
"""Of a longer chain so many of the first marks are remembered, which prompts share, and of the last, where a conversation goes
on."""
WHOLE_TEXT = 8_192
"""Of longer texts the length, the beginning and the end are marked."""
CHARACTERS_PER_TOKEN = 4
DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request's chain: a mark after each message, and about how many tokens there are up to it."""

    marks: tuple[int, ...]
    tokens: tuple[int, ...]
    answered: int = -1
    """The place of the mark that was this conversation's own last prompt, as an answer follows it; -1 without one."""


NO_CONVERSATION = Conversation((), ())


class Affinity:
    """Who answered which beginnings last, in this process; the least recently used are forgotten first.

    `names` are the deployments' names by their index: those of one name are equals among which load is spread.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, most: int = MOST_MARKS, names: Sequence[str] = ()
    ) -> None:
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[tuple[str, int], tuple[tuple[int, float], ...]] = OrderedDict()
        self._equals = [[index for index, name in enumerate(names) if name == own] for own in names]

    def cached(self, tenant: str, conversation: Conversation, elsewhere: bool = False) -> Mapping[int, int]:
        """Input tokens that deployments (by their index) probably have in their caches.

        What other conversations begin with draws all of them to the deployment that had it first. With `elsewhere`, which is
        for some of the requests, its equals count like it, so that a beginning that many ask for comes to be cached by all.
        """
        found: dict[int, int] = {}
        get, oldest, own = self._kept.get, self._clock() - KEPT_SECONDS, False
        for position in range(len(conversation.marks) - 1, -1, -1):
            tokens = conversation.tokens[position]
            if tokens < LEAST_TOKENS:
                break
            for index, moment in get((tenant, conversation.marks[position]), ()):
                if index not in found and moment >= oldest:
                    found[index] = tokens
                    own = own or position == conversation.answered
        if elsewhere and not own:
            for index, tokens in list(found.items()):
                for equal in self._equals[index] if self._equals else ():
                    found[equal] = max(found.get(equal, 0), tokens)
        return found

    def answered(self, tenant: str, conversation: Conversation, index: int) -> None:
        """This deployment has just answered: it has all that the prompt begins with."""
        latest = (index, self._clock())
        alone = (latest,)
        for position in _remembered(conversation):
            key = tenant, conversation.marks[position]
            known = self._kept.get(key)
            if known is None or (len(known) == 1 and known[0][0] == index):
                self._kept[key] = alone
            else:
                self._kept[key] = (*(each for each in known if each[0] != index), latest)
            if known is not None:
                self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def _remembered(conversation: Conversation) -> Iterable[int]:
    """Places of the marks that are kept, the shortest beginning last: it is worth most, and is forgotten last."""
    count = len(conversation.marks)
    least = bisect_left(conversation.tokens, LEAST_TOKENS)
    if count - least <= 2 * AT_EACH_END:
        return range(count - 1, least - 1, -1)
    return chain(range(count - 1, count - 1 - AT_EACH_END, -1), range(least + AT_EACH_END - 1, least - 1, -1))


def conversation_of(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """The chain of one request. Linear in the number of messages and their parts, not in the length of texts; tools are hashed
    whole, as JSON.
    """
    mark = hash((_mark(body.get("cache_salt"), 0), _tools(body.get("tools"))))
    characters, answered = 0, -1
    marks: list[int] = []
    tokens: list[int] = []
    for message in messages:
        content, role = message.get("content"), message.get("role")
        if role == "assistant":
            answered = len(marks) - 1
        mark = hash((mark, role, _mark(content, 0), _mark(message.get("tool_calls"), 0)))
        characters += _length(content)
        marks.append(mark)
        tokens.append(characters // CHARACTERS_PER_TOKEN)
    return Conversation(tuple(marks), tuple(tokens), answered)


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
