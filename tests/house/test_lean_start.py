"""The gateway starts without what is heavy: torch and its like are slow to import and large in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.source import ROOT

HEAVY = (
    "torch",
    "transformers",
    "litellm",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "tokenizers",
    "obstore",
    "local_engine",
)

BUILD_THE_GATEWAY = """
from pathlib import Path
from gateway.app import create_app
from gateway.catalog import build_catalog
from gateway.config import check_config
from gateway.settings import read_settings
from router_models.router import Router

model = {"name": "m", "tier": "economy", "provider": "openai", "base_url": "http://127.0.0.1:9/v1"}
config = check_config({"models": [model | {"price": {"input": 1, "output": 1}}]}, "test")
create_app(read_settings({}), build_catalog(config, "test"))
Router.load().score_messages([{"role": "user", "content": "What is the capital of France?"}])
"""

SHOW_EVERY_COMMAND = """
import click
from gateway.cli import penstock

def walk(command):
    for name in command.list_commands(click.Context(command)) if isinstance(command, click.Group) else ():
        walk(command.get_command(click.Context(command), name))

walk(penstock)
"""


def loaded(program: str) -> set[str]:
    """The top-level modules in memory after a program has run in an interpreter of its own."""
    report = "\nimport sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", program + report], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize("program", [BUILD_THE_GATEWAY, SHOW_EVERY_COMMAND], ids=["the gateway", "the command line"])
def test_what_is_heavy_is_not_in_memory(program: str) -> None:
    heavy = loaded(program) & set(HEAVY)
    assert not heavy, f"these must be imported where they are needed, inside a function, or not at all: {sorted(heavy)}"


def test_the_command_line_does_not_load_the_gateway_to_show_its_help() -> None:
    assert not loaded(SHOW_EVERY_COMMAND) & {"fastapi", "sqlalchemy", "aiohttp", "uvicorn", "numpy"}
