"""The options of `serve`, on one machine and as replicas on a cluster; nothing here imports torch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click

from local_engine.cli_options import Command
from local_engine.config import EngineConfig, KvDtype, Speculate
from local_engine.energy_sources import CORE_WATTS, GPU_WATTS, WORLD_GRAMS_PER_KWH, EnergySource

_OPTIONS = (
    click.option("--served-name", default=None, help="Name clients use as `model`.  [default: the value of --model]"),
    click.option(
        "--api-key",
        envvar="PENSTOCK_ENGINE_API_KEY",
        default=None,
        help="Key clients must send (environment: PENSTOCK_ENGINE_API_KEY).  [default: none needed]",
    ),
    click.option(
        "--max-batch", type=click.IntRange(min=1), default=8, show_default=True, help="Requests that run at once."
    ),
    click.option(
        "--max-context",
        type=click.IntRange(min=2),
        default=8192,
        show_default=True,
        help="Tokens of prompt and answer together; never more than the model was made for.",
    ),
    click.option(
        "--max-queue",
        type=click.IntRange(min=0),
        default=64,
        show_default=True,
        help="Requests that may wait; further ones get 429.",
    ),
    click.option(
        "--step-tokens",
        type=click.IntRange(min=1),
        default=512,
        show_default=True,
        help="Tokens computed per step; longer prompts are computed in several steps.",
    ),
    click.option(
        "--default-max-tokens",
        type=click.IntRange(min=1),
        default=1024,
        show_default=True,
        help="Length of a chat answer whose request names none.",
    ),
    click.option(
        "--cache-tokens",
        type=click.IntRange(min=1),
        default=None,
        help="Tokens the cache holds.  [default: --max-batch full contexts, at most a share of the free memory]",
    ),
    click.option("--cache-mib", type=click.IntRange(min=1), default=None, help="The cache's size in MiB instead."),
    click.option(
        "--kv-dtype",
        type=click.Choice(get_args(KvDtype)),
        default="auto",
        show_default=True,
        help="Number format of the cache: auto is that of --dtype, the others take half the memory.",
    ),
    click.option(
        "--prefix-sharing/--no-prefix-sharing",
        default=True,
        show_default=True,
        help="Whether prompts that begin alike are computed once.",
    ),
    click.option(
        "--speculate",
        type=click.Choice(get_args(Speculate)),
        default="auto",
        show_default=True,
        help="Who drafts tokens ahead for the model to check; auto takes what there is for the model.",
    ),
    click.option(
        "--draft-model",
        type=click.Path(path_type=Path),
        default=None,
        help="For --speculate draft a smaller model of the same vocabulary, for head a drafter trained for the model.",
    ),
    click.option(
        "--max-drafts",
        type=click.IntRange(min=1),
        default=7,
        show_default=True,
        help="Tokens drafted per answer and step at most; how many it really are is decided by what they bring.",
    ),
    click.option(
        "--energy",
        type=click.Choice(get_args(EnergySource)),
        envvar="PENSTOCK_ENGINE_ENERGY",
        default="auto",
        show_default=True,
        help="Where joules come from; auto: NVML on a GPU, else RAPL where readable, else an estimate.",
    ),
    click.option(
        "--core-watts",
        type=click.FloatRange(min=0),
        envvar="PENSTOCK_ENGINE_CORE_WATTS",
        default=CORE_WATTS,
        show_default=True,
        help="Of a busy virtual core, for the estimate.",
    ),
    click.option(
        "--gpu-watts",
        type=click.FloatRange(min=0),
        envvar="PENSTOCK_ENGINE_GPU_WATTS",
        default=GPU_WATTS,
        show_default=True,
        help="Of a busy GPU, for the estimate.",
    ),
    click.option(
        "--grams-per-kwh",
        type=click.FloatRange(min=0),
        envvar="PENSTOCK_ENGINE_GRAMS_PER_KWH",
        default=WORLD_GRAMS_PER_KWH,
        show_default=True,
        help="CO2 equivalent of the electricity; the default is the world's average of 2024.",
    ),
    click.option(
        "--max-body-bytes",
        type=click.IntRange(min=1),
        default=4 * 1024 * 1024,
        show_default=True,
        help="Largest request body; a larger one gets 413.",
    ),
    click.option(
        "--drain-seconds",
        type=click.IntRange(min=0),
        default=30,
        show_default=True,
        help="How long SIGTERM or Ctrl-C waits for open answers.",
    ),
)


def serve_options(command: Command) -> Command:
    """What every command that serves a model takes beside `model_options`, `shared_options` and where it listens."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def engine_config(options: dict[str, Any]) -> EngineConfig:
    """Takes out of a command's options what the engine is run by. Raises UsageError where they do not go together."""
    try:
        return EngineConfig(
            **{each.name: options.pop(each.name) for each in fields(EngineConfig) if each.name in options}
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
