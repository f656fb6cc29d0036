"""`python -m local_engine serve` as a process: it loads, answers, drains on a signal, and fails with one clear line."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

import httpx
import openai
import pytest

from tests.local_engine.running_server import wait_for
from tests.local_engine.serve_process import SECONDS, serving


def free_port() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_open_answers_finish_and_then_ends_cleanly(tiny_gguf: Path, sent: signal.Signals) -> None:
    with serving("--model", str(tiny_gguf), "--served-name", "tiny", "--port", "0") as server:
        url = server.wait_until_serving()
        assert httpx.get(f"{url}/health").json() == {"status": "ok", "model": "tiny"}
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=SECONDS) as client:
            stream = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=300, stream=True,
                extra_body={"ignore_eos": True}, stream_options={"include_usage": True},
            )  # fmt: skip
            next(iter(stream))
            os.kill(server.process.pid, sent)
            chunks = list(stream)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 300
        assert server.process.wait(SECONDS) == 0


def test_draining_is_bounded_and_what_is_cut_says_so(tiny_gguf: Path) -> None:
    options = ("--model", str(tiny_gguf), "--served-name", "tiny", "--port", "0", "--drain-seconds", "0")
    with serving(*options) as server:
        url = server.wait_until_serving()
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 480, "stream": True}
        body |= {"ignore_eos": True, "n": 32}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=SECONDS) as reply:
            lines = reply.iter_lines()
            next(lines)
            os.kill(server.process.pid, signal.SIGTERM)
            rest = [line for line in lines if line]
        assert '"code":"not_ready"' in rest[-1]
        assert "[DONE]" not in "".join(rest)
        assert server.process.wait(SECONDS) == 0


def test_a_port_in_use_is_named_before_anything_is_loaded(tiny_gguf: Path) -> None:
    with free_port() as taken:
        port = taken.getsockname()[1]
        with serving("--model", str(tiny_gguf), "--port", str(port)) as server:
            status, out = server.end()
    assert status == 1
    assert out == f"Error: cannot listen on 127.0.0.1:{port} (Address already in use): choose another --port\n"


def test_missing_weights_end_the_process_with_what_to_do(tmp_path: Path) -> None:
    options = (
        "--model",
        "org/missing",
        "--port",
        "0",
        "--weights-dir",
        str(tmp_path),
        "--hub-url",
        "http://127.0.0.1:9",
    )
    with serving(*options) as server:
        status, out = server.end()
    assert status == 1
    assert re.search(r"^Error: model 'org/missing' is not on this machine.*--model the path", out, re.MULTILINE)
    assert "Traceback" not in out


def test_a_broken_model_ends_the_process_with_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with serving("--model", str(broken), "--port", "0") as server:
        status, out = server.end()
    assert status == 1
    assert re.search(r"^Error: '.*broken\.gguf' is not a usable GGUF file", out, re.MULTILINE)
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--step-tokens", "2", "--max-batch", "4"), "--step-tokens (2) must be at least --max-batch (4)"),
        (
            ("--draft-model", "some/file", "--speculate", "ngram"),
            "--draft-model is 'some/file', but --speculate is 'ngram'",
        ),
        (("--dtype", "float8"), "'float8' is not one of 'bfloat16', 'float32'"),
        (("--port", "99999"), "99999 is not in the range"),
        (("--max-batch", "0"), "0 is not in the range"),
        (("--made-up",), "No such option"),
    ],
)
def test_wrong_options_are_refused_by_name(arguments: tuple[str, ...], says: str) -> None:
    with serving(*arguments) as server:
        status, out = server.end()
    assert status == 2
    assert says in out


def test_a_second_ctrl_c_ends_open_answers_and_the_process_cleanly(tiny_gguf: Path) -> None:
    options = ("--model", str(tiny_gguf), "--served-name", "tiny", "--port", "0", "--speculate", "off")
    with serving(*options) as server:
        url = server.wait_until_serving()
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 480, "stream": True}
        body |= {"ignore_eos": True, "n": 32}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=SECONDS) as reply:
            lines = reply.iter_lines()
            next(lines)
            os.kill(server.process.pid, signal.SIGINT)
            wait_for(lambda: refuses(url))
            os.kill(server.process.pid, signal.SIGINT)
            rest = [line for line in lines if line]
        assert server.process.wait(SECONDS) == 0
        server.reader.join(SECONDS)
    assert '"code":"not_ready"' in rest[-1]
    assert "Traceback" not in "".join(server.lines)


def test_a_signal_before_the_model_is_loaded_ends_with_one_line(tiny_gguf: Path, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, signal, time\n"
        "from local_engine import process\n"
        "def load(*_):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "process.resolve_model = load\n"
        "from local_engine.__main__ import main\n"
        "main()\n"
    )
    with serving("--model", str(tiny_gguf), "--port", "0", program=(sys.executable, str(script), "serve")) as server:
        status, out = server.end()
    assert (status, out) == (0, "stopped while the model was loading\n")


def test_an_address_of_another_machine_is_named_with_the_option_that_set_it(tiny_gguf: Path) -> None:
    with serving("--model", str(tiny_gguf), "--port", "0", "--host", "192.0.2.1") as server:
        status, out = server.end()
    assert status == 1
    assert out.endswith("take an address of this machine as --host\n")


def test_a_cache_with_room_for_hardly_a_chat_is_warned_of(tiny_gguf: Path) -> None:
    with serving("--model", str(tiny_gguf), "--port", "0", "--cache-tokens", "64") as server:
        server.wait_until_serving()
    assert "the cache holds 64 tokens, prompt and answer together must fit" in "".join(server.lines)


def refuses(url: str) -> bool:
    """Whether nobody listens there any more."""
    try:
        httpx.get(f"{url}/health", timeout=SECONDS)
    except httpx.ConnectError:
        return True
    return False
