"""`python -m local_engine train-drafter`: errors are one line and exit status 1; torch is imported when it runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from local_engine import progress
from local_engine.cli_options import device_options, hub_of, shared_options
from local_engine.config import DeviceName, Dtype
from local_engine.errors import EngineError
from local_engine.model_files import resolve_model


@click.command("train-drafter")
@click.argument("model")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="File of prompts: one per line, or .jsonl with messages, turns, prompt, question or text; repeatable.",
)
@click.option(
    "--invent",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Prompts the model makes up itself, beside those of --prompts or without any.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write the drafter to (.safetensors).",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for answers and checkpoints; a later run goes on from it.  [default: OUT.work]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="About how long the whole may take.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=None,
    help="Training steps, for a result that can be repeated.  [default: what fits into --minutes]",
)
@click.option(
    "--vocabulary",
    type=click.IntRange(min=2),
    default=4096,
    show_default=True,
    help="Tokens the drafter can say: the most frequent ones of the answers.",
)
@click.option(
    "--width", type=click.IntRange(min=1), default=1024, show_default=True, help="Width of the drafter's gated layer."
)
@click.option(
    "--taps",
    type=click.IntRange(min=0),
    multiple=True,
    help="Layer whose stream the drafter reads; repeatable, the last one must be there.  [default: the last]",
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(min=8),
    default=160,
    show_default=True,
    help="Longest answer that is collected.",
)
@click.option("--lanes", type=click.IntRange(min=1), default=96, show_default=True, help="Prompts answered at once.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order, the draws and the first weights.")
@device_options
@shared_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a few lines.")
def train_drafter(
    model: str, prompts: tuple[Path, ...], invent: int, out: Path, work: Path | None, minutes: float, steps: int | None,
    vocabulary: int, width: int, taps: tuple[int, ...], answer_tokens: int, lanes: int, seed: int, dtype: Dtype,
    device: DeviceName, threads: int, weights_dir: Path, hub_url: str, as_json: bool,
) -> None:  # fmt: skip
    """Distil a drafter for MODEL from its own answers: speculation then drafts with it."""
    if not prompts and not invent:
        raise click.UsageError("give --prompts FILE, or --invent N for prompts the model makes up itself")
    import torch

    from local_engine.training.distil import DistilPlan, distil

    if threads:
        torch.set_num_threads(threads)
    plan = DistilPlan(
        minutes,
        vocabulary=vocabulary,
        width=width,
        taps=tuple(sorted(taps)) or None,
        invented=invent,
        answer_tokens=answer_tokens,
        lanes=lanes,
        steps=steps,
        seed=seed,
    )
    try:
        files = resolve_model(model, weights_dir.expanduser(), hub_of(hub_url))
        with progress.bar("Training a drafter") as show:
            result = distil(
                files.path,
                prompts,
                out,
                plan,
                dtype=dtype,
                device=device,
                work=work,
                stage=lambda _, done, total: show(done, total),
            )
    except EngineError as error:
        raise click.ClickException(error.message) from error
    values = result.as_dict()
    click.echo(json.dumps(values) if as_json else "\n".join(f"{key}: {value}" for key, value in values.items()))
