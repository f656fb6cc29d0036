"""Whether a JSON schema or a grammar can come to an end at all: one that always asks for more of itself cannot.

Both are checked by the least fixed point of "has a finite form": what is still being asked about counts as endless.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 100


class TooDeep(ValueError):
    """Nested deeper than anybody writes by hand."""


def schema_can_end(schema: Any) -> bool:
    """Whether some finite JSON value fits, as far as nesting goes. Raises TooDeep."""
    return _SchemaWalk(schema).can_end(schema, frozenset(), 0)


class _SchemaWalk:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._ends: set[str] = set()  # references known to have a finite form

    def can_end(self, schema: Any, asked: frozenset[str], depth: int) -> bool:
        if depth > _MAX_DEPTH:
            raise TooDeep(f"nested more than {_MAX_DEPTH} levels deep")
        if not isinstance(schema, Mapping):
            return schema is not False
        return all(
            (
                self._reference(schema.get("$ref"), asked, depth),
                all(self.can_end(each, asked, depth + 1) for each in _list(schema.get("allOf"))),
                self._some(schema.get("anyOf"), asked, depth),
                self._some(schema.get("oneOf"), asked, depth),
                self._value(schema, asked, depth),
            )
        )

    def _reference(self, reference: Any, asked: frozenset[str], depth: int) -> bool:
        if not isinstance(reference, str) or not reference.startswith("#") or reference in self._ends:
            return True  # one that leads nowhere is for the compiler to refuse
        if reference in asked:
            return False
        found = self.can_end(_follow(self._root, reference), asked | {reference}, depth + 1)
        if found:
            self._ends.add(reference)
        return found

    def _some(self, choices: Any, asked: frozenset[str], depth: int) -> bool:
        choices = _list(choices)
        return not choices or any(self.can_end(each, asked, depth + 1) for each in choices)

    def _value(self, schema: Mapping[str, Any], asked: frozenset[str], depth: int) -> bool:
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else _list(kinds)
        if "enum" in schema or "const" in schema or any(kind not in ("object", "array") for kind in kinds):
            return True
        object_ends, array_ends = self._object(schema, asked, depth), self._array(schema, asked, depth)
        if not kinds:
            return object_ends and array_ends
        return ("object" in kinds and object_ends) or ("array" in kinds and array_ends)

    def _object(self, schema: Mapping[str, Any], asked: frozenset[str], depth: int) -> bool:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        needed = [
            properties[name] for name in _list(schema.get("required")) if isinstance(name, str) and name in properties
        ]
        return all(self.can_end(each, asked, depth + 1) for each in needed)

    def _array(self, schema: Mapping[str, Any], asked: frozenset[str], depth: int) -> bool:
        least = schema.get("minItems", 0)
        if not isinstance(least, int) or least < 1:
            return True
        first = _list(schema.get("prefixItems"))[:least]
        needed = [*first, schema["items"]] if "items" in schema and least > len(first) else first
        return all(self.can_end(each, asked, depth + 1) for each in needed)


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
    r"""(?P<skip>\s+|//[^\n]*|\#[^\n]*)
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
    ends: set[str] = set()
    while True:
        found = {name for name, body in rules.items() if name not in ends and _Body(body, rules, ends).alternatives()}
        if not found:
            return "start" in ends
        ends |= found


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
    """Reads one rule's tokens: does any alternative consist of finite parts only?"""

    def __init__(self, tokens: list[str], rules: Mapping[str, list[str]], ends: set[str]) -> None:
        self._tokens = tokens
        self._rules = rules
        self._ends = ends
        self._at = 0

    def alternatives(self) -> bool:
        """Up to a closing bracket or the end."""
        some, this = False, True
        while self._at < len(self._tokens) and self._tokens[self._at] not in (")", "]"):
            sign = self._take()
            if sign == "|":
                some, this = some or this, True
            elif sign in ("(", "["):
                inside = self.alternatives()
                self._at += 1
                this &= self._optional() or sign == "[" or inside
            elif sign[0].isalpha() or sign[0] in "_?!":
                known = sign.lstrip("?!")
                this &= self._optional() or known not in self._rules or known in self._ends
            elif sign in ("?", "*", "+") or sign[0] in "~{":
                continue
            else:
                self._optional()
        return some or this

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _optional(self) -> bool:
        """Whether what was just read may be left out; takes the sign that says so."""
        if self._at == len(self._tokens):
            return False
        sign = self._tokens[self._at]
        return sign in ("?", "*") or re.fullmatch(r"(~\s*0\b.*|\{\s*(0\s*)?(,.*)?\})", sign) is not None
