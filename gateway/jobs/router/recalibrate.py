"""Makes a new artifact of a policy's champion when own labels show that its probabilities are wrong, and proposes it if asked.

It is kept with source `recalibration`; labels that were fitted on, and how it does on labels held out, are on its card. It is
not proposed where it could no longer keep what the policy promises, nor for a while after one like it was taken back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from gateway.artifacts import check, keep
from gateway.billing.prices.book import PriceBook
from gateway.config_policies import Policy
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict
from gateway.jobs.router.tell import tell_change
from gateway.jobs.runner import Context
from gateway.promising import Promised, compare_promises
from gateway.recalibration import Refit, open_stored, refit
from gateway.routing.artifacts.change import LONGEST_REASON, Room, propose, remove_artifact
from gateway.routing.artifacts.queries import (
    BUNDLED,
    REFERENCE,
    StoredArtifact,
    artifact_row,
    artifact_rows,
    assignment_rows,
    policies_using,
    versions_taken_back,
)
from gateway.routing.drift import describe
from gateway.routing.evidence.queries import Judged, facts_of, labels_of
from gateway.routing.policies.live import standing
from gateway.routing.policies.queries import read_overrides
from gateway.routing.promises import TierPrices, tier_prices
from gateway.scorers import MOST_LOADED, open_artifact

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
        policies = {each.name: each.policy for each in standing(context.catalog, read_overrides(connection))}
    said = []
    for name, policy in sorted(policies.items()):
        champion = assigned[name].champion if name in assigned else BUNDLED
        done = _recalibrate(context, name, policy, champion)
        if done is not None:
            said.append(f"{name}: {done}")
    return "; ".join(said) or None


def _recalibrate(context: Context, name: str, policy: Policy, champion: str) -> str | None:
    """One policy; what came of it, None when there is too little to go by."""
    rules, now = context.catalog.routing.recalibration, moment(context.now())
    since = now - timedelta(days=rules.days)
    with snapshot(context.database) as connection:
        labels = labels_of(connection, name, rules.sources, since, now, MOST_LABELS)
        made_before = [each for each in artifact_rows(connection) if _made_for(each, name)]
    if len(labels) < rules.least_labels or not _enough_is_new(labels, made_before, rules.least_labels):
        return None
    base = open_stored(context.database, champion)
    notes = {"policy": name, "until": now.isoformat(), **_reference(context, name, base.version, since, now)}
    found = refit(base, labels, rules.least_labels, notes, context.catalog.tiers)
    if found.content is None:
        return found.why
    checked = check(found.content, "the recalibration")
    promised, prices = None, _prices(context)
    # One tier keeps all of its quality, and `each` asks for no promise.
    if policy.floor == "average" and policy.min_quality > 0 and len(prices) > 1:
        after = open_artifact(found.content, checked.version)
        promised = compare_promises(base, after, prices, policy.min_quality, policy.confidence)
    made = _Made(name, checked.version, base.version, found, promised)
    # In one transaction: what is kept and not proposed would wait for as many new labels again.
    with transaction(context.database) as connection:
        keep(connection, checked, ACTOR, context.now(), SOURCE, made.base)
        taken_back = versions_taken_back(connection, name, since)
        said = _used(connection, context, made, taken_back)
        _forget(connection, context, name, taken_back)
    return said


@dataclass(frozen=True, slots=True)
class _Made:
    """A new artifact of one policy; `promised` is None where the policy promises nothing on average."""

    policy: str
    version: str
    base: str
    found: Refit
    promised: Promised | None

    @property
    def why(self) -> str:
        return f"{self.found.why}; {self.promised}" if self.promised is not None else self.found.why


def _used(connection: Connection, context: Context, made: _Made, taken_back: Collection[str]) -> str:
    """Propose it where that is asked for and nothing speaks against it; what became of it."""
    rules = context.catalog.routing.recalibration
    if rules.do != "propose":
        return f"{made.version} is kept: {made.why}"
    if made.promised is not None and made.promised.lost:
        return f"{made.version} is kept, and not proposed as it promises less: {made.why}"
    if any(_is_like(artifact_row(connection, version), made.base) for version in taken_back):
        ago = f"a recalibration of {made.base} was taken back within {rules.days} days"
        return f"{made.version} is kept, and not proposed as {ago}: {made.why}"
    reason = f"recalibrated from {made.base} with {made.found.prompts} labelled prompts: {made.why}"
    room = Room(MOST_LOADED, context.catalog.policies)
    try:
        given = propose(
            connection, made.policy, made.version, rules.share, ACTOR, context.now(), reason[:LONGEST_REASON], room
        )
    except Conflict as error:
        return f"{made.version} is kept, and not proposed: {error.message}"
    if given is None:
        return f"{made.version} is kept, and not proposed as there is a challenger: {made.why}"
    text = f"{made.version} is the challenger for {rules.share:.0%} of the requests: {reason}"
    data = {"artifact": made.version}
    tell_change(connection, context, made.policy, "propose", given.since.isoformat(), text, data)
    return text


def _prices(context: Context) -> TierPrices:
    book = PriceBook(context.catalog, context.database, context.now)
    book.renew()
    return tier_prices(context.catalog.models, book.current().costs, context.catalog.tiers)


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


def _is_like(artifact: StoredArtifact | None, base: str) -> bool:
    return artifact is not None and artifact.source == SOURCE and artifact.base == base


def _forget(connection: Connection, context: Context, policy: str, taken_back: Collection[str]) -> None:
    """Remove the oldest recalibrations that nothing uses; those that were taken back lately stay, so that this is known."""
    made = [each for each in artifact_rows(connection) if _made_for(each, policy)]
    unused = [each for each in made if not policies_using(connection, each.version) and each.version not in taken_back]
    for each in unused[context.catalog.routing.recalibration.keep :]:
        remove_artifact(connection, each.version, ACTOR, context.now(), context.catalog.policies)
