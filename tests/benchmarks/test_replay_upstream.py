"""The replay upstream as an OpenAI client sees it, and its own count of what it delivered."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from benchmarks import recorded_answers
from tests.benchmarks.conftest import LONG_ANSWER, Upstream

APPLES = "Ada has 3 apples and buys 4. How many has she?"
PRIME = "Is 21 a prime number?"
StartUpstream = Callable[..., Upstream]


def client_of(upstream: Upstream) -> openai.OpenAI:
    return openai.OpenAI(base_url=upstream.base_url, api_key="any", max_retries=0)


def ask(text: str) -> list[Any]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def delivered(upstream: Upstream) -> dict[str, Any]:
    return httpx.get(f"{upstream.root}/replay/delivered").json()


def test_a_whole_reply_is_the_recorded_text_with_the_recorded_tokens(upstream: Upstream) -> None:
    with client_of(upstream) as client:
        reply = client.chat.completions.create(model="Meta-Llama-3.1-70B-Instruct", messages=ask(APPLES))
    assert reply.choices[0].message.content == LONG_ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (13, 153, 166)


def test_a_stream_joins_to_the_recorded_text_and_ends_with_the_usage(upstream: Upstream) -> None:
    with client_of(upstream) as client:
        chunks = list(
            client.chat.completions.create(
                model="medium", messages=ask(APPLES), stream=True, stream_options={"include_usage": True}
            )
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == LONG_ANSWER
    assert len(chunks) > 10
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 153


def test_a_stream_that_did_not_ask_for_usage_gets_none(upstream: Upstream) -> None:
    with client_of(upstream) as client:
        chunks = list(client.chat.completions.create(model="small", messages=ask(PRIME), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "[No] \n\nIt is 3 x 7."
    assert all(chunk.usage is None for chunk in chunks)


def test_a_tier_stands_for_one_recorded_model_per_data_set(start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    with client_of(upstream) as client:
        for prompt in (APPLES, PRIME):
            client.chat.completions.create(model="small", messages=ask(prompt))
        names = {model.id for model in client.models.list()}
    served = [(one["model"], one["recorded_model"]) for one in delivered(upstream)["replies"]]
    assert served == [("small", "Meta-Llama-3.1-8B-Instruct"), ("small", "gpt-3.5-turbo-0301")]
    assert {"small", "medium", "large", "gpt-4-0314"} <= names


@pytest.mark.parametrize(
    ("model", "prompt", "code"),
    [
        ("small", "Is 22 a prime number?", "prompt_not_recorded"),
        ("large", APPLES, "prompt_not_recorded"),
        ("gpt-9", APPLES, "model_not_found"),
    ],
)
def test_what_was_not_recorded_is_refused_with_a_code(upstream: Upstream, model: str, prompt: str, code: str) -> None:
    with client_of(upstream) as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=model, messages=ask(prompt))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_request"),
        (b'{"model": "small", "messages": []}', "invalid_request"),
        (b'{"model": "small", "messages": [], "n": 2}', "invalid_n"),
    ],
)
def test_a_malformed_request_is_a_400_with_a_code(upstream: Upstream, body: bytes, code: str) -> None:
    reply = httpx.post(f"{upstream.base_url}/chat/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == code


def test_delivered_counts_tokens_per_model_and_lists_every_reply(start_upstream: StartUpstream, tmp_path: Path) -> None:
    log = tmp_path / "delivered.jsonl"
    upstream = start_upstream("--delivered-log", str(log), "--split-usage")
    with client_of(upstream) as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="medium", messages=ask("Never asked."))
        client.chat.completions.create(model="medium", messages=ask(APPLES))
        list(client.chat.completions.create(model="small", messages=ask(PRIME), stream=True))
    count = delivered(upstream)
    assert (count["requests"], count["input_tokens"], count["output_tokens"]) == (2, 20, 164)
    assert count["models"]["medium"] == {
        "requests": 1,
        "input_tokens": 13,
        "cached_tokens": 3,
        "output_tokens": 153,
        "reasoning_tokens": 51,
    }
    assert len({one["id"] for one in count["replies"]}) == 2
    upstream.process.kill()
    upstream.process.wait()
    assert [json.loads(line) for line in log.read_text().splitlines()] == count["replies"]


def test_a_client_that_leaves_in_the_middle_is_counted_apart(start_upstream: StartUpstream) -> None:
    upstream = start_upstream("--latency", "3")
    host, port = upstream.root.removeprefix("http://").split(":")
    body = json.dumps({"model": "medium", "messages": ask(APPLES), "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    deadline = time.monotonic() + 60
    while not delivered(upstream)["replies"] and time.monotonic() < deadline:
        time.sleep(0.05)
    count = delivered(upstream)
    assert (count["requests"], count["disconnected"]) == (0, 1)
    assert [one["outcome"] for one in count["replies"]] == ["disconnected"]


def test_of_two_prompts_with_one_text_the_first_is_served(routing_tables: Path) -> None:
    answer = recorded_answers.load(routing_tables).find("Which is a metal?\nA. Iron\nB. Salt ", "small")
    assert answer is not None
    assert (answer.prompt_id, answer.text, answer.score) == ("first", "A", 1.0)


def test_an_answer_without_a_token_count_is_not_served(routing_tables: Path) -> None:
    assert recorded_answers.load(routing_tables).find("Which is a gas?", "small") is None


def test_every_tier_covers_the_same_data_sets() -> None:
    covered = [set(models) for models in recorded_answers.TIER_MODELS.values()]
    assert covered[0] == covered[1] == covered[2]


def test_a_folder_without_the_tables_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.replay_upstream", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 2
    assert "prompts.parquet" in done.stderr
    assert "Traceback" not in done.stderr
