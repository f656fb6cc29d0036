"""Whether a JSON schema or a grammar can come to an end at all: one that always asks for more of itself cannot.

Both become a net of parts that need all or one of their parts, each built once. What ends is spread from those that
need nothing, in time linear in the text. What is never reached is endless.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_DEPTH = 100
_MAX_LEVELS = 600  # through references, each followed once; a compiler that recurses must not exhaust its stack


class TooDeep(ValueError):
    """Nested deeper than anybody writes by hand."""


class _Net:
    """Parts by number, and how many of a part's own parts must still be found to end before it does."""

    def __init__(self) -> None:
        self._wants: list[int] = []
        self._users: list[list[int]] = []

    def part(self) -> int:
        """A new part; without `needs` it never ends."""
        self._wants.append(1)
        self._users.append([])
        return len(self._wants) - 1

    def needs(self, part: int, parts: Sequence[int], enough: int) -> int:
        """Say what a part needs: `enough` of `parts`."""
        self._wants[part] = enough
        for each in parts:
            self._users[each].append(part)
        return part

    def all_of(self, parts: Sequence[int]) -> int:
        """A new part that needs all of these."""
        return self.needs(self.part(), parts, len(parts))

    def one_of(self, parts: Sequence[int]) -> int:
        """A new part that needs one of these."""
        return self.needs(self.part(), parts, 1)

    def ends(self, part: int) -> bool:
        """Whether a part ends; ask once, when everything is said."""
        found = [each for each, wants in enumerate(self._wants) if wants == 0]
        for each in found:  # grows while it is read
            for user in self._users[each]:
                self._wants[user] -= 1
                if self._wants[user] == 0:
                    found.append(user)
        return self._wants[part] <= 0


def schema_can_end(schema: Any) -> bool:
    """Whether some finite JSON value fits, as far as nesting goes. Raises TooDeep."""
    references: set[str] = set()
    levels = _height(schema, references, 0)
    for reference in list(references):
        levels += _height(_follow(schema, reference), references, 0)
    if levels > _MAX_LEVELS:
        raise TooDeep(f"nested up to {levels} levels deep through its references, at most {_MAX_LEVELS} are taken")
    return _SchemaNet(schema).can_end()


def _height(value: Any, references: set[str], depth: int) -> int:
    """Levels of a JSON value; notes the local references in it."""
    if depth > 4 * _MAX_DEPTH:
        raise TooDeep(f"nested more than {4 * _MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            references.add(reference)
        if len(references) > _MAX_LEVELS:
            raise TooDeep(f"it has more than {_MAX_LEVELS} different references")
        value = list(value.values())
    if not isinstance(value, list):
        return 0
    return 1 + max((_height(each, references, depth + 1) for each in value), default=0)


class _SchemaNet:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._net = _Net()
        self._parts: dict[int, int] = {}  # id of a subschema -> its part
        self._waiting: list[tuple[Mapping[str, Any], int]] = []  # subschemas to read, and how deep they lie

    def can_end(self) -> bool:
        root = self._part(self._root, 0)
        while self._waiting:
            schema, depth = self._waiting.pop()
            needed = [
                *self._reference(schema.get("$ref")),
                *(self._part(each, depth + 1) for each in _list(schema.get("allOf"))),
                *self._some(schema.get("anyOf"), depth),
                *self._some(schema.get("oneOf"), depth),
                *self._value(schema, depth),
            ]
            self._net.needs(self._parts[id(schema)], needed, len(needed))
        return self._net.ends(root)

    def _part(self, schema: Any, depth: int) -> int:
        if depth > _MAX_DEPTH:
            raise TooDeep(f"nested more than {_MAX_DEPTH} levels deep")
        if not isinstance(schema, Mapping):
            return self._net.part() if schema is False else self._net.all_of([])
        part = self._parts.get(id(schema))
        if part is None:
            part = self._parts[id(schema)] = self._net.part()
            self._waiting.append((schema, depth))
        return part

    def _reference(self, reference: Any) -> list[int]:
        """One that leads nowhere is for the compiler to refuse."""
        local = isinstance(reference, str) and reference.startswith("#")
        return [self._part(_follow(self._root, reference), 0)] if local else []

    def _some(self, choices: Any, depth: int) -> list[int]:
        parts = [self._part(each, depth + 1) for each in _list(choices)]
        return [self._net.one_of(parts)] if parts else []

    def _value(self, schema: Mapping[str, Any], depth: int) -> list[int]:
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else _list(kinds)
        if "enum" in schema or "const" in schema or any(kind not in ("object", "array") for kind in kinds):
            return []
        needed = {"object": self._object(schema, depth), "array": self._array(schema, depth)}
        if not kinds:
            return [*needed["object"], *needed["array"]]
        return [self._net.one_of([self._net.all_of(needed[kind]) for kind in kinds])]

    def _object(self, schema: Mapping[str, Any], depth: int) -> list[int]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        names = [name for name in _list(schema.get("required")) if isinstance(name, str) and name in properties]
        return [self._part(properties[name], depth + 1) for name in names]

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[int]:
        least = schema.get("minItems", 0)
        if not isinstance(least, int) or least < 1:
            return []
        first = _list(schema.get("prefixItems"))[:least]
        needed = [*first, schema["items"]] if "items" in schema and least > len(first) else first
        return [self._part(each, depth + 1) for each in needed]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _follow(root: Any, reference: str) -> Any:
    """What a local reference (`#/a/b`) points to; True, which everything fits, where it leads nowhere."""
    at = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, Mapping) and name in at:
            at = at[name]
        elif isinstance(at, list) and name.isdigit() and int(name) < len(at):
            at = at[int(name)]
        else:
            return True
    return at


_LARK = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|\#[^\n]*|%llguidance\s*\{[^}]*\})
      | (?P<text>"(?:\\.|[^"\\])*"i?(?:\s*\.\.\s*"(?:\\.|[^"\\])*")?)
      | (?P<regex>/(?:\\.|[^/\\\n])+/[imslux]*)
      | (?P<special><[^>\s]+>)
      | (?P<directive>%[a-z]+)
      | (?P<name>[?!]?[A-Za-z_][A-Za-z0-9_]*(?:\.-?\d+)?)
      | (?P<repeat>~\s*\d+(?:\s*\.\.\s*\d+)?|\{\d*(?:\s*,\s*\d*)?\})
      | (?P<mark>[:|()\[\]?*+&~@,=])""",
    re.VERBOSE,
)


def grammar_can_end(lark: str) -> bool:
    """Whether the rule `start` has a finite form. What this small reading of Lark does not know counts as finite."""
    rules = _rules(lark)
    if rules is None or "start" not in rules:
        return True
    net = _Net()
    parts = {name: net.part() for name in rules}
    for name, body in rules.items():
        net.needs(parts[name], [_Body(body, parts, net).alternatives()], 1)
    return net.ends(parts["start"])


def _rules(lark: str) -> dict[str, list[str]] | None:
    """Rule name -> tokens of its body; None for a text with directives or anything else unknown."""
    tokens: list[str] = []
    at = 0
    while at < len(lark):
        match = _LARK.match(lark, at)
        if match is None or match.lastgroup == "directive":
            return None
        if match.lastgroup != "skip":
            tokens.append(match[0])
        at = match.end()
    starts = [place - 1 for place, each in enumerate(tokens) if each == ":" and place]
    return {
        tokens[start].lstrip("?!").split(".")[0]: tokens[start + 2 : end]
        for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)
    }


class _Body:
    """Reads one rule's tokens: which parts each of its alternatives needs."""

    def __init__(self, tokens: list[str], parts: Mapping[str, int], net: _Net) -> None:
        self._tokens = tokens
        self._parts = parts
        self._net = net
        self._at = 0

    def alternatives(self) -> int:
        """Up to a closing bracket or the end."""
        ways: list[list[int]] = [[]]
        while self._at < len(self._tokens) and self._tokens[self._at] not in (")", "]"):
            sign = self._take()
            if sign == "|":
                ways.append([])
            elif sign in ("(", "["):
                inside = self.alternatives()
                self._at += 1
                if sign == "(" and not self._optional():
                    ways[-1].append(inside)
            elif sign[0].isalpha() or sign[0] in "_?!":
                part = self._parts.get(sign.lstrip("?!"))
                if part is not None and not self._optional():
                    ways[-1].append(part)
        return self._net.one_of([self._net.all_of(way) for way in ways])

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _optional(self) -> bool:
        """Whether the sign behind what was just read says that it may be left out."""
        if self._at >= len(self._tokens):
            return False
        sign = self._tokens[self._at]
        return sign in ("?", "*") or re.fullmatch(r"(~\s*0\b.*|\{\s*(0\s*)?(,.*)?\})", sign) is not None
