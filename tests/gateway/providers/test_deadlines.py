"""One shared timer for all deadlines: it interrupts what is late and nothing else, and stops when nothing is watched."""

from __future__ import annotations

import asyncio

import pytest

from gateway.providers.deadlines import TICK, Deadline, Watch


async def test_what_takes_too_long_is_interrupted_with_a_timeout() -> None:
    with pytest.raises(TimeoutError), Deadline(Watch(), 0.01):
        await asyncio.sleep(3600)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_is_in_time_is_left_alone() -> None:
    with Deadline(Watch(), 3600):
        await asyncio.sleep(2 * TICK)


async def test_a_cancellation_from_elsewhere_stays_one_even_when_the_deadline_passes_too() -> None:
    async def wait() -> None:
        with Deadline(Watch(), 0.0):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(2 * TICK)  # slow to leave, so that both happen
                raise

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_an_error_inside_is_passed_on() -> None:
    with pytest.raises(ValueError, match="mine"), Deadline(Watch(), 3600):
        raise ValueError("mine")


async def test_of_two_deadlines_the_one_that_passes_raises() -> None:
    watch = Watch()
    with Deadline(watch, 3600):
        with pytest.raises(TimeoutError), Deadline(watch, 0.01):
            await asyncio.sleep(3600)
        await asyncio.sleep(2 * TICK)


async def test_many_at_once_are_each_interrupted_and_no_timer_is_left() -> None:
    watch = Watch()

    async def late() -> str:
        try:
            with Deadline(watch, 0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            return "late"
        return "in time"

    async def quick() -> str:
        with Deadline(watch, 3600):
            await asyncio.sleep(2 * TICK)
            return "in time"

    results = await asyncio.gather(*[late() for _ in range(50)], *[quick() for _ in range(50)])
    assert results == ["late"] * 50 + ["in time"] * 50
    await asyncio.sleep(2 * TICK)
    assert watch._timer is None
