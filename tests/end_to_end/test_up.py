"""`penstock up` with the real engine and SmolLM2: from nothing to an answer, through a killed engine, to a clean stop."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from tests.gateway.commands.processes import Running, Start, gone, penstock, starting

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the engine extra")
QUESTION = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture
def start() -> Iterator[Start]:
    with starting() as start:
        yield start


@dataclass
class Up:
    """A running `penstock up` and what it printed."""

    running: Running
    base_url: str
    key: str

    def ask(self, **more: object) -> str:
        """The answer to the question; the official client repeats while the engine is being started again."""
        client = openai.OpenAI(base_url=self.base_url, api_key=self.key, max_retries=8, timeout=60)
        answer = client.chat.completions.create(
            model="auto",
            messages=[QUESTION],
            max_tokens=30,
            temperature=0,
            **more,  # type: ignore[call-overload]
        )
        return str(answer.choices[0].message.content)

    def children(self) -> dict[int, str]:
        """Process id and command line of its children."""
        rows = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.running.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        return {int(row.split()[0]): row for row in rows}

    def child(self, words: str) -> int:
        """The one child with these words in its command line."""
        (pid,) = [pid for pid, line in self.children().items() if words in line]
        return pid


def up(start: Start, data: Path, *options: str, **environment: str) -> Up:
    """Start on a free port and wait for the panel."""
    given = {"PENSTOCK_DATA_DIR": str(data), "PENSTOCK_PORT": "0", **environment}
    running = start("-m", "gateway", "up", *options, environment=given)
    running.wait_for("Penstock is ready", 180)
    base_url = running.wait_for("Base URL").split()[-1]
    key = running.wait_for("Key ").split()[1]
    running.wait_for("Ctrl-C stops everything.")
    return Up(running, base_url, key)


def refused(data: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Exit code and message of an `up` that cannot start; fails when it says more or less than that."""
    done = penstock("up", *options, environment={"PENSTOCK_DATA_DIR": str(data), "PENSTOCK_PORT": "0", **environment})
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_from_nothing_to_a_billed_answer_and_a_clean_stop(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = up(start, data)
    assert "Paris" in first.ask()
    os.killpg(first.running.process.pid, signal.SIGINT)
    children = list(first.children())
    assert first.running.finish(60) == 0
    assert gone(children)
    environment = {"PENSTOCK_DATA_DIR": str(data)}
    usage = json.loads(penstock("usage", "--group-by", "model", "--json", environment=environment).stdout)
    (row,) = usage["rows"]
    assert (row["model"], row["requests"]) == ("smollm2", 1)
    assert row["output_tokens"] > 0
    books = penstock("ledger", "verify", "--json", environment=environment)
    assert books.returncode == 0, books.stdout
    assert json.loads(books.stdout)["undelivered_records"] == 0
    second = up(start, data)
    assert second.key == first.key
    second.running.send(signal.SIGTERM)
    assert second.running.finish(60) == 0


def test_a_killed_engine_and_a_killed_gateway_come_back_and_answer(start: Start, tmp_path: Path) -> None:
    running = up(start, tmp_path / "data")
    os.kill(running.child("local_engine serve"), signal.SIGKILL)
    running.running.wait_for("engine ended with SIGKILL; starting it again")
    running.running.wait_for("engine  | serving smollm2")
    assert "Paris" in running.ask()
    os.kill(running.child("gateway worker"), signal.SIGKILL)
    assert "Paris" in running.ask()
    running.running.send(signal.SIGTERM)
    assert running.running.finish(60) == 0


def test_when_up_itself_is_killed_nothing_goes_on_running(start: Start, tmp_path: Path) -> None:
    running = up(start, tmp_path / "data")
    children = list(running.children())
    assert len(children) >= 4  # engine, gateway, deliverer, guardian
    running.running.send(signal.SIGKILL)
    assert gone(children)
    again = up(start, tmp_path / "data", PENSTOCK_PORT=running.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
    again.running.send(signal.SIGTERM)
    assert again.running.finish(60) == 0


def test_the_keys_are_kept_where_only_their_owner_reads_them_and_a_revoked_one_is_replaced(
    start: Start, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    first = up(start, data)
    first.running.send(signal.SIGTERM)
    assert first.running.finish(60) == 0
    assert (data / "first-key").read_text().strip() == first.key
    assert {(data / name).stat().st_mode & 0o777 for name in ("first-key", "admin-key")} == {0o600}
    assert penstock("keys", "revoke", "first-key", environment={"PENSTOCK_DATA_DIR": str(data)}).returncode == 0
    second = up(start, data)
    assert second.key != first.key
    with pytest.raises(openai.AuthenticationError):
        Up(second.running, second.base_url, first.key).ask()
    second.running.send(signal.SIGTERM)
    assert second.running.finish(60) == 0


def test_with_an_openai_key_there_is_a_premium_tier_and_no_secret_in_the_output(start: Start, tmp_path: Path) -> None:
    secret = "sk-a-provider-secret-0123456789"
    running = up(
        *(start, tmp_path / "data", "--no-engine"), OPENAI_API_KEY=secret, OPENAI_BASE_URL="http://127.0.0.1:9/v1"
    )
    models = {model.id for model in openai.OpenAI(base_url=running.base_url, api_key=running.key).models.list()}
    assert "gpt-4o" in models
    assert "smollm2" not in models
    running.running.send(signal.SIGTERM)
    assert running.running.finish(60) == 0
    assert secret not in "\n".join(running.running.lines)
    assert secret not in (tmp_path / "data" / "built-in.yaml").read_text()


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = refused(tmp_path / "data", "--port", str(port))
    assert code == 1
    assert re.fullmatch(rf"penstock: port {port} on 127.0.0.1 is in use .*\n", said)
    assert not (tmp_path / "data" / "penstock.db").exists()


def test_a_data_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        code, said = refused(place)
        assert code == 1
        assert said.startswith(f"penstock: the data directory {str(place)!r} cannot be written")


def test_a_second_up_in_the_same_folder_is_refused(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text("models: [{name: echo, tier: economy, provider: scripted, price: {input: 1, output: 1}}]")
    running = up(start, tmp_path / "data", "--config", str(config))
    code, said = refused(tmp_path / "data")
    assert code == 1
    assert f"in use by another Penstock (process {running.running.process.pid})" in said
    running.running.send(signal.SIGTERM)
    assert running.running.finish(60) == 0


def test_a_wrong_configuration_is_named_with_the_nearest_right_key(tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text("models:\n  - {nmae: a, tier: economy, provider: scripted, price: {input: 1, output: 1}}\n")
    code, said = refused(tmp_path / "data", "--config", str(config))
    assert code == 2
    assert "unknown key 'models.0.nmae'; did you mean 'name'?" in said


def test_missing_weights_are_refused_with_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(
        "models: [{name: a, tier: economy, engine: bundled, weights: no-such-model, price: {input: 1, output: 1}}]"
    )
    code, said = refused(tmp_path / "data", "--config", str(config))
    assert code == 1
    assert "the weights 'no-such-model' of the bundled engine" in said
    assert not (tmp_path / "data" / "penstock.db").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_download_ends_with_the_up_that_wanted_it(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(
        "models: [{name: a, tier: economy, engine: bundled, weights: an/id, price: {input: 1, output: 1}}]"
    )
    with socket.socket() as silent_hub:
        silent_hub.bind(("127.0.0.1", 0))
        silent_hub.listen()
        silent_hub.settimeout(60)
        environment = {"PENSTOCK_DATA_DIR": str(tmp_path / "data"), "PENSTOCK_PORT": "0"}
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{silent_hub.getsockname()[1]}"
        running = start("-m", "gateway", "up", "--config", str(config), environment=environment)
        connection, _ = silent_hub.accept()
        with connection:
            children = list(Up(running, "", "").children())
            assert len(children) == 2  # the download and its guardian
            running.send(number)
            assert running.finish(30) != 0
            assert gone(children)


def test_weights_that_are_damaged_end_the_start_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and then nothing")
    config = tmp_path / "penstock.yaml"
    model = {"name": "a", "tier": "economy", "engine": "bundled", "weights": str(tmp_path / "broken.gguf")}
    config.write_text(json.dumps({"models": [{**model, "price": {"input": 1, "output": 1}}]}))
    code, said = refused(tmp_path / "data", "--config", str(config))
    assert code == 1
    assert "broken.gguf" in said
    assert "engine ended with exit code 1 while it was starting" in said


def test_a_database_from_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    from tests.gateway.commands.test_migrate import make_newer

    environment = {"PENSTOCK_DATA_DIR": str(tmp_path / "data")}
    assert penstock("migrate", environment=environment).returncode == 0
    make_newer(tmp_path / "data" / "penstock.db")
    code, said = refused(tmp_path / "data")
    assert code == 1
    assert "made by a newer Penstock" in said


def test_nothing_to_serve_is_refused(tmp_path: Path) -> None:
    code, said = refused(tmp_path / "data", "--no-engine")
    assert code == 2
    assert "there is nothing to serve" in said
