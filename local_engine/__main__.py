"""The engine's command line, `python -m local_engine COMMAND`; errors are one line and exit status 1."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from local_engine.cli_options import DEFAULT_MODEL, hub_of, model_options, shared_options
from local_engine.errors import EngineError
from local_engine.model_commands import measure_perplexity, prune, quantize
from local_engine.model_files import resolve_model
from local_engine.serve_options import engine_config, serve_options
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
@serve_options
def serve(model: str, served_name: str | None, hub_url: str, weights_dir: Path, **options: Any) -> None:
    """Serve a model behind an OpenAI-compatible API until SIGTERM or Ctrl-C."""
    engine = engine_config(options)
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
