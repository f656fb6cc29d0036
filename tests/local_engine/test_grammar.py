"""Forms of answers: what compiles and what is refused, and that a guide allows exactly what fits, drafts taken back."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from local_engine.errors import InvalidRequest
from local_engine.request import Request, Row, SamplingParams
from local_engine.sampler import Sampler
from local_engine.sampling.masks import unpack_bits
from local_engine.structured.grammar import AnswerForm, GrammarCompiler, json_form
from local_engine.structured.guide import allowed_after
from local_engine.structured.matcher import GrammarGuide
from local_engine.structured.termination import grammar_can_end, schema_can_end
from local_engine.tokenizer import Tokenizer, tokenizer_from_directory

TREE = {"type": "object", "properties": {"left": {"$ref": "#"}, "n": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["n"], "additionalProperties": False}  # fmt: skip
SCHEMAS: dict[str, dict[str, Any]] = {
    "nested": {
        "type": "object",
        "properties": {
            "where": {
                "type": "object",
                "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "deep": {"type": "boolean"}},
                "required": ["x", "deep"],
                "additionalProperties": False,
            }
        },
        "required": ["where"],
        "additionalProperties": False,
    },
    "enum and unicode": {"enum": ["größer", "日本の水門", "ένα \"φράγμα\"", 7, None]},
    "array": {"type": "array", "items": {"enum": ["gate", "dam"]}, "minItems": 2, "maxItems": 4},
    "any of": {"anyOf": [{"type": "boolean"}, {"type": "string", "maxLength": 3}]},
    "tree": TREE,
    "reference": {"$defs": {"n": {"type": "integer", "minimum": 1, "maximum": 3}}, "type": "array",
                  "items": {"$ref": "#/$defs/n"}, "minItems": 1, "maxItems": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_directory: Path) -> Tokenizer:
    return tokenizer_from_directory(tiny_directory)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer)


def written(guide: GrammarGuide, tokenizer: Tokenizer, seed: int, most: int = 400) -> str:
    """A random walk through what the guide allows, up to its end."""
    rng = random.Random(seed)
    tokens: list[int] = []
    while len(tokens) < most:
        mask = unpack_bits(guide.allowed()[None], tokenizer.vocab_size)[0]
        choices = mask.nonzero()[:, 0].tolist()
        ends = [token for token in choices if token in tokenizer.end_ids]
        token = ends[0] if ends else rng.choice(choices)
        if token in tokenizer.end_ids:
            return tokenizer.decode(tokens)
        assert guide.advance(token)
        tokens.append(token)
    raise AssertionError(f"no end after {most} tokens: {tokenizer.decode(tokens)!r}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_a_schema_lets_through_is_valid(compiler: GrammarCompiler, tokenizer: Tokenizer, name: str) -> None:
    for seed in range(8):
        text = written(compiler.guide(json_form(SCHEMAS[name], "guided_json")), tokenizer, seed)
        jsonschema.validate(json.loads(text), SCHEMAS[name])


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        (AnswerForm("regex", r"\d{4}-\d\d", "guided_regex"), lambda text: len(text) == 7 and text[:4].isascii()),
        (AnswerForm("choice", '["yes", "n\\"o"]', "guided_choice"), lambda text: text in ("yes", 'n"o')),
        (AnswerForm("grammar", 'start: NUM ("+" NUM)~2\nNUM: /[0-9]/', "g"), lambda text: text.count("+") == 2),
        (AnswerForm("grammar", 'root ::= "a" ("b" | "c")', "g"), lambda text: text in ("ab", "ac")),
    ],
    ids=["regex", "choice", "lark", "ebnf"],
)
def test_other_forms_hold_as_well(compiler: GrammarCompiler, tokenizer: Tokenizer, form: AnswerForm, fits: Any) -> None:
    for seed in range(5):
        assert fits(written(compiler.guide(form), tokenizer, seed))


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (json_form({"type": "strin"}, "guided_json"), "strin"),
        (json_form({"$ref": "#/$defs/none"}, "guided_json"), "/$defs/none"),
        (json_form({"$ref": "http://127.0.0.1:9/schema"}, "guided_json"), "127.0.0.1"),
        (json_form({"type": "array", "uniqueItems": True}, "guided_json"), "uniqueItems"),
        (json_form({"type": "string", "enum": []}, "guided_json"), "Unsatisfiable"),
        (json_form({**TREE, "required": ["left"]}, "guided_json"), "no finite value"),
        (AnswerForm("regex", "(a", "guided_regex"), "the regular expression is wrong: unclosed group"),
        (AnswerForm("grammar", "bogus", "guided_grammar"), "Expected ::="),
        (AnswerForm("grammar", 'root ::= "a" undefinedrule', "guided_grammar"), "undefinedrule"),
        (AnswerForm("grammar", 'root ::= "a', "guided_grammar"), "Unexpected end"),
        (AnswerForm("grammar", 'start: ("a"', "guided_grammar"), "cannot be used"),
        (AnswerForm("grammar", 'root ::= "a"\n' * 501, "guided_grammar"), "500 rules"),
        (
            json_form(
                {
                    "$defs": {f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(1000)},
                    "$ref": "#/$defs/d0",
                },
                "guided_json",
            ),
            "different references",
        ),
        (AnswerForm("regex", r"[^\s\S]", "guided_regex"), "nothing can be written"),
        (AnswerForm("grammar", "start: nothing", "guided_grammar"), "nothing"),
        (AnswerForm("grammar", 'start: "a" start', "guided_grammar"), "no finite text"),
        (AnswerForm("grammar", 'root ::= "a" root', "guided_grammar"), "no finite text"),
        (AnswerForm("regex", "a" * 200_000, "guided_regex"), "200000 bytes"),
    ],
    ids=lambda value: value.source[:30] if isinstance(value, AnswerForm) else None,
)
def test_a_form_that_cannot_be_used_is_refused_with_what_is_wrong(
    compiler: GrammarCompiler, form: AnswerForm, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiler.guide(form)
    assert says in caught.value.message
    assert caught.value.param == form.param


def test_a_deeply_nested_schema_is_refused(compiler: GrammarCompiler) -> None:
    schema: Any = {"type": "integer"}
    for _ in range(150):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(InvalidRequest, match="deep"):
        compiler.guide(json_form(schema, "guided_json"))


@pytest.mark.parametrize(
    ("schema", "ends"),
    [
        (TREE, True),
        ({**TREE, "required": ["left"]}, False),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}, "$ref": "#/$defs/a"}, True),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}, "$ref": "#/$defs/a"}, False),
        ({"type": "array", "items": {"$ref": "#"}}, True),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, False),
        ({"type": ["array", "null"], "items": {"$ref": "#"}, "minItems": 1}, True),
        (False, False),
        ({"$ref": "#/nowhere"}, True),
    ],
)
def test_a_schema_ends_when_some_finite_value_fits(schema: Any, ends: bool) -> None:
    assert schema_can_end(schema) is ends


@pytest.mark.parametrize(
    ("lark", "ends"),
    [
        ('start: "a"* start', False),
        ('start: "a" | "b" start', True),
        ('start: a | b\na: "x" b\nb: "y" a', False),
        ('start: a?\na: "x" a', True),
        ('start: a{0,3} "x"\na: "x" a', True),
        ('start: (a | "y") "x"\na: "x" a', True),
        ('start: [a] "x"\na: "x" a', True),
        ('start: a+ "x"\na: "x" a', False),
        ('start: "//" a // start\na: /[a:|]+/', True),
    ],
)
def test_a_grammar_ends_when_its_start_has_a_finite_form(lark: str, ends: bool) -> None:
    assert grammar_can_end(lark) is ends


def test_many_definitions_that_ask_for_each_other_are_read_once_each() -> None:
    names = [f"d{index}" for index in range(60)]
    every = [{"$ref": f"#/$defs/{name}"} for name in names]
    tangle: dict[str, Any] = {"$defs": {name: {"anyOf": every} for name in names}, "$ref": "#/$defs/d0"}
    assert not schema_can_end(tangle), "none of them has an end; asking each for all others takes 60! questions"
    tangle["$defs"]["d59"] = {"type": "null"}
    assert schema_can_end(tangle)


def test_a_long_chain_of_rules_ends_where_its_last_one_does() -> None:
    chain = ["start: r0", *(f"r{index}: r{index + 1}" for index in range(5000))]
    assert grammar_can_end("\n".join([*chain, 'r5000: "a"']))
    assert not grammar_can_end("\n".join([*chain, 'r5000: "a" r7']))


def test_drafts_are_followed_and_taken_back(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    form = json_form(SCHEMAS["nested"], "guided_json")
    answer = tokenizer.encode_part('{"where": {"x": 1')
    drafts = tuple(tokenizer.encode_part('2, "deep"'))
    guide = compiler.guide(form)
    paths = [drafts[:count] for count in range(len(drafts) + 1)]
    masks = allowed_after(guide, answer, paths)
    assert guide.length == len(answer)
    for path, mask in zip(paths, masks, strict=True):
        fresh = compiler.guide(form)
        for token in (*answer, *path):
            assert fresh.advance(token)
        assert mask is not None
        assert torch.equal(mask, fresh.allowed())
    wrong = tokenizer.encode_part("x")[0]
    assert not guide.advance(wrong)
    before, after = allowed_after(guide, answer, [(), (wrong,)])
    assert before is not None
    assert torch.equal(before, masks[0] if masks[0] is not None else before)
    assert after is None, "nobody gets behind a draft that is not allowed"


def test_the_sampler_gives_forbidden_tokens_no_chance(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    guide = compiler.guide(AnswerForm("choice", '["yes"]', "guided_choice"))
    guided = Request(1, [0], SamplingParams(max_tokens=8, seed=1))
    guided.guide = guide
    free = Request(2, [0], SamplingParams(max_tokens=8, seed=1))
    sampler, logits = Sampler(), torch.randn(2, tokenizer.vocab_size, generator=torch.Generator().manual_seed(2))
    while not (guided.answer and guided.answer[-1] in tokenizer.end_ids):
        rows = [Row(guided), Row(free)]
        shaped = sampler.probabilities(logits, rows)
        assert int((shaped[0] > 0).sum()) <= 3
        assert bool((shaped[1] > 0).all())
        guided.tokens.append(sampler.sample(logits, rows)[0].token)
    assert tokenizer.decode(guided.answer) == "yes"


def test_a_grammar_that_becomes_too_complex_fails_its_answer_and_leaves_a_way_out(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    guide = compiler.guide(AnswerForm("regex", "(.*a.{500}b){200}", "guided_regex"))
    token = tokenizer.encode_part("a")[0]
    while guide.failure is None and guide.length < 3000 and guide.advance(token):
        guide.allowed()
    if guide.failure is not None:
        assert guide.allowed().any()
        assert not guide.advance(token)
