"""Compile what an answer must look like (JSON schema, regex, grammar, choices) with llguidance, within bounds of size and time.

A form that is wrong, too large or cannot end is refused as the caller's mistake. Compiled forms are kept and copied for each
answer. Whatever a form asks for, one step of it is bounded by llguidance's own limits: an answer that exceeds them ends with an
error, and the engine goes on.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from local_engine.errors import InvalidRequest
from local_engine.structured.matcher import GrammarGuide
from local_engine.structured.termination import grammar_can_end, schema_can_end
from local_engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

FormKind = Literal["json_schema", "regex", "grammar", "choice"]
MAX_FORM_BYTES = 128 * 1024
MAX_CHOICES = 10_000
MAX_GBNF_RULES = 500
_KEPT = 64
_JSON_STYLE: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LIMITS = LLParserLimits(initial_lexer_fuel=2_000_000, max_lexer_states=50_000, verbose_errors=False)


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What an answer must look like; `source` is a schema (JSON text), a regex, a grammar, or choices (JSON list).

    `param` is the request's field it came from, for refusals. `lenient`: keywords the compiler does not know are ignored.
    """

    kind: FormKind
    source: str
    param: str
    lenient: bool = False


class GrammarCompiler:
    """Compiles forms for one model's vocabulary; safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None
        self._compiled: OrderedDict[AnswerForm, LLMatcher] = OrderedDict()

    def guide(self, form: AnswerForm) -> GrammarGuide:
        """A guide for one answer of this form. Raises InvalidRequest with what is wrong."""
        return self.maker(form)()

    def maker(self, form: AnswerForm) -> Callable[[], GrammarGuide]:
        """Compiles the form and makes its guides, one for each answer. Raises InvalidRequest with what is wrong."""
        with self._lock:
            matcher = self._compiled.get(form)
            if matcher is not None:
                self._compiled.move_to_end(form)
        if matcher is None:
            matcher = self._compile(form)
            with self._lock:
                self._compiled[form] = matcher
                while len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
        size, ends = self.vocabulary.vocab_size, self._tokenizer.end_ids
        return lambda: GrammarGuide(matcher.deep_copy(), size, ends)

    @property
    def vocabulary(self) -> LLTokenizer:
        """The model's tokens as llguidance sees them; made at first use, as it takes a second."""
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = LLTokenizer(self._tokenizer.to_json(), eos_token=sorted(self._tokenizer.end_ids))
            return self._vocabulary

    def _compile(self, form: AnswerForm) -> LLMatcher:
        size = len(form.source.encode())
        if size > MAX_FORM_BYTES:
            raise InvalidRequest(f"{form.param} has {size} bytes, at most {MAX_FORM_BYTES} are taken", param=form.param)
        try:
            grammar = _to_grammar(form)
            matcher = LLMatcher(self.vocabulary, grammar, log_level=0, limits=_LIMITS)
            if not matcher.is_error():
                first = GrammarGuide(matcher.deep_copy(), self.vocabulary.vocab_size, self._tokenizer.end_ids)
                first.allowed()
                if first.failure is not None:
                    raise ValueError(f"nothing can be written that fits: {first.failure}")
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{form.param} cannot be used: {error}", param=form.param) from error
        if matcher.is_error():
            wrong = matcher.get_error().strip()
            if form.kind == "regex" and "\nerror: " in wrong:  # the rest shows the rule we made of it
                wrong = "the regular expression is wrong: " + wrong.split("\nerror: ", 1)[1].splitlines()[0]
            raise InvalidRequest(f"{form.param} cannot be used: {wrong}", param=form.param)
        return matcher


def _to_grammar(form: AnswerForm) -> str:
    """llguidance's own form of it. Raises ValueError for one that cannot end."""
    if form.kind == "json_schema":
        schema = json.loads(form.source)
        if not schema_can_end(schema):
            raise ValueError("no finite value fits it: a required part contains the whole again")
        options: JsonCompileOptions = {**_JSON_STYLE, "lenient": form.lenient}
        return LLMatcher.grammar_from_json_schema(schema, overrides=options)
    if form.kind == "regex":
        # Digits are those people write in patterns: Unicode has 700 others, which a small model takes up gladly.
        return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(form.source, 'd')}/")
    if form.kind == "choice":
        return LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, json.loads(form.source))))
    lark = _to_lark(form.source)
    if not grammar_can_end(lark):
        raise ValueError("no finite text fits its start rule: every way through it comes back to a rule it is in")
    return LLMatcher.grammar_from_lark(lark)


def _to_lark(source: str) -> str:
    if source.count("::=") > MAX_GBNF_RULES:  # its translator takes quadratic time
        raise ValueError(f"a GBNF grammar may have {MAX_GBNF_RULES} rules, got {source.count('::=')}")
    try:
        return any_to_lark(source)
    except RecursionError:
        raise
    except Exception as error:  # the translator raises bare Exception
        raise ValueError(f"it is neither Lark (with a rule `start:`) nor right GBNF (`root ::=`): {error}") from error


def json_form(schema: Any, param: str, *, lenient: bool = False) -> AnswerForm:
    """A form from a parsed JSON schema. Raises InvalidRequest when it is none."""
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{param} must be a JSON schema object, got {type(schema).__name__}", param=param)
    return AnswerForm("json_schema", json.dumps(schema), param, lenient)
