"""Labelled answers from Penstock's own log, for training and calibration: which requests, and how good their answers were."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.commands.options import config_option, data_dir_option

if TYPE_CHECKING:
    from router_models.labelled import LabelledAnswer

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


def log_options(command: Decorated) -> Decorated:
    """`--from-log`, which requests of it, and where the database is."""
    command = data_dir_option(config_option(command))
    command = click.option(
        "--until", type=click.DateTime(FORMS), help="End of the log, not included, UTC. [default: now]"
    )(command)
    command = click.option(
        "--since", type=click.DateTime(FORMS), help="First moment of the log, UTC. [default: 90 days ago]"
    )(command)
    command = click.option("--policy", metavar="NAME", help="Requests of one policy only. [default: of all]")(command)
    text = "Labels of logged requests whose prompts are kept (`remember: prompts`)."
    return click.option("--from-log", is_flag=True, help=text)(command)


def logged_answers(
    policy: str | None, since: datetime | None, until: datetime | None, config: Path | None, data_dir: Path | None
) -> list[LabelledAnswer]:
    """Every label of the log whose request has a prompt. Raises StartupError when there is none."""
    raise NotImplementedError
