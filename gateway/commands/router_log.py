"""Labelled answers from Penstock's own log, for training and calibration: which requests, and how good their answers were."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from gateway.commands.options import config_option, data_dir_option, settings_with
from gateway.errors import StartupError

if TYPE_CHECKING:
    from gateway.labels.queries import Labelled
    from router_models.labelled import LabelledAnswer
    from router_models.tiers import Tier

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
DEFAULT_DAYS = 90
FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


def log_options(command: Decorated) -> Decorated:
    """`--from-log`, which requests of it, and where the database is."""
    text = "Labels of logged requests: feedback, shadow answers, judgements."
    return click.option("--from-log", is_flag=True, help=text)(period_options(command))


def period_options(command: Decorated) -> Decorated:
    """Which requests of the log, and where the database is."""
    command = data_dir_option(config_option(command))
    command = click.option(
        "--until", type=click.DateTime(FORMS), help="End of the log, not included, UTC. [default: now]"
    )(command)
    command = click.option(
        "--since", type=click.DateTime(FORMS), help="First moment of the log, UTC. [default: 90 days ago]"
    )(command)
    return click.option("--policy", metavar="NAME", help="Requests of one policy only. [default: of all]")(command)


def logged_answers(
    policy: str | None, since: datetime | None, until: datetime | None, config: Path | None, data_dir: Path | None
) -> list[LabelledAnswer]:
    """Every label of the log, with the prompt or the features of its request. Raises StartupError when there is none."""
    from gateway.commands.database import open_database
    from gateway.db.transaction import snapshot
    from gateway.labels.queries import answer_lengths, labelled_traffic

    end = utc_moment(until) or datetime.now(UTC)
    begin = utc_moment(since) or end - timedelta(days=DEFAULT_DAYS)
    with (
        open_database(settings_with(config=config, data_dir=data_dir)) as database,
        snapshot(database) as connection,
    ):
        lengths = answer_lengths(connection, policy, begin, end)
        found = [
            _answer(labelled, lengths.get((labelled.record.request_id, labelled.model)))
            for labelled in labelled_traffic(connection, policy, begin, end)
        ]
    if not found:
        of = "any policy" if policy is None else f"policy {policy!r}"
        raise StartupError(
            f"the log has no labels of {of} between {begin:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M} UTC: send feedback "
            "(POST /v1/feedback) or turn on shadow sampling, and set `remember: features` or `prompts` in the policy"
        )
    return found


def utc_moment(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _answer(labelled: Labelled, length: int | None) -> LabelledAnswer:
    from router_models.batch import LASTING
    from router_models.labelled import KeptRequest, LabelledAnswer

    record = labelled.record
    kept = None
    if record.features is not None:
        odd = bool(set(LASTING) & set(record.unfamiliar.split(",")))
        kept = KeptRequest(bytes(record.features), str(record.fingerprint), odd, float(record.input_tokens))
    return LabelledAnswer(
        prompt=record.prompt,
        # The router's model knows three tiers; deep is at least as good as premium.
        tier=cast("Tier", "premium" if labelled.tier == "deep" else labelled.tier),
        score=labelled.score,
        model=labelled.model,
        output_tokens=None if length is None else float(length),
        request=record.request_id,
        source=record.policy,
        kept=kept,
    )
