"""The book as a gateway uses it: prices of its models at this moment, renewed, refused when there are none."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from gateway.billing.prices.book import PriceBook
from gateway.billing.prices.check import check_book
from gateway.billing.prices.queries import prices_at, write_prices
from gateway.catalog import Catalog
from gateway.db.connect import Database, connect
from gateway.errors import ConfigError, Unavailable
from gateway.types import UNPRICED_SHEET
from tests.builders import catalog, model
from tests.pricing import PICO, START, pair, price

HOUR = timedelta(hours=1)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now.timestamp()


def booked(*, markup: int = 0, **book: Any) -> Catalog:
    """One model from the book, one from the configuration, a tenant with a markup."""
    extra = {"book": book} if book else {}
    return catalog(
        model("m", price="book", **extra),
        model("own", price={"input": 1, "output": 2}),
        tenants=[{"name": "acme", "price_plan": {"markup_percent": markup}}],
    )


def loaded(built: Catalog, database: Database, clock: Clock | None = None) -> PriceBook:
    book = PriceBook(built, database, clock or Clock())
    book.load()
    return book


def test_every_model_has_its_price_and_every_tenant_its_own(database: Database) -> None:
    write_prices(database, pair(3, 15), [], START)
    built = booked(markup=20)
    now = loaded(built, database).current()
    m, own = built.models
    assert now.cost(m).plain.rates["input"] == 3 * PICO
    assert now.charge("acme", m).plain.rates["input"] == 3_600_000_000_000
    assert now.charge("default", m) == now.charge("nobody knows", m) == now.cost(m)
    assert now.cost(own).plain.source == "penstock.yaml"
    assert now.charge("acme", own).plain.source == "penstock.yaml +20%"
    assert now.charge("acme", m).plain.source == f"{now.cost(m).plain.source} +20%"


def test_a_fixed_price_takes_the_place_of_cost_and_markup_once_it_is_whole(database: Database) -> None:
    write_prices(database, pair(3, 15), [], START)
    built = booked(markup=20)
    m, own = built.models
    tenant: dict[str, Any] = {"book": "tenant", "owner": "acme"}
    write_prices(database, [price("input", 4, **tenant)], [], START)
    assert loaded(built, database).current().charge("acme", m).plain.rates["input"] == 3_600_000_000_000
    assert [problem.kind for problem in check_book(database, built, START)] == ["incomplete"]
    write_prices(database, [price("output", 16, **tenant)], [], START)
    write_prices(database, pair(5, 6, model="own", **tenant), [], START)
    now = loaded(built, database).current()
    assert now.charge("acme", m).plain.rates["input"] == 4 * PICO
    assert now.charge("acme", m).plain.rates["reasoning"] == 16 * PICO
    assert now.charge("default", m).plain.rates["input"] == now.cost(m).plain.rates["input"] == 3 * PICO
    assert now.charge("acme", own).plain.rates["output"] == 6 * PICO
    assert now.cost(own).plain.rates["output"] == 2 * PICO
    assert check_book(database, built, START) == []


def test_a_scheduled_price_begins_in_its_moment_without_the_database_and_ends_no_request_before_it(
    database: Database,
) -> None:
    write_prices(database, pair(3, 15), [], START)
    write_prices(database, [price("input", 1, valid_from=START + HOUR)], [], START)
    clock, built = Clock(), booked()
    book = loaded(built, database, clock)
    database.close()
    before = book.current()
    clock.now = START + HOUR - timedelta(microseconds=1)
    assert book.current() is before
    clock.now = START + HOUR
    assert book.current().cost(built.models[0]).plain.rates["input"] == PICO
    assert before.cost(built.models[0]).plain.rates["input"] == 3 * PICO, "a request keeps the prices it began with"


async def test_a_change_that_is_made_now_arrives_with_the_next_refresh(database: Database) -> None:
    write_prices(database, pair(3, 15), [], START)
    clock, built = Clock(), booked()
    book = loaded(built, database, clock)
    clock.now = START + HOUR
    write_prices(database, [price("input", 2, valid_from=clock.now)], [], clock.now)
    assert book.current().cost(built.models[0]).plain.rates["input"] == 3 * PICO
    await book.refresh()
    assert book.current().cost(built.models[0]).plain.rates["input"] == 2 * PICO


async def test_a_price_that_ends_leaves_the_model_without_one_until_it_has_one_again(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    write_prices(database, pair(3, 15), [], START)
    clock, built = Clock(), booked()
    book = loaded(built, database, clock)
    clock.now = START + HOUR
    write_prices(database, [], prices_at(database, clock.now), clock.now)
    with caplog.at_level(logging.ERROR):
        await book.refresh()
    assert book.current().costs[0] is None
    assert "'m' has no price in the price book" in caplog.text
    assert book.current().cost(built.models[0]) is UNPRICED_SHEET, "a charge without a price is found by its source"
    write_prices(database, pair(4, 5, valid_from=clock.now + HOUR), [], clock.now)
    await book.refresh()
    assert book.current().costs[0] is None
    clock.now += HOUR
    assert book.current().cost(built.models[0]).plain.rates["input"] == 4 * PICO


def test_the_book_is_asked_by_the_names_that_the_configuration_gives(database: Database) -> None:
    write_prices(database, pair(3, 15, model="xai/grok", owner="xai"), [], START)
    write_prices(database, pair(9, 9, model="xai/grok", owner="azure"), [], START)
    write_prices(database, [price("input", 3.3, model="xai/grok", owner="xai", region="eu")], [], START)
    built = booked(model="xai/grok", provider="xai", region="eu")
    rates = loaded(built, database).current().cost(built.models[0]).plain.rates
    assert (rates["input"], rates["output"]) == (3_300_000_000_000, 15 * PICO)


@pytest.mark.parametrize(
    ("rows", "book", "message"),
    [
        ([], {}, "has no price of 'm' that is valid now"),
        ([*pair(1, 2, model="azure_ai/m"), *pair(1, 2, model="xai/m")], {}, "Near: 'xai/m', 'azure_ai/m'"),
        (pair(1, 2, model="gpt-4o-mini"), {"model": "gpt-4o-mimi"}, "Near: 'gpt-4o-mini'"),
        ([price("input", 1)], {}, "lacks a price of 'm' for input or output"),
        (pair(1, 2, valid_from=START + HOUR), {}, "lacks a price of 'm' for input or output that is valid now"),
        ([*pair(1, 2), *pair(1, 2, owner="azure")], {}, r"by azure, openai: name one with `book: {provider: azure}`"),
        (pair(1, 2), {"provider": "xai"}, "by openai, not by 'xai'"),
    ],
)
def test_a_model_without_a_price_is_refused_at_the_start_with_what_to_do(
    database: Database, rows: list[Any], book: dict[str, str], message: str
) -> None:
    write_prices(database, rows, [], START)
    with pytest.raises(ConfigError, match=r"model 'm' has `price: book`.*" + message.replace("(", r"\(")):
        loaded(booked(**book), database)
    assert [problem.kind for problem in check_book(database, booked(**book), START)] == ["unpriced"]


async def test_a_database_that_is_gone_leaves_the_known_prices(tmp_path: Any, sqlite_url: str) -> None:
    database = connect(sqlite_url)
    write_prices(database, pair(3, 15), [], START)
    built = booked()
    book = loaded(built, database)
    before = book.current()
    database.close()
    (tmp_path / "test.db").rename(tmp_path / "moved.db")
    (tmp_path / "test.db").mkdir()
    with pytest.raises(Unavailable):
        await book.refresh()
    assert book.current() is before
