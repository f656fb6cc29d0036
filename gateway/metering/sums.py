"""What finished requests add to the roll-ups (pure). `db/roll_up.sums_of_rows` says the same of rows that are in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gateway.db.roll_up import Group
from gateway.db.rollup_tables import COUNTERS, ENERGY_SUMS, PICO_PER_MILL
from gateway.db.tables import moment
from gateway.types import UsageEvent, usage_fields

_BUCKETS = usage_fields()
_WIDTH = len(COUNTERS)
_ENERGY = COUNTERS.index(ENERGY_SUMS[0])


def sums_of(events: Iterable[UsageEvent], sign: int = 1) -> dict[tuple[datetime, Group], list[int]]:
    """Numbers in the order of COUNTERS, by hour and group; `sign` -1 takes the events back.

    Requests are counted at the first attempt in each way of telling attempts apart; one without attempts has a group
    without model and provider, and a correction is no request.
    """
    sums: dict[tuple[datetime, Group], list[int]] = {}
    for event in events:
        hour = moment(event.started_at).replace(minute=0, second=0, microsecond=0)
        request = (
            _plain(event.tenant), event.project, event.key_id, _plain(event.key_name), event.tier, event.outcome,
        )  # fmt: skip
        if not event.attempts:
            row = sums.setdefault((hour, (*request, None, None)), [0] * _WIDTH)
            for place in range(4):
                row[place] += sign
            continue
        counted = 0 if event.outcome == "corrected" else sign
        models: set[str] = set()
        providers: set[str] = set()
        both: set[tuple[str, str]] = set()
        for attempt in event.attempts:
            call = (attempt.model, attempt.provider)
            key = (hour, (*request, *call))
            found = sums.get(key)
            if found is None:
                found = sums[key] = [0] * _WIDTH
            usage = attempt.usage
            found[0] += counted * (not both)
            found[1] += counted * (attempt.model not in models)
            found[2] += counted * (attempt.provider not in providers)
            found[3] += counted * (call not in both)
            found[4] += sign
            found[5] += sign * usage.estimated
            for place, bucket in enumerate(_BUCKETS, 6):
                if amount := getattr(usage, bucket):
                    found[place] += sign * amount
            if (energy := attempt.energy) is not None:
                spent = (1, energy.estimated, energy.microjoules, energy.co2e_nanograms or 0)
                for place, amount in enumerate(spent, _ENERGY):
                    found[place] += sign * amount
            for place, amount in ((-4, attempt.cost.total), (-2, attempt.charge.total)):
                mills, rest = divmod(amount, PICO_PER_MILL)
                found[place] += sign * mills
                found[place + 1] += sign * rest
            models.add(attempt.model)
            providers.add(attempt.provider)
            both.add(call)
    return sums


def _plain(text: str) -> str:
    return text.replace("\0", "\ufffd") if "\0" in text else text
