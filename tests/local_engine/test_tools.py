"""Tools and JSON schemas from SmolLM2 through the official client: what comes back parses and is valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from local_engine.config import EngineConfig
from local_engine.loading import load_engine
from tests.local_engine.conftest import MODEL
from tests.local_engine.running_server import serve_in_thread

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 30}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
PLACE = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/point"}},
    "required": ["at"],
    "additionalProperties": False,
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}},
                        "required": ["x"], "additionalProperties": False}},
}  # fmt: skip
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "description": "Today's weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "find_place", "description": "A place on the map", "parameters": PLACE}},
]
ASK: Any = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module")
def client(smollm2_path: Path) -> Iterator[openai.OpenAI]:
    engine = load_engine(smollm2_path, EngineConfig(max_context=1024, max_batch=4))
    with (
        serve_in_thread(engine, MODEL) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=120) as client,
    ):
        yield client
        server.wait_until_idle()
        engine.check_integrity()


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(
        **{"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 120, **options}
    )


def test_a_named_tool_is_called_in_a_stream_piece_by_piece(client: openai.OpenAI) -> None:
    stream = ask(client, tools=TOOLS, tool_choice=NAMED, stream=True)
    chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
    pieces = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    assert [piece.function.name for piece in pieces if piece.id] == ["get_weather"]
    assert len(pieces) > 3
    arguments = "".join(piece.function.arguments for piece in pieces)
    jsonschema.validate(json.loads(arguments), WEATHER)
    assert "paris" in arguments.lower()
    assert not any(chunk.delta.content for chunk in chunks)
    assert chunks[-1].finish_reason == "tool_calls"


def test_a_required_call_is_one_of_the_tools_and_can_be_answered(client: openai.OpenAI) -> None:
    reply = ask(client, tools=TOOLS, tool_choice="required", max_tokens=300, frequency_penalty=0.2)
    message = reply.choices[0].message
    assert (message.content, reply.choices[0].finish_reason) == (None, "tool_calls")
    for call in message.tool_calls:
        schema = {"get_weather": WEATHER, "find_place": PLACE}[call.function.name]
        jsonschema.validate(json.loads(call.function.arguments), schema)
    assert len({call.id for call in message.tool_calls}) == len(message.tool_calls)
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "18 degrees"} for call in message.tool_calls]
    further = ask(client, messages=[*ASK, message.model_dump(exclude_none=True), *answers], tools=TOOLS, max_tokens=4)
    assert further.usage.prompt_tokens > reply.usage.prompt_tokens


def test_a_tool_with_references_in_its_schema_keeps_them(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "find_place"}}
    reply = ask(client, tools=TOOLS, tool_choice=choice)
    (call,) = reply.choices[0].message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), PLACE)


def test_without_a_demand_the_model_may_just_answer(client: openai.OpenAI) -> None:
    for choice in ("auto", "none"):
        reply = ask(client, tools=TOOLS, tool_choice=choice, max_tokens=6)
        assert reply.choices[0].finish_reason in ("length", "stop", "tool_calls")
        assert "<tool_call>" not in (reply.choices[0].message.content or "")


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "nested, enum, array, unicode": (
        "Describe an oak.",
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 12},
                "größe": {"enum": ["klein", "groß", "日本"]},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 2},
                "size": {
                    "type": "object",
                    "properties": {"height": {"type": "number", "minimum": 0, "maximum": 99}, "old": {"type": "boolean"}},
                    "required": ["height", "old"],
                    "additionalProperties": False,
                },
            },
            "required": ["name", "größe", "tags", "size"],
            "additionalProperties": False,
        },
    ),
    "one of two": (
        "Is water wet?",
        {"anyOf": [{"type": "object", "properties": {"yes": {"const": True}}, "required": ["yes"],
                    "additionalProperties": False}, {"type": "null"}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_json_schema_is_kept_whole_and_streamed(client: openai.OpenAI, name: str) -> None:
    question, schema = FORMS[name]
    form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    options: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "response_format": form}
    whole = ask(client, **options)
    assert whole.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(whole.choices[0].message.content), schema)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, **options, stream=True, seed=1))
    assert streamed == whole.choices[0].message.content


def test_any_json_object_and_a_cut_one(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Give me a JSON object with the name and age of a person."}],
        "response_format": {"type": "json_object"},
    }
    whole = ask(client, **options)
    assert isinstance(json.loads(whole.choices[0].message.content), dict)
    cut = ask(client, **options, max_tokens=3)
    assert cut.choices[0].finish_reason == "length"
