"""`penstock router`: what the difficulty router thinks of prompts; scoring a bad line says so and goes on."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import router_artifacts, router_training
from gateway.commands.router_explain import explain
from gateway.commands.router_labels import labels
from gateway.commands.router_replay import replay
from gateway.errors import StartupError

if TYPE_CHECKING:
    from router_models.router import Router


@click.group(short_help="Score and explain prompts; train, calibrate and measure artifacts.")
def router() -> None:
    """The difficulty router: how probable it is that the economy answer is not good enough."""


_MORE = (
    *(router_training.train, router_training.calibrate, router_training.evaluate),
    *(router_artifacts.artifacts, router_artifacts.assign, router_artifacts.rollback),
)
for _command in _MORE:
    router.add_command(_command)


@router.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object out per line in.")
def score(as_json: bool) -> None:
    """Score prompts from standard input, one JSON object per line: {"prompt": "..."} or {"messages": [...]}.

    A line that cannot be scored gives an `error` in its place, and exit code 1 at the end.
    """
    model = _load()
    model.score_prompt("warm up: the first call pays for what is loaded late")
    wrong = False
    if not as_json:
        click.echo(f"{'difficulty':>10}  {'economy':>8}  {'standard':>8}  {'premium':>8}  prompt")
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        try:
            body = _read(line)
            begun = time.perf_counter()
            result = model.score_messages(body["messages"], tools=body["tools"], json_schema=body["json_schema"])
            elapsed = (time.perf_counter() - begun) * 1e6
        except ValueError as error:
            wrong = True
            _out({"line": number, "error": str(error)}) if as_json else click.echo(f"line {number}: {error}", err=True)
            continue
        if as_json:
            _out(result.as_dict() | {"microseconds": round(elapsed, 1)})
        else:
            shown = [f"{result.quality[tier].p:8.3f}" for tier in ("economy", "standard", "premium")]
            click.echo(f"{result.difficulty:10.3f}  {'  '.join(shown)}  {line.strip()[:80]}")
    sys.exit(1 if wrong else 0)


def _load() -> Router:
    from router_models.errors import ArtifactError
    from router_models.router import Router

    try:
        return Router.load()
    except ArtifactError as error:
        raise StartupError(f"the router's trained artifact cannot be used: {error}") from error


def _read(line: str) -> dict[str, Any]:
    """Messages and what else counts of one line. Raises ValueError saying what is wrong."""
    try:
        body = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(body, dict) or ("prompt" in body) == ("messages" in body):
        raise ValueError('give one JSON object with either "prompt" or "messages"')
    if "prompt" in body and not isinstance(body["prompt"], str):
        raise ValueError(f'"prompt" must be a text, got {body["prompt"]!r:.80}')
    messages = body.get("messages", [{"role": "user", "content": body.get("prompt")}])
    if not isinstance(messages, list):
        raise ValueError(f'"messages" must be a list, got {messages!r:.80}')
    form = body.get("response_format")
    schema = isinstance(form, dict) and form.get("type") == "json_schema"
    return {"messages": messages, "tools": bool(body.get("tools")), "json_schema": schema}


def _out(document: dict[str, Any]) -> None:
    """One line, at once: whoever feeds lines one by one waits for it."""
    print(json.dumps(document), flush=True)


router.add_command(explain)
router.add_command(labels)
router.add_command(replay)
