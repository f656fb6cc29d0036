"""What was served without a price: held, found, rated once with the first price there is, by corrections that add up."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.cost import rate_usage
from gateway.billing.exports import Order, export
from gateway.billing.invoices.issue import close_period
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.billing.prices.check import check_book
from gateway.billing.prices.queries import write_prices
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.jobs.rate_unpriced import Rated, rate_unpriced
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.reports.requests.queries import request_detail
from gateway.reports.usage.report import usage_report
from gateway.types import UNPRICED_SHEET, Attempt, PriceList, Usage, UsageEvent
from tests.builders import catalog, model
from tests.invoicing import day, deliver, parties, price
from tests.pricing import pair
from tests.usage import attempt, event, hold_of, owed

MAXIMUM = 5 * 10**11
USED = Usage(input=2000, cache_read=1000, output=300, reasoning=700)
NOON = day("2026-10-05T12:00")
# 2000 x 3 + 1000 x 3 + 300 x 15 + 700 x 15, in millionths of a USD
COST = 24_000_000_000
CHARGE = COST * 6 // 5


def configured(**changes: Any) -> Catalog:
    return catalog(
        model("new", price="book", provider="openai", base_url="http://127.0.0.1:1/v1", **changes),
        tenants=[{"name": "acme", "price_plan": {"markup_percent": 20}}],
        policies={"default": {"unpriced": "hold", "unpriced_hold_usd": 0.5}},
    )


def unpriced(usage: Usage = USED, *, charge: PriceList | None = None, number: int = 1, **changes: Any) -> Attempt:
    sheet = UNPRICED_SHEET.plain
    given = {
        "model": "new", "upstream_model": "new", "cost": rate_usage(usage, sheet), "charge": rate_usage(usage, charge or sheet),
        "reserved": 0 if charge else MAXIMUM, **changes,
    }  # fmt: skip
    return attempt(number, usage, **given)


def served(*attempts: Attempt, at: datetime = NOON, **changes: Any) -> UsageEvent:
    started = at.timestamp()
    given = {"model": "new", "started_at": started, "finished_at": started + 1, "hold": MAXIMUM, **changes}
    return event(*(attempts or (unpriced(),)), **given)


def priced(database: Database, input_usd: float, output_usd: float, at: datetime, **changes: Any) -> None:
    write_prices(database, pair(input_usd, output_usd, model="new", valid_from=at, **changes), [], at)


def rate(database: Database, at: datetime, built: Catalog | None = None) -> Rated:
    return rate_unpriced(database, built or configured(), at.timestamp())


def charged(database: Database) -> int:
    return usage_report(database, None, None, ()).total.charge_pico


def test_its_tokens_count_at_once_its_money_stays_held_and_nothing_is_free(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, served())
    total = usage_report(database, None, None, ()).total
    assert (total.requests, total.usage.reasoning, total.charge_pico) == (1, 700, 0)
    assert owed(database) == {"acme": MAXIMUM}
    assert verify(database, tmp_path).problems == ()
    [problem] = [each for each in check_book(database, configured(), NOON) if each.kind == "waiting"]
    assert problem.message.startswith("1 calls to 'new' wait for a price")


def test_without_a_price_it_waits_and_stays_held_whatever_happens_to_its_process(
    database: Database, tmp_path: Path
) -> None:
    deliver(database, tmp_path, served())
    deliver(
        database, tmp_path, served(attempt())
    )  # another deliverer looks for holds of dead processes and overdue ones
    done = rate(database, NOON + timedelta(days=300))
    assert (done.calls, done.waiting) == (0, {"new": 1})
    assert owed(database)["acme"] > MAXIMUM
    assert verify(database, tmp_path).problems == ()


def test_it_is_rated_with_the_first_price_there_was_by_a_correction_and_its_hold_ends(
    database: Database, tmp_path: Path
) -> None:
    original = served()
    deliver(database, tmp_path, original)
    priced(database, 3, 15, NOON + timedelta(hours=1))
    priced(database, 30, 150, NOON + timedelta(hours=2))
    done = rate(database, NOON + timedelta(hours=3))
    assert (done.calls, done.cost_pico, done.charge_pico, done.waiting) == (1, COST, CHARGE, {})
    report = usage_report(database, None, None, ()).total
    assert (report.requests, report.cost_pico, report.charge_pico) == (1, COST, CHARGE)
    by_outcome = usage_report(database, None, None, ("outcome",)).rows
    assert [(row.groups[0], row.requests, row.charge_pico) for row in by_outcome] == [
        ("completed", 1, 0), ("corrected", 0, CHARGE),
    ], "no money is hidden"  # fmt: skip
    assert report.usage == USED, "a correction adds money and no tokens"
    assert owed(database) == {"acme": CHARGE}
    correction = request_detail(database, f"{original.request_id}~1")
    assert correction is not None
    assert correction["explanation"] == {"corrects": original.request_id, "attempt": 1}
    back, booked = correction["attempts"]
    assert {line["meter"]: (line["quantity"], line["amount_pico"]) for line in back["charge"]} == {
        "input": (-2000, 0), "cache_read": (-1000, 0), "output": (-300, 0), "reasoning": (-700, 0),
    }  # fmt: skip
    assert {line["meter"]: line["amount_usd"] for line in booked["charge"]} == {
        "input": "0.0072", "cache_read": "0.0036", "output": "0.0054", "reasoning": "0.0126",
    }  # fmt: skip
    assert booked["charge_source"].startswith("book ")
    assert booked["charge_source"].endswith(" +20%")
    assert sum(entry["amount_pico"] for entry in correction["ledger"]) == 0
    assert verify(database, tmp_path).problems == ()
    assert [each.kind for each in check_book(database, configured(), NOON + timedelta(hours=3))] == []


def test_rating_again_or_twice_at_once_or_after_the_spool_is_replayed_changes_nothing(
    database: Database, tmp_path: Path
) -> None:
    originals = [served() for _ in range(30)]
    deliver(database, tmp_path, *originals)
    at = NOON + timedelta(hours=1)
    priced(database, 3, 15, at)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: rate(database, at), range(4)))
    assert sum(each.calls for each in done) == 30
    deliver(database, tmp_path, *originals)
    assert rate(database, at + timedelta(days=1)).calls == 0
    assert charged(database) == 30 * CHARGE
    assert owed(database) == {"acme": 30 * CHARGE}
    assert verify(database, tmp_path).problems == ()


def test_a_hold_that_is_delivered_again_alone_leaves_what_waits_as_it_is(database: Database, tmp_path: Path) -> None:
    original = served(hold=9 * MAXIMUM)
    deliver(database, tmp_path, original)
    spool = Spool.open(tmp_path / "again")
    spool.hold(hold_of(original, expires_at=NOON.timestamp()))
    spool.close()
    for _ in range(2):
        deliverer = Deliverer(tmp_path / "again", database)
        deliverer.deliver_once()
        deliverer.close()
    assert owed(database) == {"acme": MAXIMUM}


def test_a_request_of_a_closed_month_is_corrected_in_the_next_open_one(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, served())
    october = close_period(database, "acme", Month(2026, 10), parties(), day("2026-11-01"))
    assert (october.totals.total_cents, {line.amount_cents for line in october.lines}) == (0, {0})
    priced(database, 300, 1500, day("2026-11-02"))
    assert rate(database, day("2026-11-03")).charge_pico == 100 * CHARGE
    november = close_period(database, "acme", Month(2026, 11), parties(), day("2026-12-01"))
    assert november.totals.usage_pico == 100 * CHARGE
    lines = [line for line in november.lines if line.rate]
    assert {str(line.charge_period) for line in lines} == {"2026-10"}
    assert {line.kind for line in lines} == {"correction"}
    assert verify(database, tmp_path).problems == ()


def test_exports_of_the_month_have_the_corrected_money_and_agree_with_the_ledger(
    database: Database, tmp_path: Path
) -> None:
    deliver(database, tmp_path, served())
    priced(database, 3, 15, NOON + timedelta(hours=1))
    rate(database, NOON + timedelta(hours=2))
    for what in ("focus", "usage", "journal"):
        order = Order(what, Month.parse("2026-10"), "csv")  # type: ignore[arg-type]
        done = export(database, order, tmp_path / "exports")
        totals = {name: value for file in done.as_dict()["files"] for name, value in file["totals"].items()}
        expected = {"focus": "BilledCost", "usage": "charge_usd", "journal": "debit_usd"}[what]
        usd = {"focus": "0.0288", "usage": "0.0288", "journal": "0.0528"}[what]
        assert totals[expected] == usd


def test_the_service_tier_of_its_reply_and_the_tenants_fixed_price_decide(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, served(unpriced(service_tier="priority")))
    at = NOON + timedelta(hours=1)
    priced(database, 3, 15, at)
    priced(database, 6, 30, at, service_tier="priority")
    priced(database, 10, 10, at, book="tenant", owner="acme")
    done = rate(database, at)
    assert (done.cost_pico, done.charge_pico) == (2 * COST, 4000 * 10 * 10**6)
    assert verify(database, tmp_path).problems == ()


def test_a_charge_that_was_known_is_not_booked_again(database: Database, tmp_path: Path) -> None:
    known = rate_usage(USED, price(10)).total
    deliver(database, tmp_path, served(unpriced(charge=price(10))))
    assert charged(database) == known
    assert owed(database) == {"acme": known}
    at = NOON + timedelta(hours=1)
    priced(database, 3, 15, at)
    done = rate(database, at)
    assert (done.cost_pico, done.charge_pico) == (COST, 0)
    total = usage_report(database, None, None, ()).total
    assert (total.cost_pico, total.charge_pico) == (COST, known)
    assert verify(database, tmp_path).problems == ()


def test_of_two_calls_the_one_that_has_a_price_is_rated_and_the_hold_ends_with_the_other(
    database: Database, tmp_path: Path
) -> None:
    first = unpriced(Usage(input=100), model="other", upstream_model="other", status="error")
    deliver(database, tmp_path, served(first, unpriced(number=2)))
    at = NOON + timedelta(hours=1)
    priced(database, 3, 15, at)
    done = rate(database, at)
    assert (done.calls, done.waiting) == (1, {"other": 1})
    assert owed(database) == {"acme": CHARGE + 2 * MAXIMUM}
    built = catalog(
        *({"name": name, "tier": "economy", "provider": "openai", "base_url": "http://127.0.0.1:1/v1", "price": "book"}
          for name in ("new", "other")),
        tenants=[{"name": "acme"}], policies={"default": {"unpriced": "hold"}},
    )  # fmt: skip
    write_prices(database, pair(1, 1, model="other", valid_from=at), [], at)
    assert rate(database, at, built).calls == 1
    assert owed(database) == {"acme": CHARGE + 100 * 10**6}
    assert verify(database, tmp_path).problems == ()


@pytest.mark.parametrize("change", [{"upstream_model": "renamed"}, {"provider": "elsewhere"}, {"model": "gone"}])
def test_a_deployment_that_is_not_configured_any_more_waits_instead_of_costing_what_another_one_does(
    database: Database, tmp_path: Path, change: dict[str, str]
) -> None:
    deliver(database, tmp_path, served(dataclasses.replace(unpriced(), **change)))  # type: ignore[arg-type]
    priced(database, 3, 15, NOON + timedelta(hours=1))
    done = rate(database, NOON + timedelta(hours=2))
    assert (done.calls, done.waiting.total()) == (0, 1)
    assert charged(database) == 0


def test_a_failed_call_that_used_nothing_waits_for_nothing(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, served(unpriced(Usage(), status="error", reserved=0)))
    assert rate(database, NOON).waiting == {}
    assert owed(database) == {"acme": 0}
