"""Tools, schemas, log probabilities and thoughts of the engine through the gateway: nothing is lost, thoughts are billed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from local_engine.config import EngineConfig
from local_engine.loading import load_engine
from tests.local_engine.running_server import serve_in_thread
from tests.local_engine.tiny_models import write_hub_directory
from tests.local_engine.tiny_tokenizer import CHAT_TEMPLATE
from tests.running import KEY, Gateway, gateway

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "answer", "description": "Say it", "parameters": SCHEMA}}]
FORM: Any = {"type": "json_schema", "json_schema": {"name": "ok", "strict": True, "schema": SCHEMA}}
ASK: dict[str, Any] = {"model": "thinker", "messages": [{"role": "user", "content": "Is it?"}], "max_tokens": 60}
BUDGET: dict[str, Any] = {"thinking_budget": 6}


@dataclass(frozen=True)
class Thinker:
    """A gateway before a tiny model whose template opens a thought."""

    gateway: Gateway
    client: openai.OpenAI


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thinker]:
    folder = tmp_path_factory.mktemp("structured")
    directory = write_hub_directory(folder / "model", seed=7, max_position_embeddings=1024)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["chat_template"] = CHAT_TEMPLATE + "{{ '<think>\n' }}"
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    engine = load_engine(directory, EngineConfig(dtype="float32", max_context=1024, max_batch=2))
    with serve_in_thread(engine, "thinker") as server:
        price = {"input": 1, "output": 2, "reasoning": 4}
        models = [{"name": "thinker", "tier": "economy", "engine": f"{server.url}/v1", "price": price}]
        with (
            gateway(folder / "gateway", {"models": models, "keys": [{"key": KEY, "name": "test"}]}) as running,
            openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0, timeout=60) as client,
        ):
            yield Thinker(running, client)


def test_a_schema_holds_and_the_thought_before_it_is_billed_as_reasoning(thinker: Thinker) -> None:
    raw = thinker.client.chat.completions.with_raw_response.create(
        **ASK, response_format=FORM, logprobs=True, top_logprobs=2, logit_bias={"5": -100}, extra_body=BUDGET
    )
    reply = raw.parse()
    message = reply.choices[0].message.model_dump()
    assert json.loads(message["content"]).keys() == {"ok"}
    assert message["reasoning_content"]
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.content
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    reasoning = reply.usage.completion_tokens_details.reasoning_tokens
    assert reasoning is not None
    assert 6 < reasoning < reply.usage.completion_tokens
    buckets = thinker.gateway.event(raw.headers["x-penstock-request-id"])["buckets"]
    assert (buckets["reasoning"], buckets["output"]) == (reasoning, reply.usage.completion_tokens - reasoning)


def test_a_forced_call_streams_through_the_gateway(thinker: Thinker) -> None:
    choice: Any = {"type": "function", "function": {"name": "answer"}}
    stream = thinker.client.chat.completions.create(
        **ASK, tools=TOOLS, tool_choice=choice, stream=True, extra_body=BUDGET,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    pieces = [call for each in choices for call in each.delta.tool_calls or ()]
    assert [piece.function.name for piece in pieces if piece.id and piece.function] == ["answer"]
    arguments = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert json.loads(arguments).keys() == {"ok"}
    assert any(each.delta.model_dump().get("reasoning_content") for each in choices)
    assert [each.finish_reason for each in choices if each.finish_reason] == ["tool_calls"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens_details is not None
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens


def test_a_form_that_cannot_be_is_the_callers_error(thinker: Thinker) -> None:
    with pytest.raises(openai.BadRequestError, match="no finite"):
        thinker.client.chat.completions.create(**ASK, extra_body={"guided_grammar": 'start: "a" start'})
