"""Work beside the requests: a few at a time, a bounded queue, and an end that does not wait for long."""

from __future__ import annotations

import asyncio

import pytest

from gateway.aside import Aside


async def test_a_few_run_at_a_time_and_what_does_not_fit_is_dropped() -> None:
    aside, gate, most, running, done = Aside(at_once=2, most_waiting=3), asyncio.Event(), 0, 0, 0

    async def work() -> None:
        nonlocal most, running, done
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        done += 1

    taken = [aside.offer(work) for _ in range(3)]
    await asyncio.sleep(0)
    taken += [aside.offer(work) for _ in range(4)]
    assert taken == [True] * 5 + [False] * 2
    gate.set()
    while done < 5:
        await asyncio.sleep(0)
    assert most == 2
    assert aside.offer(work), "there is room again"
    while done < 6:
        await asyncio.sleep(0)
    await aside.close()


async def test_work_that_fails_stops_no_other_work(caplog: pytest.LogCaptureFixture) -> None:
    aside, done = Aside(at_once=1), asyncio.Event()

    async def fail() -> None:
        raise ValueError("no")

    async def work() -> None:
        done.set()

    assert aside.offer(fail)
    assert aside.offer(work)
    await asyncio.wait_for(done.wait(), 5)
    await aside.close()
    assert "work beside the requests failed" in caplog.text


async def test_the_end_cancels_what_takes_long_and_drops_what_waits() -> None:
    aside, seen = Aside(at_once=1), list[str]()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def never() -> None:
        seen.append("never")

    aside.offer(forever)
    aside.offer(never)
    await asyncio.sleep(0)
    await aside.close(seconds=0.01)
    assert seen == ["cancelled"]
    assert not aside.offer(never)


async def test_a_topic_is_paused_for_a_while_and_others_are_not() -> None:
    aside = Aside()
    assert not aside.paused("shadow a")
    aside.pause("shadow a", 60)
    assert (aside.paused("shadow a"), aside.paused("shadow b")) == (True, False)
    aside.pause("shadow a", -1)
    assert not aside.paused("shadow a")


def test_at_most_so_many_take_part_in_a_topic_at_a_time() -> None:
    aside = Aside()
    with aside.one_of("key a", 2) as first, aside.one_of("key a", 2) as second, aside.one_of("key a", 2) as third:
        assert (first, second, third) == (True, True, False)
        with aside.one_of("key b", 1) as other:
            assert other

    def leave_by_an_error() -> None:
        with aside.one_of("key a", 1) as taken:
            assert taken
            raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            leave_by_an_error()
