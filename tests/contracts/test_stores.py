"""Every store keeps the same promises: the same tests run on the memory of one process and on a real Redis."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.store.base import Claim, Missing, Refused, Store, Taken


def soon(seconds: float = 60.0) -> float:
    return time.time() + seconds


async def test_a_claim_is_taken_up_to_its_limit_and_not_beyond(store: Store) -> None:
    claim = Claim("requests/m/key:a", 4, 10, soon())
    assert await store.reserve([claim]) is None
    assert await store.reserve([claim]) is None
    assert await store.reserve([claim]) == Refused(claim, 8)
    assert await store.reserve([Claim("requests/m/key:a", 2, 10, soon())]) is None
    assert await store.read(["requests/m/key:a", "requests/m/key:unknown"]) == [10, 0]


async def test_several_claims_are_taken_together_or_not_at_all(store: Store) -> None:
    room, full = Claim("a", 1, 10, soon()), Claim("b", 5, 4, soon())
    lease = Claim("c", 1, 3, soon(), lease="request")
    refused = await store.reserve([room, lease, full])
    assert refused == Refused(full, 0)
    assert await store.read(["a", "b", "c"]) == [0, 0, 0]


async def test_no_claims_are_always_taken(store: Store) -> None:
    assert await store.reserve([]) is None
    await store.adjust([])
    assert await store.read([]) == []


async def test_adjusting_replaces_the_claimed_amount_by_the_real_one(store: Store) -> None:
    claim = Claim("budget", 100, 1000, soon())
    await store.reserve([claim])
    await store.reserve([claim])
    await store.adjust([(claim, 30)])
    assert await store.read(["budget"]) == [130]
    await store.adjust([(claim, 250)])
    assert await store.read(["budget"]) == [280]


async def test_a_counter_never_falls_below_zero_and_keeps_its_end(store: Store) -> None:
    claim = Claim("short", 10, 100, soon(0.4))
    await store.reserve([claim])
    await store.adjust([(Claim("short", 50, 100, soon()), 0)])
    assert await store.read(["short"]) == [0]
    await store.reserve([Claim("short", 7, 100, soon())])
    await asyncio.sleep(0.5)
    assert await store.read(["short"]) == [0]


async def test_a_counter_that_has_ended_is_not_revived_by_a_correction(store: Store) -> None:
    claim = Claim("gone", 10, 100, soon(0.2))
    await store.reserve([claim])
    await asyncio.sleep(0.3)
    await store.adjust([(claim, 40)])
    assert await store.read(["gone"]) == [0]
    assert await store.reserve([Claim("gone", 100, 100, soon())]) is None


async def test_a_named_correction_is_done_once_however_often_it_is_sent(store: Store) -> None:
    claim = Claim("budget", 100, 1000, soon())
    await store.reserve([claim])
    await store.reserve([claim])
    for by in ("job", "request", "job"):
        assert await store.adjust([(claim, 10)], once="request-1", by=by) == "job", "who made it is remembered"  # type: ignore[arg-type]
    assert await store.read(["budget"]) == [110]
    assert await store.adjust([(claim, 100)]) == "request"
    await store.adjust([(claim, 10)], once="request-2")
    assert await store.read(["budget"]) == [20]


async def test_leases_count_until_they_are_released(store: Store) -> None:
    first, second, third = (Claim("parallel", 1, 2, soon(), lease=name) for name in ("x", "y", "z"))
    assert await store.reserve([first]) is None
    assert await store.reserve([second]) is None
    assert await store.reserve([third]) == Refused(third, 2)
    await store.adjust([(first, 0)])
    assert await store.reserve([third]) is None
    assert await store.read(["parallel"]) == [2]


async def test_a_lease_taken_again_counts_once(store: Store) -> None:
    claim = Claim("parallel", 1, 1, soon(), lease="x")
    assert await store.reserve([claim]) is None
    assert await store.reserve([claim]) is None
    assert await store.read(["parallel"]) == [1]


async def test_a_lost_lease_frees_its_slot_when_it_runs_out(store: Store) -> None:
    lasting, lost = Claim("parallel", 1, 2, soon(), lease="lasting"), Claim("parallel", 1, 2, soon(0.2), lease="lost")
    await store.reserve([lasting])
    await store.reserve([lost])
    await asyncio.sleep(0.3)
    assert await store.read(["parallel"]) == [1]
    assert await store.reserve([Claim("parallel", 1, 2, soon(), lease="next")]) is None


async def test_releasing_a_lease_that_is_not_there_changes_nothing(store: Store) -> None:
    claim = Claim("parallel", 1, 2, soon(), lease="x")
    await store.reserve([claim])
    await store.adjust([(Claim("parallel", 1, 2, soon(), lease="other"), 0)])
    assert await store.read(["parallel"]) == [1]


async def test_restoring_sets_only_a_counter_that_does_not_exist(store: Store) -> None:
    await store.restore("budget", 500, soon())
    await store.restore("budget", 900, soon())
    await store.restore("lifetime", 7, None)
    await store.restore("over", 9, time.time() - 1)
    assert await store.read(["budget", "lifetime", "over"]) == [500, 7, 0]
    claim = Claim("budget", 501, 1000, soon())
    assert await store.reserve([claim]) == Refused(claim, 500)


async def test_a_kept_counter_that_is_missing_is_named_and_nothing_is_taken(store: Store) -> None:
    plain, first = Claim("plain", 1, 10, soon()), Claim("budget", 5, 10, soon(), kept=True)
    second, full = Claim("other", 1, 10, None, kept=True), Claim("full", 2, 1, soon())
    assert await store.reserve([plain, first, second, full]) == Missing((first, second))
    assert await store.read(["plain", "budget", "other", "full"]) == [0, 0, 0, 0]
    await store.restore("budget", 4, soon())
    assert await store.reserve([plain, first, second]) == Missing((second,))
    await store.restore("other", 0, None)
    assert await store.reserve([plain, first, second]) is None
    assert await store.reserve([first]) == Refused(first, 9)
    assert await store.read(["plain", "budget", "other"]) == [1, 9, 1]


async def test_a_kept_counter_that_has_ended_is_missing_again(store: Store) -> None:
    claim = Claim("budget", 1, 10, soon(0.3), kept=True)
    await store.restore("budget", 3, soon(0.3))
    assert await store.reserve([claim]) is None
    await asyncio.sleep(0.4)
    assert await store.reserve([claim]) == Missing((claim,))


async def test_what_was_asked_for_is_told_with_the_claims_taken(store: Store) -> None:
    claims = [Claim("a", 3, 10, soon()), Claim("p", 1, 5, soon(), lease="x"), Claim("b", 4, 10**17, None)]
    assert await store.reserve(claims, tell=[0, 2]) == Taken((3, 4))
    await store.restore("big", 2**62, None)
    assert await store.reserve([*claims, Claim("big", 1, 2**63 - 1)], tell=[3, 0]) == Taken((2**62 + 1, 6))
    assert await store.reserve(claims, tell=[0]) == Taken((9,))
    assert await store.reserve(claims, tell=[0]) == Refused(claims[0], 9)


async def test_a_sliding_end_moves_away_with_every_claim_and_never_nearer(store: Store) -> None:
    assert await store.reserve([Claim("run", 1, 10, soon(0.5), sliding=True)]) is None
    assert await store.reserve([Claim("run", 1, 10, soon(2.0), sliding=True)]) is None
    assert await store.reserve([Claim("run", 1, 10, soon(0.1), sliding=True)]) is None
    await asyncio.sleep(0.6)
    assert await store.read(["run"]) == [3]
    assert await store.reserve([Claim("fixed", 1, 10, soon(0.3))]) is None
    assert await store.reserve([Claim("fixed", 1, 10, soon(9.0))]) is None
    await asyncio.sleep(0.4)
    assert await store.read(["fixed"]) == [0]


async def test_a_clock_keeps_its_first_moment_and_refuses_what_comes_too_late(store: Store) -> None:
    ends = soon()

    def at(moment: int) -> Claim:
        return Claim("clock", moment, 60, ends, sliding=True, clock=True)

    assert await store.reserve([at(1000)]) is None
    assert await store.reserve([at(990)]) is None  # the clock of another machine
    assert await store.reserve([at(1060)]) is None
    assert await store.reserve([Claim("steps", 1, 10, soon()), at(1061)]) == Refused(at(1061), 61)
    assert await store.read(["clock", "steps"]) == [1000, 0]


async def test_claims_of_every_kind_are_taken_together(store: Store) -> None:
    await store.restore("session", 5, soon())
    claims = [
        Claim("clock", 1000, 60, soon(), sliding=True, clock=True),
        Claim("session", 3, 100, soon(), kept=True, sliding=True),
        Claim("parallel", 1, 1, soon(), lease="x"),
        Claim("requests", 1, 10, soon()),
    ]
    assert await store.reserve(claims, tell=[3]) == Taken((1,))
    other = claims[2]._replace(lease="y")
    assert await store.reserve([*claims[:2], other]) == Refused(other, 1)
    assert await store.read(["clock", "session", "parallel", "requests"]) == [1000, 8, 1, 1]


async def test_a_correction_of_this_life_of_the_counters_gives_back(store: Store) -> None:
    claim = Claim("budget", 100, 1000, None)
    await store.reserve([claim])
    await store.adjust([(claim, 30)], once="request", epoch=store.epoch)
    assert await store.read(["budget"]) == [30]


@pytest.mark.parametrize("limit", [2**53 + 1, 9_000_000 * 10**12])
async def test_amounts_beyond_double_precision_are_compared_to_the_last_unit(store: Store, limit: int) -> None:
    await store.restore("budget", limit - 3, None)
    too_much = Claim("budget", 4, limit)
    assert await store.reserve([too_much]) == Refused(too_much, limit - 3)
    assert await store.reserve([Claim("budget", 3, limit)]) is None
    assert await store.reserve([Claim("budget", 0, limit)]) is None
    one_more = Claim("budget", 1, limit)
    assert await store.reserve([one_more]) == Refused(one_more, limit)
    await store.adjust([(Claim("budget", 2, limit), 1)])
    assert await store.read(["budget"]) == [limit - 1]


async def test_concurrent_requests_get_exactly_what_there_is(store: Store) -> None:
    """A thousand at once on a budget for 300 of them: 300 pass, and not one pico is overspent."""
    amount, limit = 1_234_567_890_123, 300 * 1_234_567_890_123 + 5

    async def ask(number: int) -> Refused | None:
        return await store.reserve([
            Claim("budget", amount, limit, soon()),
            Claim("requests", 1, 10_000, soon()),
            Claim("parallel", 1, 10_000, soon(), lease=str(number)),
        ])  # fmt: skip

    gate = asyncio.Semaphore(50)

    async def ask_in_turn(number: int) -> Refused | None:
        async with gate:
            return await ask(number)

    answers = await asyncio.gather(*(ask_in_turn(number) for number in range(1000)))
    assert answers.count(None) == 300
    assert await store.read(["budget", "requests", "parallel"]) == [300 * amount, 300, 300]
