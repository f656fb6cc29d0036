"""`penstock demo`: a gateway over scripted models asked a dozen questions: what was routed where, and what it cost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gateway.commands.options import json_option, print_json
from gateway.errors import StartupError
from gateway.settings import environment_for_child

KEY = "sk-penstock-demo-key-0123456789"
ADMIN_KEY = "sk-penstock-demo-admin-0123456789"
PRICES = {"economy": (0.05, 0.20), "standard": (0.50, 2.00), "premium": (2.50, 10.00)}
MIN_QUALITY = 0.7
"""Of the best tier's quality. Lower than the default of 0.95, so that a dozen questions reach more than one tier."""
PROMPTS = (
    ("auto", "What is the capital of France?"),
    ("auto", "Say hello in Spanish."),
    ("auto", "Is 17 a prime number? Answer yes or no."),
    ("auto", "Which planet is the largest in the solar system?"),
    ("auto", "A train leaves at 9:40 and arrives at 13:05. How long is the journey?"),
    ("auto", "Ada has 3 times as many marbles as Ben, who has 7 fewer than Cem. Together they have 77. How many has Ben?"),
    ("auto", "Prove that the square root of 2 is irrational, then generalise the proof to every prime."),
    ("auto", "Which of the following is a metalloid? A. Iron B. Silicon C. Neon D. Sodium"),
    ("auto:quick", "Explain quicksort in one sentence."),
    ("auto:deep", "Explain quicksort in one sentence."),
    ("premium", "Name three rivers in Africa."),
    ("small", "Name three rivers in Africa."),
)  # fmt: skip


@click.command(short_help="A gateway over scripted models, asked a dozen questions.")
@json_option
def demo(as_json: bool) -> None:
    """Start a gateway over scripted models, ask it a dozen questions, print where each went and what it cost, and stop.

    Nothing is downloaded and no provider is called; the answers are scripted, the routing and the bill are real.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as name:
        folder = Path(name)
        with _gateway(folder) as address:
            asked = _ask(address)
        # A gateway that has stopped has delivered what it metered; one that runs may still be about to.
        usage = _command(folder, "usage", "--group-by", "tier,model")
        books = _command(folder, "ledger", "verify")
    if as_json:
        print_json({"requests": asked, "usage": usage, "ledger": books})
    else:
        _print(asked, books)


def _config() -> dict[str, Any]:
    names = {"economy": "small", "standard": "medium", "premium": "large"}
    reply = (
        "This is the scripted answer of the {} model; what matters here is where the question went and what it cost."
    )
    models = [
        {
            "name": names[tier],
            "tier": tier,
            "provider": "scripted",
            "script": {"reply": reply.format(names[tier])},
            "price": {"input": per_input, "output": per_output},
        }
        for tier, (per_input, per_output) in PRICES.items()
    ]
    policies = {"default": {"min_quality": MIN_QUALITY}}
    return {"models": models, "keys": [{"key": KEY, "name": "demo"}], "policies": policies}


def _environment(folder: Path) -> dict[str, str]:
    return environment_for_child(
        PENSTOCK_CONFIG=str(folder / "penstock.yaml"),
        PENSTOCK_DATA_DIR=str(folder / "data"),
        PENSTOCK_ADMIN_KEY=ADMIN_KEY,
        PENSTOCK_HOST="127.0.0.1",
        PENSTOCK_PORT="0",
        PENSTOCK_WORKERS="1",
        PENSTOCK_LOG_LEVEL="warning",
        DATABASE_URL="",
        REDIS_URL="",
    )


@contextmanager
def _gateway(folder: Path) -> Iterator[str]:
    """A running `penstock serve`; gives its base URL. Its log is shown only when it fails to start."""
    (folder / "penstock.yaml").write_text(json.dumps(_config()), encoding="utf-8")
    log = folder / "gateway.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve"],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        if not ready:
            raise StartupError(f"the gateway of the demo did not start:\n{log.read_text(errors='replace')}")
        yield ready.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def _ask(base_url: str) -> list[dict[str, Any]]:
    import httpx

    asked = []
    with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False) as client:
        for model, prompt in PROMPTS:
            body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
            reply = client.post(f"{base_url}/chat/completions", json=body)
            if reply.status_code != 200:
                raise StartupError(f"the gateway answered {reply.status_code} to {prompt!r}: {reply.text}")
            said = {
                name: reply.headers.get(f"x-penstock-{name}") for name in ("tier", "model", "difficulty", "cost-usd")
            }
            asked.append({"asked": model, "prompt": prompt, **said, "tokens": reply.json()["usage"]["total_tokens"]})
    return asked


def _command(folder: Path, *arguments: str) -> Any:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "gateway", *arguments, "--json"],
        env=_environment(folder),
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    return json.loads(done.stdout)


def _print(asked: Sequence[dict[str, Any]], books: dict[str, Any]) -> None:
    from decimal import Decimal

    from gateway.commands.table import print_table

    columns = ("asked", "difficulty", "tier", "model", "tokens", "cost-usd", "prompt")
    rows = [
        [str(request[column] if request[column] is not None else "-")[:60] for column in columns] for request in asked
    ]
    print_table(columns, rows, right={"difficulty", "tokens", "cost-usd"})
    total = sum(Decimal(request["cost-usd"]) for request in asked)
    click.echo(
        f"\n{len(asked)} requests, {total} USD. Usage, rated lines and ledger agree: {'yes' if books['ok'] else 'NO'}."
    )
    click.echo("The answers were scripted. `penstock up` serves a real model.")
