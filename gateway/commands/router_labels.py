"""`penstock router labels`: the labels of one model's answers in the log, as the file by which a configuration judges it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from gateway.commands.router_log import logged_answers, period_options
from gateway.errors import StartupError


@click.command(short_help="Write the labels of one model's answers as JSON lines.")
@click.option("--model", required=True, metavar="NAME", help="The model, by its name in the configuration.")
@period_options
def labels(
    model: str,
    policy: str | None,
    since: datetime | None,
    until: datetime | None,
    config: Path | None,
    data_dir: Path | None,
) -> None:
    """Write how good MODEL's answers were, by feedback, shadow sampling and people: one JSON object per line.

    The file is what `quality: {labels: FILE}` of a model reads, and `--labels` of train and calibrate. Only requests under
    `remember: prompts` have the text that it needs.
    """
    answers = [each for each in logged_answers(policy, since, until, config, data_dir) if each.model == model]
    written = [each for each in answers if each.prompt is not None]
    if not written:
        found = f"{len(answers)} labels of {model!r}, none of them with its prompt" if answers else f"none of {model!r}"
        raise StartupError(f"the log has {found}: they need requests under `remember: prompts` and feedback on them")
    for each in written:
        known = {"model": model, "tier": each.tier, "score": each.score, "output_tokens": each.output_tokens}
        line = {"prompt": each.prompt, **known, "request": each.request}
        click.echo(json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=False))
    if left := len(answers) - len(written):
        click.echo(f"penstock: {left} more labels have no prompt: their policy did not remember prompts", err=True)
