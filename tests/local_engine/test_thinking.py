"""Thoughts: their budget ends them, they are counted and told apart, and an answer's form begins behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from local_engine.config import EngineConfig
from local_engine.loading import load_engine
from local_engine.sampling.masks import unpack_bits
from local_engine.structured.grammar import AnswerForm, GrammarCompiler
from local_engine.structured.guide import allowed_after
from local_engine.structured.matcher import bits_of
from local_engine.structured.thought import ThoughtGuide, thought_tags
from local_engine.tokenizer import tokenizer_from_directory
from tests.local_engine.running_server import RunningServer, serve_in_thread
from tests.local_engine.tiny_models import write_hub_directory
from tests.local_engine.tiny_tokenizer import CHAT_TEMPLATE

ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "How much water?"}]}
OPENS = "{% if enable_thinking is not defined or enable_thinking %}{{ '<think>\n' }}{% endif %}"
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose template opens a thought; its tags are several tokens each."""
    directory = write_hub_directory(tmp_path_factory.mktemp("thinker") / "model", seed=7)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["chat_template"] = CHAT_TEMPLATE + OPENS
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture(scope="module")
def server(thinker: Path) -> Iterator[RunningServer]:
    engine = load_engine(thinker, EngineConfig(dtype="float32", max_context=512, max_batch=4))
    with serve_in_thread(engine, "tiny") as running:
        yield running
        running.wait_until_idle()
        running.loop.engine.check_integrity()


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.mark.parametrize("field", ["thinking_budget", "max_thinking_tokens", "thinking_token_budget"])
def test_a_thought_ends_at_its_budget_and_is_counted_apart(
    client: openai.OpenAI, server: RunningServer, field: str
) -> None:
    reply = client.chat.completions.create(
        **ASK, max_tokens=60, temperature=1, seed=3, extra_body={field: 8, "ignore_eos": True}
    )
    message, usage = reply.choices[0].message, reply.usage
    tokenizer = server.loop.engine.tokenizer
    closing = len(tokenizer.encode_part("</think>"))
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 8 + closing
    reasoning = message.model_dump()["reasoning_content"]
    assert reasoning
    assert "think>" not in (message.content or "") + reasoning


def test_a_stream_gives_the_thought_and_then_the_answer(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"max_tokens": 50, "temperature": 1, "seed": 5}
    extra = {"thinking_budget": 6, "ignore_eos": True}
    whole = client.chat.completions.create(**ASK, **options, extra_body=extra)
    stream = client.chat.completions.create(**ASK, **options, extra_body=extra, stream=True)
    deltas = [chunk.choices[0].delta.model_dump() for chunk in stream if chunk.choices]
    message = whole.choices[0].message.model_dump()
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == message["reasoning_content"]
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    kinds = [
        "reasoning" if delta.get("reasoning_content") else "content" for delta in deltas[1:] if any(delta.values())
    ]
    assert kinds == sorted(kinds, reverse=True), "no thought after the answer began"


def test_the_form_of_an_answer_begins_behind_the_thought(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "ok", "strict": True, "schema": SCHEMA}}
    reply = client.chat.completions.create(
        **ASK, max_tokens=60, response_format=form, seed=4, extra_body={"thinking_budget": 5}
    )
    message = reply.choices[0].message.model_dump()
    assert message["reasoning_content"]
    assert json.loads(message["content"]).keys() == {"ok"}
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("wish", [{"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}])
def test_quick_answers_do_not_think(client: openai.OpenAI, wish: dict[str, Any]) -> None:
    reply = client.chat.completions.create(**ASK, max_tokens=8, seed=4, extra_body={**wish, "ignore_eos": True})
    assert "reasoning_content" not in reply.choices[0].message.model_dump()
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == 0


def test_an_answer_cut_inside_its_thought_is_all_thought(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**ASK, max_tokens=5, seed=4, extra_body={"ignore_eos": True})
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].message.content == ""
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == reply.usage.completion_tokens == 5


def test_a_guide_that_takes_drafts_back_stands_where_a_fresh_one_would(thinker: Path) -> None:
    tokenizer = tokenizer_from_directory(thinker)
    tags = thought_tags(tokenizer)
    assert tags is not None
    assert tags.open_id is None
    text = "<think>a b</think>ok"
    tokens = tokenizer.encode_part(text)
    for opened in (False, True):
        guide = ThoughtGuide(tokenizer, tags, opened=opened, budget=30, inner=None)
        for known in range(len(tokens)):
            drafts = tuple(tokens[known:])
            allowed_after(guide, tokens[:known], [drafts[:count] for count in range(len(drafts) + 1)])
            fresh = ThoughtGuide(tokenizer, tags, opened=opened, budget=30, inner=None)
            for token in tokens[:known]:
                assert fresh.advance(token)
            assert (guide.length, guide.thought) == (fresh.length, fresh.thought)
        for token in tokens[guide.length :]:
            assert guide.advance(token)
        assert guide.thought == len(tokens) - len(tokenizer.encode_part("ok"))


def test_an_answer_of_a_form_cannot_end_inside_its_thought(thinker: Path) -> None:
    tokenizer = tokenizer_from_directory(thinker)
    tags = thought_tags(tokenizer)
    assert tags is not None
    inner = GrammarCompiler(tokenizer).guide(AnswerForm("choice", '["yes"]', "guided_choice"))
    mask = ThoughtGuide(tokenizer, tags, opened=True, budget=9, inner=inner).allowed()
    assert mask is not None
    allowed = unpack_bits(mask[None], tokenizer.vocab_size)[0]
    assert {token for token in range(tokenizer.vocab_size) if not allowed[token]} == set(tokenizer.end_ids)


def test_a_spent_budget_allows_the_closing_tag_only_draft_by_draft(thinker: Path) -> None:
    tokenizer = tokenizer_from_directory(thinker)
    tags = thought_tags(tokenizer)
    assert tags is not None
    guide = ThoughtGuide(tokenizer, tags, opened=True, budget=2, inner=None)
    paths = [tags.close_ids[:count] for count in range(len(tags.close_ids) + 1)]
    masks = allowed_after(guide, tokenizer.encode_part("ab")[:2], paths)
    words = (tokenizer.vocab_size + 31) // 32
    for mask, token in zip(masks, tags.close_ids, strict=False):
        assert mask is not None
        assert mask.tolist() == bits_of([token], words).tolist()
    assert masks[-1] is None
