"""The server as the official openai client sees it: answers, streams, usage, several callers, and callers that leave."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from local_engine.engine import Engine
from local_engine.loop import EngineLoop
from local_engine.metrics import EngineMetrics
from local_engine.request import Output, SamplingParams
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.running_server import RunningServer, serve_in_thread, wait_for

MESSAGES: list[Any] = [{"role": "user", "content": "How much water reaches the turbine?"}]
GREEDY: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def client(tiny_server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
        yield client


def test_an_answer_has_text_usage_and_a_finish_reason(client: openai.OpenAI, tiny_server: RunningServer) -> None:
    reply = client.chat.completions.create(**GREEDY, max_tokens=12)
    tokenizer = tiny_server.loop.engine.tokenizer
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "length"
    assert reply.model == "tiny"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(tokenizer.encode_chat(MESSAGES))
    assert reply.usage.completion_tokens == 12
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 12
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 0
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == 0


def test_a_stream_joins_up_to_the_whole_answer_and_ends_with_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, max_tokens=30)
    stream = client.chat.completions.create(
        **GREEDY, max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    *content, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in content) == whole.choices[0].message.content
    assert content[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in content[-2:]] == [None, "length"]
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(content) > 10, "text must flow token by token"


def test_without_include_usage_no_chunk_carries_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**GREEDY, max_tokens=3, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_stop_string_never_reaches_the_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, max_tokens=40).choices[0].message.content or ""
    stop = next(whole[at : at + 3] for at in range(6, len(whole)) if "\ufffd" not in whole[at : at + 3])
    pieces, finish = [], None
    for chunk in client.chat.completions.create(**GREEDY, max_tokens=40, stop=[stop], stream=True):
        pieces.append(chunk.choices[0].delta.content or "")
        finish = chunk.choices[0].finish_reason
    assert "".join(pieces) == whole[: whole.index(stop)]
    assert finish == "stop"


def test_several_choices_share_one_call_and_seeds_make_them_repeat(client: openai.OpenAI) -> None:
    ask = {**GREEDY, "temperature": 1.0, "n": 2, "seed": 9, "max_tokens": 10}
    first, second = client.chat.completions.create(**ask), client.chat.completions.create(**ask)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1]
    assert texts[0] != texts[1]
    assert texts == [choice.message.content for choice in second.choices]
    assert first.usage is not None
    assert first.usage.completion_tokens == 20
    streamed = ["", ""]
    for chunk in client.chat.completions.create(**ask, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_the_legacy_completions_route_takes_text_and_token_ids(client: openai.OpenAI) -> None:
    tokens = httpx.post(f"{client.base_url}".replace("/v1/", "/tokenize"), json={"prompt": "The gate"}).json()
    by_text = client.completions.create(model="tiny", prompt="The gate", temperature=0, max_tokens=8)
    by_ids = client.completions.create(model="tiny", prompt=tokens["tokens"], temperature=0, max_tokens=8)
    assert tokens["count"] == len(tokens["tokens"])
    assert by_text.choices[0].text == by_ids.choices[0].text
    stream = client.completions.create(model="tiny", prompt="The gate", temperature=0, max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == by_text.choices[0].text


def test_unknown_fields_and_text_parts_are_accepted(client: openai.OpenAI) -> None:
    parts: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How much "}, {"type": "text", "text": "water?"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "Well?"},
    ]
    reply = client.chat.completions.create(
        model="tiny",
        messages=parts,
        max_completion_tokens=2,
        user="someone",
        extra_body={"service_tier": "auto", "prompt_cache_key": "x", "made_up": [1]},
    )
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 2


def test_models_health_and_metrics_describe_the_server(client: openai.OpenAI, tiny_server: RunningServer) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    assert httpx.get(f"{tiny_server.url}/health").json() == {"status": "ok", "model": "tiny"}
    client.chat.completions.create(**GREEDY, max_tokens=5)
    metrics = httpx.get(f"{tiny_server.url}/metrics").text
    assert 'vllm:generation_tokens_total{model_name="tiny"} 5.0' in metrics
    assert 'vllm:request_success_total{finished_reason="length",model_name="tiny"} 1.0' in metrics
    assert 'vllm:num_requests_running{model_name="tiny"} 0.0' in metrics


async def test_many_async_callers_get_what_each_would_get_alone(tiny_engine: EngineMaker) -> None:
    questions = [f"Count {number} drops" for number in range(12)]
    with serve_in_thread(tiny_engine(max_batch=4, max_queue=20), "tiny") as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", timeout=60) as client:

            async def ask(question: str) -> str | None:
                body = {**GREEDY, "messages": [{"role": "user", "content": question}]}
                reply = await client.chat.completions.create(**body, max_tokens=15)
                return str(reply.choices[0].message.content)

            alone = [await ask(question) for question in questions]
            assert await asyncio.gather(*map(ask, questions)) == alone
        server.wait_until_idle()
        server.loop.engine.check_integrity()


def test_a_full_queue_refuses_with_429_and_says_when_to_come_back(tiny_server: RunningServer) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 150, "ignore_eos": True, "stream": True}
    with httpx.Client(base_url=tiny_server.url, timeout=30) as client:
        streams = [client.stream("POST", "/v1/chat/completions", json=body) for _ in range(4)]
        replies = [stream.__enter__() for stream in streams]
        refused = client.post("/v1/chat/completions", json=body)
        several = client.post("/v1/chat/completions", json={**body, "n": 3})
        for stream in streams:
            stream.__exit__(None, None, None)
    assert [reply.status_code for reply in replies] == [200] * 4
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "queue_full"
    assert "this call makes 3 (n): ask for fewer" in several.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_that_leaves_frees_its_blocks(tiny_engine: EngineMaker, stream: bool) -> None:
    engine: Engine = tiny_engine(max_batch=1, max_context=512)
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 400, "ignore_eos": True, "stream": stream}
    with serve_in_thread(engine, "tiny") as server:
        if stream:
            with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as reply:
                assert list(itertools.islice(reply.iter_lines(), 5))
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=0.05)
        server.wait_until_idle()
        engine.check_integrity()
        assert engine.blocks.used == 0
        metrics = server.loop.metrics.render().decode()
        assert 'vllm:request_success_total{finished_reason="abort",model_name="tiny"} 1.0' in metrics


def test_a_dropped_request_frees_its_blocks_before_the_next_step(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_batch=2, max_context=256)
    loop = EngineLoop(engine, EngineMetrics("tiny"))
    held: list[int] = []
    left, stays = (engine.new_request([5] * 40, SamplingParams(max_tokens=30, ignore_eos=True)) for _ in range(2))

    def hear(output: Output) -> None:
        held.append(engine.blocks.used)
        if output.request is left and len(left.answer) == 3:
            loop.abort([left])

    loop.submit([left, stays], hear)
    loop.start()
    wait_for(lambda: loop.open_requests == 0)
    loop.stop()
    assert len(left.answer) == 3
    assert held[:6] == [4] * 6, "two full blocks are shared, each has one of its own"
    assert set(held[6:-1]) <= {3, 4, 5}
    assert held[6] == 3, "the step after the abort runs without its block"
    assert (held[-1], len(stays.answer)) == (0, 30)


def test_cached_tokens_are_reported_per_salt(client: openai.OpenAI) -> None:
    def cached(**extra: Any) -> int:
        ask = {**GREEDY, "max_tokens": 2, "extra_body": {"ignore_eos": True, **extra}}
        usage = client.chat.completions.create(**ask).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    counts = [cached(), cached(), cached(cache_salt="a"), cached(cache_salt="b"), cached(cache_salt="a")]
    assert counts[0] == counts[2] == counts[3] == 0
    assert counts[1] == counts[4] > 0
    assert counts[1] % 16 == 0


def test_an_answer_without_max_tokens_ends_at_the_default(tiny_engine: EngineMaker) -> None:
    ask = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "ignore_eos": True}
    with serve_in_thread(tiny_engine(default_max_tokens=7), "tiny") as server:
        url = f"{server.url}/v1/chat/completions"
        by_default = httpx.post(url, json=ask).json()
        asked_for = httpx.post(url, json={**ask, "max_tokens": 9}).json()
    assert by_default["choices"][0]["finish_reason"] == "length"
    assert [reply["usage"]["completion_tokens"] for reply in (by_default, asked_for)] == [7, 9]


def test_a_deadline_ends_the_answer_with_504(tiny_server: RunningServer) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "ignore_eos": True, "deadline_seconds": 0}
    reply = httpx.post(f"{tiny_server.url}/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    tiny_server.wait_until_idle()
    assert tiny_server.loop.engine.blocks.used == 0


def test_a_step_that_fails_breaks_the_stream_with_an_error_event(tiny_server: RunningServer) -> None:
    engine = tiny_server.loop.engine
    embeddings = engine.runner.decoder.embeddings
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 150, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{tiny_server.url}/v1/chat/completions", json=body, timeout=30) as reply:
        lines = reply.iter_lines()
        next(lines)
        engine.runner.decoder.embeddings = None  # type: ignore[assignment]
        rest = [line for line in lines if line]
    engine.runner.decoder.embeddings = embeddings
    assert '"code":"engine_step_failed"' in rest[-1]
    assert not any("[DONE]" in line for line in rest)
    wait_for(lambda: not engine.busy)
    with openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="any", max_retries=0) as client:
        assert client.chat.completions.create(**GREEDY, max_tokens=3).choices[0].finish_reason == "length"


def test_a_bug_in_the_loop_answers_everybody_and_shows_in_health(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_batch=1, max_context=512)
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 450, "ignore_eos": True, "stream": True}
    with serve_in_thread(engine, "tiny") as server:
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as reply:
            lines = reply.iter_lines()
            next(lines)
            engine._texts.clear()  # bookkeeping that is wrong, as only a bug can make it
            rest = [line for line in lines if line]
        assert '"code":"engine_error"' in rest[-1]
        health = httpx.get(f"{server.url}/health")
        refused = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert (health.status_code, health.json()["status"]) == (503, "failed")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
