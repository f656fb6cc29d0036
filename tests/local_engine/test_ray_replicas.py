"""A local Ray with two replicas behind a gateway: one is killed, answers go on, and Ray brings it back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.local_engine.serve_process import serving
from tests.local_engine.test_docs import first_column, section
from tests.running import KEY, free_port, gateway

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra `distributed` (ray[serve])")
STARTING = 300  # seconds
RAYS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""Ray warns of itself when it is imported into this process."""


def replica_process(name: str) -> int | None:
    """The actor of Ray that runs a replica: processes of Ray bear their actor's name."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::ServeReplica") and name in title:
            return int(folder.name)
    return None


def two_free_ports() -> int:
    """The first of two that follow each other."""
    while True:
        first = free_port()
        with socket.socket() as other, contextlib.suppress(OSError):
            other.bind(("127.0.0.1", first + 1))
            return first


def healthy(url: str) -> bool:
    try:
        return httpx.get(url.removesuffix("/v1") + "/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@RAYS_OWN
def test_replicas_take_the_options_of_serve_with_their_defaults() -> None:
    from deploy.ray_engine import main as ray_engine
    from local_engine.__main__ import main as engine

    ours, theirs = (
        {max(each.opts, key=len): each for each in command.params} for command in (ray_engine, engine.commands["serve"])
    )
    for option, parameter in theirs.items():
        if option not in ("--host", "--port"):
            assert ours[option].to_info_dict() == parameter.to_info_dict()
    own = set(ours) - set(theirs) | {"--host", "--port"}
    assert set(first_column(section("python -m deploy.ray_engine"))) == own


@RAYS_OWN
def test_a_replica_speculates_by_itself_as_serve_does(tiny_gguf: Path) -> None:
    """The replica's class needs no cluster: Ray only makes it and asks how it is."""
    from deploy.ray_engine import EngineReplica, main, replica_options

    port = free_port()
    chosen = main.make_context("ray_engine", ["--model", str(tiny_gguf), "--max-context", "128"]).params
    for own in ("replicas", "name", "address", "host", "port", "cpus", "gpus"):
        chosen.pop(own)
    replica = EngineReplica(replica_options(**chosen), "127.0.0.1", port)
    try:
        replica.check_health()
        assert healthy(f"http://127.0.0.1:{port}/v1")
        assert replica._loop.engine.speculator is not None
        assert replica._loop.engine.config.max_context == 128
    finally:
        replica.__del__()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a cluster starts within half a minute, on a busy machine within several
def test_a_killed_replica_is_passed_over_and_comes_back(tiny_gguf: Path, tmp_path: Path) -> None:
    name, port = f"r{uuid.uuid4().hex[:8]}", two_free_ports()
    arguments = ("--model", str(tiny_gguf), "--served-name", "tiny", "--name", name, "--port", str(port),
                 "--cpus", "0.5", "--dtype", "float32")  # fmt: skip
    with serving(*arguments, program=(sys.executable, "-m", "deploy.ray_engine")) as cluster:
        cluster.wait_until_serving()
        urls = [f"http://127.0.0.1:{port + number}/v1" for number in range(2)]
        end = time.monotonic() + STARTING
        while not all(map(healthy, urls)):
            assert time.monotonic() < end, "".join(cluster.lines)
            time.sleep(0.2)
        price: Any = {"input": 1, "output": 1}
        models = [{"name": "tiny", "tier": "economy", "engine": urls, "price": price, "retries": {"max": 0}}]
        with gateway(tmp_path / "gateway", {"models": models, "keys": [{"key": KEY, "name": "test"}]}) as front:
            client = openai.OpenAI(base_url=front.base_url, api_key=KEY, max_retries=0, timeout=30)
            with client:
                for number in range(8):
                    ask(client, number)
                killed = replica_process(f"{name}-0")
                assert killed is not None, "a replica is a process"
                os.kill(killed, signal.SIGKILL)
                for number in range(16):
                    ask(client, number)
        end = time.monotonic() + STARTING
        while not healthy(urls[0]):
            assert time.monotonic() < end, "Ray has not started the replica again"
            time.sleep(0.5)
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.process.wait(60) == 0


def ask(client: openai.OpenAI, number: int) -> None:
    """Plain and streamed by turns; each must be answered whole."""
    asked: Any = {"model": "tiny", "messages": [{"role": "user", "content": f"Turbine {number}?"}], "max_tokens": 4}
    if number % 2:
        assert client.chat.completions.create(**asked).usage.completion_tokens > 0
        return
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)
