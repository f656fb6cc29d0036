"""Judges every challenger against its champion, and every new champion against the one before it; acts on what is proved.

The decision is `routing/compare`'s, made again from all that SQL knows at each run. An assignment that somebody has changed
meanwhile is left alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import chain

from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.router.tell import tell_change, tell_state
from gateway.jobs.runner import Context
from gateway.routing.artifacts.change import promote, roll_back
from gateway.routing.artifacts.queries import BUNDLED, Assignment, assignment_rows
from gateway.routing.compare import Evidence, Judgement, judge
from gateway.routing.evidence.queries import grades_of, requests_of
from gateway.scorers import bundled_version

ACTOR = "job challengers"
MOST_REQUESTS = 50_000
"""The first so many of an assignment are compared; later ones would change no decision."""
MOST_BEFORE = 10_000
"""How many requests of the champion before are a new one's measure."""
DAYS_BEFORE = 30


def judge_artifacts(context: Context) -> str | None:
    """Look at every assignment with something to compare. Raises Unavailable."""
    with snapshot(context.database) as connection:
        assignments = assignment_rows(connection)
    said = []
    for policy, assignment in assignments.items():
        if policy not in context.catalog.policies:
            continue  # nobody is served by it
        evidence = gather(context, assignment)
        judgement = judge(evidence, context.catalog.routing.rollback) if evidence is not None else None
        done = _act(context, assignment, judgement)
        if done or judgement is not None:
            said.append(f"{policy}: {done or (judgement and judgement.reason)}")
    return "; ".join(said) or None


def gather(context: Context, assignment: Assignment) -> Evidence | None:
    """Requests and labels of what is to be compared; None when nothing is."""
    rules, now = context.catalog.routing.rollback, moment(context.now())
    champion = version_of(assignment.champion)
    policy, sources = assignment.policy, rules.sources
    if assignment.challenger is not None:
        pair, since = (champion, version_of(assignment.challenger)), assignment.since
        with snapshot(context.database) as connection:
            requests = list(requests_of(connection, policy, pair, since, now, MOST_REQUESTS))
            grades = list(grades_of(connection, policy, pair, sources, since, now, now, MOST_REQUESTS))
        return _of_both(Evidence(*pair, requests, grades, together=True))
    since = assignment.champion_since
    if assignment.predecessor is None or now > since + timedelta(days=rules.watch_days):
        return None
    before = version_of(assignment.predecessor)
    earliest = since - timedelta(days=DAYS_BEFORE)
    with snapshot(context.database) as connection:
        # What the new one is measured by does not change any more: labels that came later do not count.
        old = requests_of(connection, policy, [before], earliest, since, MOST_BEFORE, newest=True)
        new = requests_of(connection, policy, [champion], since, now, MOST_REQUESTS)
        requests = list(chain(old, new))
        graded = grades_of(connection, policy, [before], sources, earliest, since, since, MOST_BEFORE)
        grades = list(chain(graded, grades_of(connection, policy, [champion], sources, since, now, now, MOST_REQUESTS)))
    return _of_both(Evidence(before, champion, requests, grades, together=False))


def _of_both(evidence: Evidence) -> Evidence | None:
    """None unless both have had requests."""
    return (
        evidence if {request.artifact for request in evidence.requests} == {evidence.first, evidence.second} else None
    )


def version_of(name: str) -> str:
    """The version that records have for what an assignment names."""
    return bundled_version() if name == BUNDLED else name


def _act(context: Context, assignment: Assignment, judgement: Judgement | None) -> str | None:
    """Do and tell what follows; what was done, in a few words."""
    automatic, now = context.catalog.routing.rollback.automatic, context.now()
    policy = assignment.policy
    outcome = judgement.outcome if judgement is not None else "keep"
    with transaction(context.database) as connection:
        if judgement is None or outcome == "keep" or (outcome == "rollback" and not automatic):
            worse = judgement.reason if judgement is not None and outcome == "rollback" else None
            data = {"evidence": judgement.comparison.document()} if judgement is not None else {}
            tell_state(connection, context, "router_change", policy, "worse", worse, data)
            return f"WORSE, and rollbacks are not automatic: {worse}" if worse else None
        evidence = judgement.comparison.document()
        change = promote if outcome == "promote" else roll_back
        changed = change(connection, policy, ACTOR, now, judgement.reason[:1000], evidence, expected=assignment)
        if changed is None:
            return "it was changed meanwhile"
        done = _said(outcome, assignment, changed, judgement.reason)
        tell_change(connection, context, policy, outcome, _key(changed.since), done, {"evidence": evidence})
        return done


def _said(outcome: str, before: Assignment, after: Assignment, reason: str) -> str:
    if outcome == "promote":
        return f"challenger {after.champion} is champion now: {reason}"
    if before.challenger is not None:
        return f"challenger {before.challenger} was taken back: {reason}"
    return f"champion {before.champion} was taken back, {after.champion} serves again: {reason}"


def _key(at: datetime) -> str:
    return at.isoformat()
