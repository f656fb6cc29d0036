"""The engine's command line, `python -m local_engine COMMAND`; errors are one line and exit status 1."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click

from local_engine.cli_options import DEFAULT_MODEL, hub_of, model_options, shared_options
from local_engine.config import EngineConfig, KvDtype, Speculate
from local_engine.energy_sources import CORE_WATTS, GPU_WATTS, WORLD_GRAMS_PER_KWH, EnergySource
from local_engine.errors import EngineError
from local_engine.model_commands import measure_perplexity, prune, quantize
from local_engine.model_files import resolve_model
from local_engine.stopping import stop_early
from local_engine.training.command import train_drafter

# A thread that waits for its partners should sleep: spinning starves them as soon as the machine is shared, and one
# step then takes scheduler quanta instead of microseconds. Read by the OpenMP runtime when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.group()
def main() -> None:
    """The bundled inference engine of Penstock."""


@main.command()
@model_options
@shared_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8100, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--served-name", default=None, help="Name clients use as `model`.  [default: the value of --model]")
@click.option(
    "--api-key",
    envvar="PENSTOCK_ENGINE_API_KEY",
    default=None,
    help="Key clients must send (environment: PENSTOCK_ENGINE_API_KEY).  [default: none needed]",
)
@click.option(
    "--max-batch", type=click.IntRange(min=1), default=8, show_default=True, help="Requests that run at once."
)
@click.option(
    "--max-context",
    type=click.IntRange(min=2),
    default=8192,
    show_default=True,
    help="Tokens of prompt and answer together; never more than the model was made for.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="Requests that may wait; further ones get 429.",
)
@click.option(
    "--step-tokens",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Tokens computed per step; longer prompts are computed in several steps.",
)
@click.option(
    "--default-max-tokens",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Length of a chat answer whose request names none.",
)
@click.option(
    "--cache-tokens",
    type=click.IntRange(min=1),
    default=None,
    help="Tokens the cache holds.  [default: --max-batch full contexts, at most a share of the free memory]",
)
@click.option("--cache-mib", type=click.IntRange(min=1), default=None, help="The cache's size in MiB instead.")
@click.option(
    "--kv-dtype",
    type=click.Choice(get_args(KvDtype)),
    default="auto",
    show_default=True,
    help="Number format of the cache: auto is that of --dtype, the others take half the memory.",
)
@click.option(
    "--prefix-sharing/--no-prefix-sharing",
    default=True,
    show_default=True,
    help="Whether prompts that begin alike are computed once.",
)
@click.option(
    "--speculate",
    type=click.Choice(get_args(Speculate)),
    default="auto",
    show_default=True,
    help="Who drafts tokens ahead for the model to check; auto takes what there is for the model.",
)
@click.option(
    "--draft-model",
    type=click.Path(path_type=Path),
    default=None,
    help="For --speculate draft a smaller model of the same vocabulary, for head a drafter trained for the model.",
)
@click.option(
    "--max-drafts",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Tokens drafted per answer and step at most; how many it really are is decided by what they bring.",
)
@click.option(
    "--energy",
    type=click.Choice(get_args(EnergySource)),
    envvar="PENSTOCK_ENGINE_ENERGY",
    default="auto",
    show_default=True,
    help="Where joules come from; auto: NVML on a GPU, else RAPL where readable, else an estimate.",
)
@click.option(
    "--core-watts",
    type=click.FloatRange(min=0),
    envvar="PENSTOCK_ENGINE_CORE_WATTS",
    default=CORE_WATTS,
    show_default=True,
    help="Of a busy virtual core, for the estimate.",
)
@click.option(
    "--gpu-watts",
    type=click.FloatRange(min=0),
    envvar="PENSTOCK_ENGINE_GPU_WATTS",
    default=GPU_WATTS,
    show_default=True,
    help="Of a busy GPU, for the estimate.",
)
@click.option(
    "--grams-per-kwh",
    type=click.FloatRange(min=0),
    envvar="PENSTOCK_ENGINE_GRAMS_PER_KWH",
    default=WORLD_GRAMS_PER_KWH,
    show_default=True,
    help="CO2 equivalent of the electricity; the default is the world's average of 2024.",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(min=1),
    default=4 * 1024 * 1024,
    show_default=True,
    help="Largest request body; a larger one gets 413.",
)
@click.option(
    "--drain-seconds",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="How long SIGTERM or Ctrl-C waits for open answers.",
)
def serve(model: str, served_name: str | None, hub_url: str, weights_dir: Path, **options: Any) -> None:
    """Serve a model behind an OpenAI-compatible API until SIGTERM or Ctrl-C."""
    try:
        engine = EngineConfig(
            **{each.name: options.pop(each.name) for each in fields(EngineConfig) if each.name in options}
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    stop_early()
    from local_engine.process import ServeOptions, run_server  # imports torch: not needed to print --help

    raise SystemExit(
        run_server(
            ServeOptions(
                model=model,
                served_name=served_name or model,
                hub=hub_of(hub_url),
                weights_dir=weights_dir.expanduser(),
                engine=engine,
                **options,
            )
        )
    )


@main.command()
@click.argument("name", default=DEFAULT_MODEL)
@shared_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: name, path, source.")
def fetch(name: str, weights_dir: Path, hub_url: str, as_json: bool) -> None:
    """Make a model's files available on this machine and print where they are."""
    try:
        files = resolve_model(name, weights_dir.expanduser(), hub_of(hub_url))
    except EngineError as error:
        raise click.ClickException(error.message) from error
    document = {"name": files.name, "path": str(files.path), "source": files.source}
    click.echo(json.dumps(document) if as_json else document["path"])


@main.command()
@model_options
@shared_options
@click.option("--tokens", type=click.IntRange(min=2), default=128, show_default=True, help="Tokens decoded per stream.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Tokens prefilled.")
@click.option(
    "--streams",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 8),
    show_default=True,
    help="Numbers of streams to decode together; repeat the option.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Runs per figure; the median is reported.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def bench(model: str, weights_dir: Path, hub_url: str, as_json: bool, **options: Any) -> None:
    """Measure decode and prefill speed."""
    from local_engine.bench import run_bench  # imports torch

    try:
        files = resolve_model(model, weights_dir.expanduser(), hub_of(hub_url))
        report = run_bench(files.path, **options)
    except EngineError as error:
        raise click.ClickException(error.message) from error
    click.echo(json.dumps({"model": model, **report.as_dict()}) if as_json else report.as_table())


for command in (quantize, prune, measure_perplexity, train_drafter):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m local_engine")
