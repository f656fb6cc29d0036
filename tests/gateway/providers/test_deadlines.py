"""One shared timer for all deadlines: it interrupts what is late and nothing else, and stops when nothing is watched."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import ProviderTimeout
from gateway.providers.deadlines import TICK, Deadline, Watch
from tests.gateway.providers.asking import EVENTS, Open, call, replies
from tests.gateway.providers.raw_upstream import chunked


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


async def test_one_look_that_fails_leaves_every_other_deadline_alive() -> None:
    class Broken:
        looks = 0

        def look(self, now: float) -> None:
            self.looks += 1
            raise RuntimeError("cannot look")

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
    watch, many = Watch(), [Broken() for _ in range(8)]
    for broken in many:
        watch.add(broken)
    for _ in range(2):
        with pytest.raises(TimeoutError), Deadline(watch, 0.01):
            await asyncio.sleep(5)
    assert all(broken.looks >= 2 for broken in many)
    assert set(told) == {"cannot look"}


async def test_a_reply_that_is_not_read_in_time_is_not_called_a_slow_provider(opened: Open) -> None:
    answer = replies(chunked(EVENTS[:1], end=False), pause=60)
    _, provider, model = await opened(answer, deadlines={"total": 0.2})
    stream = await provider.stream(call(model), include_usage=False)
    await anext(aiter(stream))
    await asyncio.sleep(0.2 + 3 * TICK)
    with pytest.raises(ProviderTimeout, match=r"not read within 0\.2 s \(`deadlines\.total`\)") as caught:
        await anext(aiter(stream))
    assert "slow" not in str(caught.value)
