"""`penstock engine`: hands over to `python -m local_engine`, which is a program of its own."""

from __future__ import annotations

import os
import sys

import click

PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(short_help="The bundled engine: serve, fetch, bench, quantize, prune, perplexity, train-drafter.")
def engine() -> None:
    """The bundled engine. Everything after the command is passed to `python -m local_engine`."""


@engine.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Serve a model: --model NAME_OR_PATH --port N."""
    _hand_over("serve", arguments)


@engine.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def fetch(arguments: tuple[str, ...]) -> None:
    """Bring weights to this machine: NAME --weights-dir DIR."""
    _hand_over("fetch", arguments)


@engine.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure decode and prefill: --model NAME_OR_PATH --json."""
    _hand_over("bench", arguments)


@engine.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def quantize(arguments: tuple[str, ...]) -> None:
    """Write a model with quantised weights: MODEL --to int8|int4|fp8 --out DIR."""
    _hand_over("quantize", arguments)


@engine.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def prune(arguments: tuple[str, ...]) -> None:
    """Write a model without its least influential layers: MODEL --text FILE --layers N --out DIR."""
    _hand_over("prune", arguments)


@engine.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def perplexity(arguments: tuple[str, ...]) -> None:
    """Measure how well a model predicts a text: MODEL --text FILE."""
    _hand_over("perplexity", arguments)


@engine.command("train-drafter", context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train_drafter(arguments: tuple[str, ...]) -> None:
    """Distil a drafter for speculation from a model's own answers: MODEL --invent N --out FILE."""
    _hand_over("train-drafter", arguments)


def _hand_over(command: str, arguments: tuple[str, ...]) -> None:
    """Become the engine: same process id, signals and exit code."""
    from gateway.commands.engine_process import check_engine_installed

    check_engine_installed()
    os.execv(sys.executable, [sys.executable, "-m", "local_engine", command, *arguments])  # noqa: S606
