"""The scripted server as its own process: it starts, answers the official client, keeps count, and refuses wrong scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

Start = Callable[[str], str]
HELLO: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the server with a script, returns its address; stops it after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str) -> str:
        command = [sys.executable, "-m", "gateway.providers.scripted_server", "--port", "0", "--script", script]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"

    yield run
    for process in started:
        process.terminate()
        assert process.wait(timeout=60) == 0
        assert process.stdout is not None
        process.stdout.close()


def test_the_official_client_reads_plain_streamed_and_tool_replies_and_every_token_is_counted(start: Start) -> None:
    models = {
        "plain": {"reply": "one two", "tokens": {"input": 10, "output": 7, "reasoning": 5, "cached": 4}},
        "tools": {"tool_call": {"name": "look_up", "arguments": '{"city": "Paris"}'}},
    }
    address = start(json.dumps({"models": models, "default": {}}))
    with openai.OpenAI(base_url=f"{address}/v1", api_key="sk-any", max_retries=0) as client:
        reply = client.chat.completions.create(model="plain", messages=HELLO)
        assert reply.choices[0].message.content == "one two"
        with client.chat.completions.stream(
            model="plain", messages=HELLO, stream_options={"include_usage": True}
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.content == "one two"
        assert final.choices[0].finish_reason == "stop"
        assert final.usage is not None
        assert reply.usage is not None
        assert final.usage.to_dict() == reply.usage.to_dict()
        with client.chat.completions.stream(model="tools", messages=HELLO) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.tool_calls is not None
        assert message.tool_calls[0].function.name == "look_up"
        assert message.tool_calls[0].function.arguments == '{"city": "Paris"}'
        assert client.chat.completions.create(model="other", messages=HELLO).choices[0].message.content == "hello there"
        assert [model.id for model in client.models.list()] == ["plain", "tools"]
    counts = httpx.get(f"{address}/scripted/calls").json()["models"]
    assert counts["plain"] == {
        "calls": 2,
        "completed": 2,
        "refused": 0,
        "broken": 0,
        "input_tokens": 20,
        "output_tokens": 14,
        "reasoning_tokens": 10,
        "cached_tokens": 8,
    }


def test_failures_are_the_official_clients_own_errors_and_count_apart(start: Start) -> None:
    address = start(
        json.dumps(
            {"models": {name: {"behaviour": name} for name in ("refuse", "rate_limited", "unauthorized", "cut")}}
        )
    )
    with openai.OpenAI(base_url=f"{address}/v1", api_key="sk-any", max_retries=0) as client:
        for name, error in (
            ("refuse", openai.BadRequestError),
            ("rate_limited", openai.RateLimitError),
            ("unauthorized", openai.AuthenticationError),
            ("cut", openai.APIConnectionError),
            ("unknown", openai.NotFoundError),
        ):
            with pytest.raises(error):
                client.chat.completions.create(model=name, messages=HELLO)
    counts = httpx.get(f"{address}/scripted/calls").json()["models"]
    assert {name: (count["refused"], count["broken"], count["output_tokens"]) for name, count in counts.items()} == {
        "refuse": (1, 0, 0),
        "rate_limited": (1, 0, 0),
        "unauthorized": (1, 0, 0),
        "cut": (0, 1, 0),
    }


def test_a_reply_whose_client_left_counts_as_broken(start: Start) -> None:
    address = start('{"reply": "one two three", "per_token_seconds": 0.5}')
    body = {"model": "m", "messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body) as reply:
        next(reply.iter_bytes())
    for _ in range(100):
        tally = httpx.get(f"{address}/scripted/calls").json()["models"]["m"]
        if tally["broken"]:
            break
    assert (tally["calls"], tally["completed"], tally["broken"], tally["output_tokens"]) == (1, 0, 1, 0)


def test_a_body_that_is_not_json_is_refused(start: Start) -> None:
    address = start("{}")
    reply = httpx.post(f"{address}/v1/chat/completions", content=b"{oops")
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_json"


def test_a_script_file_in_yaml_is_read(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("models:\n  small: {reply: from a file}\n")
    address = start(str(path))
    reply = httpx.post(f"{address}/v1/chat/completions", json={"model": "small", "messages": HELLO})
    assert reply.json()["choices"][0]["message"]["content"] == "from a file"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('{"behavior": "good"}', "did you mean 'behaviour'?"),
        ('{"models": {"a": {"behaviour": "god"}}}', "script: a.behaviour is 'god'; did you mean 'good'?"),
        ('{"models": 5}', "`models` is 5"),
        ("{", "not valid YAML or JSON"),
        ("no/such/file.yaml", "cannot read the script 'no/such/file.yaml'"),
    ],
)
def test_a_wrong_script_stops_the_start_with_the_reason(script: str, message: str) -> None:
    command = [sys.executable, "-m", "gateway.providers.scripted_server", "--script", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
