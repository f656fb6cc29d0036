"""What breaks under a running server: memory, numbers, the cache, the engine's thread. Others are served all the same."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.local_engine.conftest import EngineMaker
from tests.local_engine.running_server import RunningServer, serve_in_thread, wait_for
from tests.local_engine.serve_process import SECONDS, serving

BODY: dict[str, Any] = {
    "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0, "ignore_eos": True,
}  # fmt: skip


@pytest.fixture
def server(tiny_engine: EngineMaker) -> Iterator[RunningServer]:
    with serve_in_thread(tiny_engine(max_batch=2, max_queue=40, cache_tokens=256), "tiny") as running:
        yield running
        running.wait_until_idle()
        running.loop.engine.check_integrity()
        assert running.loop.engine.blocks.used == 0


def ask(server: RunningServer, **changes: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json={**BODY, **changes}, timeout=SECONDS)


def test_weights_that_give_no_numbers_fail_the_step_and_write_no_text(server: RunningServer) -> None:
    norm = server.loop.engine.runner.decoder.norm.weight
    before = norm.clone()
    for broken in (float("nan"), float("inf")):
        with torch.inference_mode():
            norm[3] = broken
        for temperature in (0, 1):
            reply = ask(server, temperature=temperature)
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (500, "engine_step_failed")
            assert "NaN or infinity" in error["message"]
    with torch.inference_mode():
        norm.copy_(before)
    assert ask(server).status_code == 200, "no block of a failed step is shared"


def test_running_out_of_memory_ends_the_step_and_says_to_come_again(server: RunningServer) -> None:
    """The allocator really fails: the parameter asks it for a pebibyte."""
    layers = server.loop.engine.runner.decoder.layers

    class Greedy(torch.nn.Module):
        window = None

        def forward(self, *_: object, **__: object) -> torch.Tensor:
            return torch.empty(2**50, dtype=torch.uint8)

    good = layers[1]
    layers[1] = Greedy()
    reply = ask(server)
    layers[1] = good
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "out_of_memory")
    assert reply.headers["retry-after"] == "1"
    assert ask(server).status_code == 200


def test_torchs_own_error_of_a_gpu_is_told_alike(server: RunningServer) -> None:
    layers = server.loop.engine.runner.decoder.layers

    class Full(torch.nn.Module):
        window = None

        def forward(self, *_: object, **__: object) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    good = layers[0]
    layers[0] = Full()
    reply = ask(server)
    layers[0] = good
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "out_of_memory")
    assert "GiB" not in reply.text, "what the machine has is not the caller's business"


def test_a_cache_that_is_too_small_for_all_at_once_makes_them_wait_and_answers_everyone(server: RunningServer) -> None:
    asked = [{"max_tokens": 100 + number} for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda changes: ask(server, **changes), asked))
    assert [reply.json()["usage"]["completion_tokens"] for reply in replies] == [100 + number for number in range(12)]


def test_one_that_never_fits_is_refused_and_the_others_go_on(server: RunningServer) -> None:
    reply = ask(server, max_tokens=250)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert ask(server).status_code == 200


def test_clients_that_leave_in_the_middle_make_room_for_those_that_wait(server: RunningServer) -> None:
    url, long = f"{server.url}/v1/chat/completions", {**BODY, "max_tokens": 200, "stream": True}
    engine = server.loop.engine
    for _ in range(3):
        with httpx.stream("POST", url, json=long, timeout=SECONDS) as reply:
            next(reply.iter_lines())
    wait_for(lambda: not engine.busy)
    assert engine.blocks.used == 0
    assert ask(server).status_code == 200


def test_an_engine_whose_thread_died_answers_everybody_and_ends_for_its_supervisor(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    script = tmp_path / "breakable.py"
    script.write_text(
        "import gc, signal\n"
        "from local_engine.engine import Engine\n"
        "def break_it(*_):\n"
        "    [engine] = [each for each in gc.get_objects() if isinstance(each, Engine)]\n"
        "    engine.scheduler = None\n"
        "signal.signal(signal.SIGUSR1, break_it)\n"
        "from local_engine.__main__ import main\n"
        "main()\n"
    )
    arguments = ("--model", str(tiny_gguf), "--served-name", "tiny", "--port", "0")
    with serving(*arguments, program=(sys.executable, str(script), "serve")) as broken:
        url = broken.wait_until_serving()
        long = {**BODY, "max_tokens": 400, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=long, timeout=SECONDS) as reply:
            lines = reply.iter_lines()
            next(lines)
            os.kill(broken.process.pid, signal.SIGUSR1)
            rest = [line for line in lines if line]
        assert '"code":"engine_error"' in rest[-1]
        assert broken.process.wait(SECONDS) == 1
        wait_for(lambda: any("the engine's loop failed" in line for line in broken.lines))
