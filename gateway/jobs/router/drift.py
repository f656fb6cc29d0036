"""Compares the requests of the last day with the artifact's reference, and its probabilities with labels; tells what drifted.

The reference stands on the artifact's card or is the first week of its requests. Until there is one nothing is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.router.challengers import version_of
from gateway.jobs.router.tell import tell_state
from gateway.jobs.runner import Context
from gateway.routing.artifacts.queries import (
    BUNDLED,
    REFERENCE,
    Assignment,
    artifact_row,
    assignment_rows,
    find_reference,
    forget_drift,
    insert_drift,
)
from gateway.routing.drift import SPREAD, Finding, calibration_error, compare, describe, is_reference
from gateway.routing.evidence.queries import facts_of, first_request, labels_of

WEEK = timedelta(days=7)
LONGEST_BACK = timedelta(days=400)
LABEL_DAYS = 30
MOST_REQUESTS = 50_000
KEEP_SECONDS = 90 * 86_400.0


def watch_drift(context: Context) -> str | None:
    """Measure every policy that has routed requests. Raises Unavailable."""
    with snapshot(context.database) as connection:
        assignments = assignment_rows(connection)
    said = []
    for policy in sorted(context.catalog.policies):
        found = _measure(context, policy, assignments.get(policy))
        drifted = [f"{each.measure} {each.value:.3f} above {each.threshold:.3f}" for each in found if each.drifted]
        if found:
            said.append(f"{policy}: {'; '.join(drifted) or 'as it was'}")
    with transaction(context.database) as connection:
        forget_drift(connection, context.now() - KEEP_SECONDS)
    return "; ".join(said) or None


def _measure(context: Context, policy: str, assignment: Assignment | None) -> list[Finding]:
    """One policy under its champion: measured, kept and told."""
    rules, now = context.catalog.routing.drift, moment(context.now())
    artifact = version_of(assignment.champion if assignment is not None else BUNDLED)
    earliest = assignment.champion_since if assignment is not None else now - LONGEST_BACK
    with snapshot(context.database) as connection:
        reference, is_new = _reference(connection, policy, artifact, earliest, now, rules.least_requests)
        found: list[Finding] = []
        if reference is not None:
            window = now - timedelta(hours=rules.window_hours)
            found += compare(reference, facts_of(connection, policy, artifact, window, now, MOST_REQUESTS), rules)
        labelled = now - timedelta(days=LABEL_DAYS)
        labels = labels_of(connection, policy, rules.sources, labelled, now, MOST_REQUESTS, artifact)
    calibration = calibration_error(labels, rules)
    found += [calibration] if calibration is not None else []
    kept = [_row(policy, artifact, now, each) for each in found]
    if reference is not None and is_new:
        kept.append(_reference_row(policy, artifact, now, reference))
    with transaction(context.database) as connection:
        insert_drift(connection, kept)
        for each in found:
            text = f"{each.measure} has drifted: {each.value:.3f}, above {each.threshold:.3f}" if each.drifted else None
            data = {"artifact": artifact, "value": each.value, "threshold": each.threshold, "samples": each.samples}
            tell_state(connection, context, "router_drift", policy, each.measure, text, data)
        if reference is None:  # an artifact that nothing is known of yet ends what was told of the one before
            for measure in (*SPREAD, "unfamiliar"):
                tell_state(connection, context, "router_drift", policy, measure, None, {})
    return found


def _reference(
    connection: Connection, policy: str, artifact: str, earliest: datetime, now: datetime, least: int
) -> tuple[Mapping[str, Any] | None, bool]:
    """What requests are compared with, and whether it is to be kept now: of an artifact's card, or of its first week."""
    known = find_reference(connection, policy, artifact)
    if known is not None:
        return known, False
    stored = artifact_row(connection, artifact)
    card = stored.card.get(REFERENCE) if stored is not None else None
    if isinstance(card, Mapping) and is_reference(card):
        return card, True
    first = first_request(connection, policy, artifact, earliest, now)
    if first is None or now < first + WEEK:
        return None, False
    described = describe(facts_of(connection, policy, artifact, first, first + WEEK, MOST_REQUESTS))
    return (described, True) if described["requests"] >= least else (None, False)


def _row(policy: str, artifact: str, now: datetime, found: Finding) -> dict[str, Any]:
    return {
        "policy": policy,
        "artifact": artifact,
        "measure": found.measure,
        "at": now,
        "value": found.value,
        "threshold": found.threshold,
        "samples": found.samples,
        "drifted": found.drifted,
        "document": dict(found.document),
    }


def _reference_row(policy: str, artifact: str, now: datetime, reference: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {"value": 0.0, "threshold": 0.0, "samples": int(reference["requests"]), "drifted": False}
    document = dict(reference)
    return {"policy": policy, "artifact": artifact, "measure": REFERENCE, "at": now, **numbers, "document": document}
