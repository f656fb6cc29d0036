"""The router's card is made once for all who ask within a minute, and too many who wait are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.chat.apart import KEPT_SECONDS, MOST_WAITING, Cards
from gateway.db.connect import Database
from gateway.errors import Conflict, InvalidValue
from tests.builders import catalog, model

BUILT = catalog(
    model("small", price={"input": 0.1, "output": 0.4}), model("big", "premium", price={"input": 5, "output": 10})
)


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


async def test_whoever_asks_within_a_minute_gets_the_same_card(database: Database) -> None:
    clock = Clock()
    cards = Cards(url_of(database), BUILT, clock)
    first, second = await asyncio.gather(cards.card(None, 0.95, None), cards.card(None, 0.95, None))
    assert first is second
    assert first["promises"]
    clock.now = KEPT_SECONDS - 1
    assert await cards.card(None, 0.95, None) is first
    clock.now = KEPT_SECONDS + 1
    later = await cards.card(None, 0.95, None)
    assert later["curve"]["traffic"]["until"] > first["curve"]["traffic"]["until"]


async def test_a_file_is_no_artifact_and_what_is_refused_is_not_kept(database: Database, tmp_path: Path) -> None:
    cards = Cards(url_of(database), BUILT)
    file = tmp_path / "there.npz"
    file.write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(InvalidValue, match="there is no artifact"):
            await cards.card(str(file), 0.95, None)


async def test_of_many_who_ask_for_different_cards_some_are_refused_at_once(database: Database) -> None:
    cards = Cards(url_of(database), BUILT)
    asked = [
        asyncio.create_task(cards.card("nothing", 0.9 + number / 1000, None)) for number in range(MOST_WAITING + 3)
    ]
    await asyncio.sleep(0)
    assert [type(each.exception()) for each in asked if each.done()] == [Conflict] * 3
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
