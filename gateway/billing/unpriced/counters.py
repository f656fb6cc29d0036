"""What the counters of budgets lack once calls are rated: the charge, less what their request had set aside for it (pure).

Exactly what a sum of SQL changes by at that moment, for every counter that counts the request, so that a counter that has been
summed before and one that is summed afterwards end at the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.callers import PERIODS, scope_of
from gateway.store.windows import budget_counter, corrected_as, window
from gateway.types import Hold, UsageEvent


@dataclass(frozen=True, slots=True)
class CounterChange:
    """Pico-USD by counter, to be added once under this name."""

    name: str
    tenant: str
    changes: Mapping[str, int]


def changes_of(
    corrections: Sequence[UsageEvent], held: Mapping[str, Hold], ended: Collection[str]
) -> Iterator[CounterChange]:
    """One change for each request with new corrections or whose hold has ended just now."""
    by_request: dict[str, list[UsageEvent]] = {request_id: [] for request_id in ended}
    for each in corrections:
        by_request.setdefault(str(each.explanation["corrects"]), []).append(each)
    for request_id, mine in by_request.items():
        sums: dict[str, int] = defaultdict(int)
        hold = held.get(request_id)
        for each in mine:
            for counter in _counters(each, hold):
                sums[counter] += each.charge
        if hold is not None and request_id in ended:
            for counter, amount in _set_aside(hold):
                sums[counter] -= amount
        if changes := {counter: amount for counter, amount in sums.items() if amount}:
            # A hold ends once and a correction is new once, so this name has never been used.
            name = request_id if request_id in ended else mine[-1].request_id
            yield CounterChange(f"rated/{name}", mine[0].tenant if mine else held[request_id].tenant, changes)


def _counters(correction: UsageEvent, hold: Hold | None) -> Iterator[str]:
    """Every counter of money that counts a correction, whether somebody has such a budget or not."""
    tenant = correction.tenant
    scopes = list(_owners(tenant, correction.project, correction.key_id, correction.end_user))
    scopes += [scope_of("model", tenant, each) for each in {attempt.model for attempt in correction.attempts}]
    scopes += [scope_of("tag", tenant, tag) for tag in dict.fromkeys(correction.tags)]
    yield from _budgets(scopes, correction.started_at)
    # The name of an agent run's counter has more in it than the run.
    yield from (name for name, _ in (hold.claims if hold else ()) if name.startswith("session-money/"))


def _set_aside(hold: Hold) -> Iterator[tuple[str, int]]:
    """What an open hold counts in each counter: all of it for owners that it names, its claims for the others."""
    known = set(_budgets(_owners(hold.tenant, hold.project, hold.key_id, hold.end_user), hold.created_at))
    yield from ((counter, hold.amount) for counter in known)
    yield from ((name, amount) for name, amount in hold.claims if name not in known and corrected_as(name) == "money")


def _owners(tenant: str, project: str | None, key_id: str, end_user: str | None) -> Iterator[str]:
    yield scope_of("tenant", tenant)
    yield scope_of("key", tenant, key_id)
    if project is not None:
        yield scope_of("project", tenant, project)
    if end_user is not None:
        yield scope_of("user", tenant, end_user)


def _budgets(scopes: Iterable[str], at: float) -> Iterator[str]:
    for scope in scopes:
        for period in PERIODS:
            yield budget_counter(scope, period, window(period, at).label)
