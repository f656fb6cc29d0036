"""Makes a new artifact of a policy's champion when own labels show that its probabilities are wrong, and proposes it if asked.

It is kept with source `recalibration`; labels that were fitted on, and how it does on labels held out, are on its card.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.artifacts import add
from gateway.db.connect import Database
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.router.tell import tell_change
from gateway.jobs.runner import Context
from gateway.recalibration import open_stored, refit
from gateway.routing.artifacts.change import propose, remove_artifact
from gateway.routing.artifacts.queries import (
    BUNDLED,
    REFERENCE,
    StoredArtifact,
    artifact_rows,
    assignment_rows,
    policies_using,
)
from gateway.routing.drift import describe
from gateway.routing.evidence.queries import Judged, facts_of, labels_of
from gateway.scorers import MOST_LOADED

ACTOR = "job recalibrate"
SOURCE = "recalibration"
MOST_LABELS = 20_000
MOST_REQUESTS = 20_000


def recalibrate_artifacts(context: Context) -> str | None:
    """Look at every policy with enough labels. Raises Unavailable."""
    if context.catalog.routing.recalibration.do == "nothing":
        return None
    with snapshot(context.database) as connection:
        assigned = assignment_rows(connection)
    said = []
    for policy in sorted({*context.catalog.policies, *assigned}):
        champion = assigned[policy].champion if policy in assigned else BUNDLED
        done = _recalibrate(context, policy, champion)
        if done is not None:
            said.append(f"{policy}: {done}")
    return "; ".join(said) or None


def _recalibrate(context: Context, policy: str, champion: str) -> str | None:
    """One policy; what came of it, None when there is too little to go by."""
    rules, now = context.catalog.routing.recalibration, moment(context.now())
    since = now - timedelta(days=rules.days)
    with snapshot(context.database) as connection:
        labels = labels_of(connection, policy, rules.sources, since, now, MOST_LABELS)
        made_before = [each for each in artifact_rows(connection) if _made_for(each, policy)]
    if len(labels) < rules.least_labels or not _enough_is_new(labels, made_before, rules.least_labels):
        return None
    base = open_stored(context.database, champion)
    notes = {"policy": policy, "until": now.isoformat(), **_reference(context, policy, base.version, since, now)}
    found = refit(base, labels, rules.least_labels, notes)
    if found.content is None:
        return found.why
    version = add(context.database, found.content, "the recalibration", ACTOR, context.now(), SOURCE, base.version)[
        "version"
    ]
    _forget(context.database, policy, rules.keep, context.now())
    if rules.do != "propose":
        return f"{version} is kept: {found.why}"
    reason = f"recalibrated from {base.version} with {found.prompts} labelled prompts: {found.why}"
    with transaction(context.database) as connection:
        made = propose(connection, policy, version, rules.share, ACTOR, context.now(), reason, MOST_LOADED)
        if made is None:
            return f"{version} is kept, and not proposed as there is a challenger: {found.why}"
        text = f"{version} is the challenger for {rules.share:.0%} of the requests: {reason}"
        tell_change(connection, context, policy, "propose", made.since.isoformat(), text, {"artifact": version})
    return text


def _reference(
    context: Context, policy: str, artifact: str, since: datetime, now: datetime
) -> dict[str, dict[str, object]]:
    """What later requests are compared with: those of the same time, but for their difficulty, which the new curves change."""
    with snapshot(context.database) as connection:
        described = describe(facts_of(connection, policy, artifact, since, now, MOST_REQUESTS))
    described.pop("difficulty")
    return {REFERENCE: described} if described["requests"] >= context.catalog.routing.drift.least_requests else {}


def _made_for(artifact: StoredArtifact, policy: str) -> bool:
    return artifact.source == SOURCE and artifact.card.get("policy") == policy


def _enough_is_new(labels: Sequence[Judged], made_before: Sequence[StoredArtifact], least: int) -> bool:
    """Half as many labels as are wanted have come since the last time, which need not be repeated."""
    last = max((each.made_at for each in made_before), default=None)
    return last is None or sum(label.at > last for label in labels) * 2 >= least


def _forget(database: Database, policy: str, keep: int, now: float) -> None:
    """Remove the oldest recalibrations that nothing uses."""
    with transaction(database) as connection:
        made = [each for each in artifact_rows(connection) if _made_for(each, policy)]
        unused = [each for each in made if not policies_using(connection, each.version)]
        for each in unused[keep:]:
            remove_artifact(connection, each.version, ACTOR, now)
