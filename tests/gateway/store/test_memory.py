"""The in-process store's own promises: time comes from its clock, and counters that have ended do not pile up."""

from __future__ import annotations

from gateway.store.base import Claim, Refused
from gateway.store.memory import MemoryStore


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_counters_of_past_windows_are_dropped_while_new_ones_come() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    for minute in range(2000):
        clock.now = 1000.0 + 60 * minute
        for key in range(3):
            await store.reserve([Claim(f"requests/{minute}/key:{key}", 1, 10, clock.now + 120)])
    assert len(store._values) < 20
    assert len(store._expiry) < 20


async def test_a_counter_of_nothing_that_has_ended_starts_again() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    await store.reserve([Claim("a", 0, 10, 1010.0)])
    clock.now = 1020.0
    await store.reserve([Claim("a", 7, 10, 1100.0)])
    assert await store.read(["a"]) == [7]


async def test_leases_of_different_length_free_their_slots_when_the_limit_is_reached() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    await store.reserve([Claim("p", 1, 2, 2000.0, lease="long")])
    await store.reserve([Claim("p", 1, 2, 1010.0, lease="short")])
    clock.now = 1011.0
    assert await store.reserve([Claim("p", 1, 2, 2000.0, lease="new")]) is None
    assert isinstance(await store.reserve([Claim("p", 1, 2, 2000.0, lease="one more")]), Refused)
