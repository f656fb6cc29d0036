"""Read one tool call, a JSON object, character by character: its name, then its arguments as they come.

Arguments are passed on as the model wrote them. Nothing is known before the name is; what was read until then is kept, so that
a text that turns out to be no call can still be shown as text.
"""

from __future__ import annotations

import json

_NAMES = ("name",)
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_FIRST_KEYS = (*_NAMES, *_ARGUMENTS, "type", "id")


class CallText:
    """Fed from the opening brace on. `take_arguments` gives what came; `ended` or `broken` tells that the object is over."""

    def __init__(self) -> None:
        self._raw: list[str] = []
        self.name: str | None = None
        self._fresh: list[str] = []  # arguments not taken yet
        self._any = False
        self.ended = False
        self.broken = False
        self._depth = 0
        self._string = False
        self._escape = False
        self._key: str | None = None
        self._value: list[str] | None = None  # the value being read at depth 1, None outside of one
        self._keys = 0

    @property
    def raw(self) -> str:
        """All that was read."""
        return "".join(self._raw)

    def take_arguments(self) -> str:
        """The arguments read since this was last asked."""
        taken = "".join(self._fresh)
        self._fresh.clear()
        return taken

    def push(self, character: str) -> None:
        """One more character; not after `ended` or `broken`."""
        self._raw.append(character)
        if self._string:
            self._in_string(character)
        elif character == '"':
            self._string = True
            self._grow(character)
        elif character in "{[":
            self._depth += 1
            if self._depth > 1:
                self._grow(character)
        elif character in "}]":
            self._close(character)
        elif self._depth == 1 and character in ":,":
            self._separate(character)
        else:
            self._grow(character)

    def finish(self) -> None:
        """The answer is over, wherever the object stands: a string of arguments that is whole is taken."""
        if not self.ended and self._key in _ARGUMENTS and self._value and self._value[0] == '"':
            self._add(_as_text("".join(self._value)))

    def _add(self, arguments: str) -> None:
        self._fresh.append(arguments)
        self._any = self._any or bool(arguments)

    def _in_string(self, character: str) -> None:
        self._grow(character)
        if self._escape:
            self._escape = False
        elif character == "\\":
            self._escape = True
        elif character == '"':
            self._string = False

    def _grow(self, character: str) -> None:
        """A character of a key or value. Arguments that are no string are passed on at once."""
        if self._depth == 1 and not self._string and character.isspace():
            return
        if self._value is None:
            self._value = []
        self._value.append(character)
        if self._key in _ARGUMENTS and self._value[0] != '"':
            self._add(character)

    def _separate(self, character: str) -> None:
        if character == ":" and self._key is None:
            self._key = _as_text("".join(self._value or ())).strip()
            self._keys += 1
            self.broken = self._keys == 1 and self._key not in _FIRST_KEYS
            self._value = None
        elif character == ",":
            self._end_value()
        else:
            self._grow(character)

    def _close(self, character: str) -> None:
        self._depth -= 1
        if self._depth > 0:
            self._grow(character)
            return
        self._end_value()
        if self.name is None or character == "]":
            self.broken = True
        else:
            self.ended = True
            if not self._any:
                self._add("{}")

    def _end_value(self) -> None:
        value = None if self._value is None else "".join(self._value)
        if self._key in _NAMES and value is not None:
            self.name = _as_text(value) if value[0] == '"' else None
            self.broken = self.name is None
        elif self._key in _ARGUMENTS and value is not None and value[0] == '"':
            self._add(_as_text(value))
        self._key = self._value = None


def _as_text(value: str) -> str:
    """A JSON string's text; a broken one as it stands."""
    try:
        return str(json.loads(value))
    except ValueError:
        return value.strip('" \n\t')
