"""`penstock router train|calibrate|evaluate`: make an artifact, fit one to labels of one's own, measure one; all of it offline.

Whatever is missing, a library, a table or enough labels, is said in one sentence, and then nothing is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import json_option, print_json
from gateway.commands.router_log import log_options, logged_answers
from gateway.errors import ConfigError, StartupError

if TYPE_CHECKING:
    from router_models.labelled import LabelledAnswer
    from router_models.tiers import Tier

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
LABELS_HELP = 'JSON lines: {"prompt" or "messages", "tier", "score" 0..1}, if known "model" and "output_tokens".'


@click.command(short_help="Train an artifact.")
@click.option("--data", type=FOLDER, metavar="DIR", help="Folder of the tables in docs/routing.md (parquet).")
@click.option("--labels", type=FILE, metavar="FILE", help=LABELS_HELP)
@log_options
@click.option("--out", type=FILE, required=True, metavar="FILE", help="Artifact to write.")
@click.option("--seed", default=0, show_default=True, metavar="N", help="Draws landmarks and folds.")
@json_option
def train(
    data: Path | None,
    labels: Path | None,
    from_log: bool,
    policy: str | None,
    since: datetime | None,
    until: datetime | None,
    config: Path | None,
    data_dir: Path | None,
    out: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Train an artifact on recorded outcomes: tables, labels of one's own, or both together.

    Needs the extra `train`. One's own labels alone are rarely enough: see docs/routing.md.
    """
    if data is None and labels is None and not from_log:
        raise ConfigError("train needs outcomes to learn from: give --data DIR, --labels FILE or --from-log")
    _can_write(out)
    with _explained():
        from router_models.training.data import read_source, together, with_recorded
        from router_models.training.traffic import left_out, traffic_source
        from router_models.training.train import train as train_artifact

        answers = _answers(labels, from_log, policy, since, until, config, data_dir)
        sources = [] if data is None else with_recorded(read_source(data))
        if labels is not None or from_log:
            sources.append(traffic_source(answers))
        tables = together(sources)
        repeats = left_out(tables)
        trained = train_artifact(tables, out, seed)
    document = {
        "artifact": trained.version,
        "file": str(out),
        "own_labels": len(answers),
        "own_prompts_left_out": repeats,
        "card": trained.card,
    }
    if as_json:
        click.echo(json.dumps(document))
        return
    sample = trained.card["calibration_sample"]
    click.echo(f"wrote {trained.version} to {str(out)!r}")
    click.echo(
        f"  {trained.card['prompts']} prompts, {trained.card['outcomes']} outcomes, {len(answers)} labels of your own"
    )
    if repeats:
        click.echo(f"  {repeats} prompts of your own were left out: they repeat prompts that the tables keep for tests")
    click.echo(
        f"  {sample['prompts']} further prompts test promises, {sample['labelled_in_all']} of them labelled in all tiers"
    )


@click.command(short_help="Fit an artifact to labels of your own.")
@click.option("--artifact", type=FILE, metavar="FILE", help="Artifact to start from. [default: the bundled one]")
@click.option("--labels", type=FILE, metavar="FILE", help=LABELS_HELP)
@log_options
@click.option("--out", type=FILE, required=True, metavar="FILE", help="Artifact to write.")
@click.option(
    "--seed", default=0, show_default=True, metavar="N", help="Draws what is fitted on and what tests promises."
)
@click.option(
    "--tier",
    "tiers",
    multiple=True,
    type=click.Choice(("economy", "standard", "premium")),
    help="A tier that promises are made for; may be repeated. [default: all three]",
)
@json_option
def calibrate(
    artifact: Path | None,
    labels: Path | None,
    from_log: bool,
    policy: str | None,
    since: datetime | None,
    until: datetime | None,
    config: Path | None,
    data_dir: Path | None,
    out: Path,
    seed: int,
    tiers: tuple[Tier, ...],
    as_json: bool,
) -> None:
    """Write an artifact whose curves and calibration sample are those of labels of one's own.

    50 labelled prompts correct the level of the predictions; 100 that are labelled in every tier also give promises of
    one's own.
    """
    if labels is None and not from_log:
        raise ConfigError("calibrate needs labels: give --labels FILE or --from-log")
    _can_write(out)
    with _explained():
        from router_models.labelled import gather
        from router_models.recalibrate import recalibrate
        from router_models.router import Router
        from router_models.tiers import TIERS

        start = Router.load(artifact)
        answers = _answers(labels, from_log, policy, since, until, config, data_dir)
        made = recalibrate(start.artifact, gather(start, answers), seed, tiers or TIERS)
        version = made.save(out)
    if as_json:
        print_json({"artifact": version, "file": str(out), **made.report})
        return
    click.echo(
        f"wrote {version} to {str(out)!r}, made from {start.version} and {made.report['prompts']} labelled prompts"
    )
    for tier, each in made.report["tiers"].items():
        told = each.get("note") or (
            f"mean label {each['mean_label']:.3f}, predicted before {each['predicted_before']:.3f}; log loss "
            f"{each['log_loss_before']:.3f}, now {each['log_loss_after']:.3f}"
        )
        click.echo(f"  {tier:<9} {each['labels']} labels: {told}")
    sample = made.report["sample"]
    click.echo(f"  promises are tested on {sample['prompts']} prompts: {sample['drawn']}")


@click.command(short_help="Measure an artifact beside simple baselines.")
@click.option(
    "--data", type=FOLDER, required=True, metavar="DIR", help="Folder of the tables in docs/routing.md (parquet)."
)
@click.option("--artifact", type=FILE, metavar="FILE", help="Artifact to measure. [default: the bundled one]")
@click.option("--out", type=FILE, metavar="FILE", help="File to write the whole report to, as JSON.")
@click.option("--curves", type=FOLDER, metavar="DIR", help="Folder to write the curves to, as PNG.")
@click.option(
    "--seed", default=0, show_default=True, metavar="N", help="Draws resamples, labels and the random router."
)
@json_option
def evaluate(
    data: Path, artifact: Path | None, out: Path | None, curves: Path | None, seed: int, as_json: bool
) -> None:
    """Measure an artifact on prompts it was not trained on, beside every baseline; prints a table in Markdown.

    Needs the extra `train` and several minutes; what is being measured is told on standard error.
    """
    if out is not None:
        _can_write(out)
    with _explained():
        from router_models.evaluation.curves import draw_curves
        from router_models.evaluation.report import evaluate as measure
        from router_models.evaluation.target_table import target_table
        from router_models.router import Router

        report = measure(data, Router.load(artifact), seed, tell=lambda what: click.echo(f"penstock: {what}", err=True))
        if curves is not None:
            draw_curves(report, curves)
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(report) if as_json else target_table(report))


def _can_write(out: Path) -> None:
    """Refuse a file that could not be written before minutes of work. Raises StartupError; nothing is made."""
    if not out.parent.is_dir():
        raise StartupError(f"--out {str(out)!r}: there is no folder {str(out.parent)!r}; make it, or name another file")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise StartupError(f"--out {str(out)!r} cannot be written: no permission; name another file")


def _answers(
    labels: Path | None,
    from_log: bool,
    policy: str | None,
    since: datetime | None,
    until: datetime | None,
    config: Path | None,
    data_dir: Path | None,
) -> list[LabelledAnswer]:
    from router_models.labelled import read_labels

    found = [] if labels is None else read_labels(labels)
    if from_log:
        found += logged_answers(policy, since, until, config, data_dir)
    return found


@contextmanager
def _explained() -> Iterator[Any]:
    """Turns what the router's training raises into one sentence for a person. Raises StartupError."""
    from router_models.errors import RouterError

    try:
        yield
    except ImportError as error:
        raise StartupError(
            f"training and evaluation need libraries that serving does not ({error}): pip install 'penstock[train]'"
        ) from error
    except (RouterError, OSError) as error:
        raise StartupError(str(error)) from error
