"""The book in SQL, on both databases: rows are only added and ended, never overlap, and a refused change leaves nothing."""

from __future__ import annotations

import dataclasses
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from gateway.billing.prices.check import check_book
from gateway.billing.prices.choose import Price
from gateway.billing.prices.queries import (
    PriceRefused,
    find_overlapping,
    owners_of,
    prices_at,
    prices_of,
    prices_since,
    write_prices,
)
from gateway.db.connect import Database
from gateway.db.price_tables import prices
from gateway.db.transaction import snapshot, transaction
from tests.pricing import PICO, START, pair, price

DAY = timedelta(days=1)


def rows(database: Database) -> list[dict[str, Any]]:
    with snapshot(database) as connection:
        return [dict(row) for row in connection.execute(select(prices).order_by(prices.c.id)).mappings()]


def rate_at(database: Database, at: datetime) -> list[int]:
    return [row.rate for row in prices_at(database, at) if row.meter == "input"]


def later(usd: float, days: int, **changes: Any) -> Price:
    return price("input", usd, valid_from=START + days * DAY, **changes)


def test_a_change_ends_the_old_row_and_adds_a_new_one(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    write_prices(database, [later(3, 10)], [], START + 5 * DAY)
    first, _, second = rows(database)
    assert (first["rate"], first["valid_to"]) == (PICO, START + 10 * DAY)
    assert (second["rate"], second["valid_from"], second["valid_to"]) == (3 * PICO, START + 10 * DAY, None)
    assert (second["unit"], second["currency"], second["created_at"]) == (1_000_000, "USD", START + 5 * DAY)
    assert rate_at(database, START + 10 * DAY - timedelta(microseconds=1)) == [PICO]
    assert rate_at(database, START + 10 * DAY) == [3 * PICO]


def test_a_change_before_a_scheduled_one_ends_where_that_begins(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    write_prices(database, [later(9, 20)], [], START)
    write_prices(database, [later(5, 10)], [], START)
    assert [rate_at(database, START + days * DAY) for days in (9, 10, 19, 20)] == [
        [PICO],
        [5 * PICO],
        [5 * PICO],
        [9 * PICO],
    ]
    assert not find_overlapping(database)


def test_a_scheduled_change_that_is_replaced_stays_in_the_table_and_never_applies(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    write_prices(database, [later(90, 20)], [], START)
    write_prices(database, [later(9, 20)], [], START + DAY)
    withdrawn = [row for row in rows(database) if row["rate"] == 90 * PICO]
    assert [(row["valid_from"], row["valid_to"]) for row in withdrawn] == [(START + 20 * DAY, START + 20 * DAY)]
    assert rate_at(database, START + 20 * DAY) == [9 * PICO]
    assert {row.rate for row in prices_since(database, START)} == {PICO, 2 * PICO, 9 * PICO}


def test_the_past_cannot_be_changed(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    with pytest.raises(PriceRefused, match="what has been billed keeps its price"):
        write_prices(database, [later(3, 1)], [], START + 2 * DAY)
    assert rate_at(database, START + DAY) == [PICO]


def test_prices_that_are_ended_end_now_and_those_that_ended_before_stay_as_they_were(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    valid = prices_at(database, START)
    write_prices(database, [], valid, START + DAY)
    write_prices(database, [], valid, START + 2 * DAY)
    assert [row["valid_to"] for row in rows(database)] == [START + DAY] * 2
    assert prices_at(database, START + DAY) == []


def test_a_change_with_a_contradiction_writes_nothing_at_all(database: Database) -> None:
    with pytest.raises(PriceRefused, match="two prices of 'm' for input"):
        write_prices(database, [*pair(1, 2), price("input", 3)], [], START)
    assert rows(database) == []


def test_dimensions_do_not_mix(database: Database) -> None:
    others: list[dict[str, Any]] = [
        {},
        {"owner": "azure"},
        {"model": "n"},
        {"least_tokens": 200_001},
        {"service_tier": "flex"},
        {"region": "eu"},
        {"book": "tenant", "owner": "acme"},
    ]
    write_prices(database, [price("input", 1, **changes) for changes in others], [], START)
    write_prices(database, [price("input", 2)], [], START)
    valid = prices_at(database, START)
    assert len(valid) == len(others)
    assert [row.rate for row in valid if row.key == price("input", 1).key] == [2 * PICO]
    assert owners_of(database, "m") == ["azure", "openai"]
    assert [row.owner for row in prices_at(database, START, book="tenant")] == ["acme"]
    assert [row.model for row in prices_at(database, START, like="N")] in ([], ["n"])
    assert [row.model for row in prices_at(database, START, like="%")] == []


def test_a_row_is_read_as_it_was_written(database: Database) -> None:
    written = price("cache_read", 0.12345678901, source="a map", source_hash="ab" * 32, least_tokens=5)
    write_prices(database, [written], [], START)
    [found] = prices_of(database, ["m"], START)
    assert dataclasses.replace(found, id=None) == written
    assert found.rate == 123_456_789_010


def raw(**changes: Any) -> dict[str, Any]:
    row = dict(zip((column.name for column in prices.columns if column.name != "id"), range(99), strict=False))
    row |= {
        **dict(zip(("book", "owner", "model", "meter", "service_tier", "region"), price("input", 1).key, strict=False)),
        "service_tier": "default",
        "region": "",
        "least_tokens": 0,
        "unit": 1_000_000,
        "rate": PICO,
        "currency": "USD",
        "valid_from": START,
        "valid_to": None,
        "source": "",
        "source_hash": "",
        "created_at": START,
    }
    return {**row, **changes}


@pytest.mark.parametrize(
    "wrong",
    [{"currency": "EUR"}, {"rate": -1}, {"unit": 0}, {"least_tokens": -1}, {"valid_to": START - DAY}],
    ids=["currency", "negative rate", "unit", "tokens", "ends before it begins"],
)
def test_the_database_itself_refuses_what_no_price_can_be(database: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction(database) as connection:
        connection.execute(insert(prices).values(raw(**wrong)))
    assert rows(database) == []


def test_the_database_itself_refuses_a_second_open_row(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    for wrong in ({"valid_from": START + DAY}, {"valid_from": START, "valid_to": START + DAY}):
        with pytest.raises(IntegrityError), transaction(database) as connection:
            connection.execute(insert(prices).values(raw(**wrong)))


def test_rows_that_overlap_all_the_same_are_found_and_no_change_is_written_beside_them(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    with transaction(database) as connection:
        connection.execute(insert(prices).values(raw(valid_from=START + DAY, valid_to=START + 2 * DAY)))
    assert len(find_overlapping(database)) == 1
    assert [problem.kind for problem in check_book(database, None, START)] == ["overlapping"]
    with pytest.raises(PriceRefused, match="two prices would be valid at once"):
        write_prices(database, [price("reasoning", 3)], [], START)
    assert [row["meter"] for row in rows(database)] == ["input", "output", "input"]


def test_odd_rows_are_found(database: Database) -> None:
    with transaction(database) as connection:
        connection.execute(insert(prices).values(raw(unit=1)))
        connection.execute(insert(prices).values(raw(model="n", meter="smell")))
        connection.execute(insert(prices).values(raw(model="o", rate=2_500_000 * PICO)))
        connection.execute(insert(prices).values(raw(model="p", rate=2_500_000)))
    kinds = [problem.kind for problem in check_book(database, None, START)]
    assert kinds == ["unreadable", "unreadable", "implausible", "implausible"]


def test_writers_at_the_same_time_leave_one_price(database: Database) -> None:
    write_prices(database, pair(1, 2), [], START)
    problems: list[BaseException] = []

    def change(number: int) -> None:
        try:
            write_prices(database, [later(10 + number, 1 + number % 3)], [], START)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert not find_overlapping(database)
    for days in range(5):
        assert len(rate_at(database, START + days * DAY)) == 1
    assert len(rows(database)) == 14
