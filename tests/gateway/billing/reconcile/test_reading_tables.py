"""Bills as CSV: any columns through a mapping, days of any zone, and a sentence for everything that is wrong with a line."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.csv_bill import Mapping
from gateway.billing.reconcile.lines import BillLine, Settings, UnreadableBill
from gateway.billing.reconcile.pages import File
from gateway.billing.reconcile.read import read_bill

FEBRUARY = Month(2026, 2)


def lines(files: list[File], **how: Any) -> list[BillLine]:
    return list(read_bill("p", FEBRUARY, files, **how).lines)


HEADER = "date,model,meter,quantity,unit_price,amount,currency\n"


def table(*rows: str, header: str = HEADER) -> list[File]:
    return [File("bill.csv", (header + "\n".join(rows)).encode())]


def test_a_csv_of_other_words_is_read_through_its_mapping() -> None:
    header = "Usage Day;SKU;Kind;Thousands;Price per 1k;Cost (USD);Plan\n"
    mapping = Mapping.parse(
        {
            "columns": {"date": "Usage Day", "model": "SKU", "meter": "Kind", "quantity": "Thousands",
                        "unit_price": "Price per 1k", "amount": "Cost (USD)", "service_tier": "Plan"},
            "meters": {"IN": "input", "Support": "other"},
            "unit_price_per": 1000, "quantity_times": 1000, "currency": "USD", "delimiter": ";",
        }
    )  # fmt: skip
    rows = (
        "2026-02-03;m;IN;1,234.5;0.0025;3.08625;Standard",
        "2026-02-28T23:59:59+00:00;m;Cached Input;1;0;0;Batch",
        "2026-02-05;;Support;;;-10.00;",
    )
    first, second, third = lines(table(*rows, header=header), mapping=mapping)
    assert (first.quantity, first.rate, first.amount, first.tier) == (
        1_234_500,
        2_500_000_000_000,
        3_086_250_000_000,
        "default",
    )
    assert (second.day, second.meter, second.tier) == (date(2026, 2, 28), "cache_read", "batch")
    assert (third.model, third.meter, third.quantity, third.amount) == (None, "other", None, -10 * 10**12)


def test_moments_become_days_of_the_bills_zone() -> None:
    rows = ("2026-02-02T03:00:00Z,m,input,1,1,1,USD",)
    assert lines(table(*rows), settings=Settings("America/New_York"))[0].day == date(2026, 2, 1)
    with pytest.raises(UnreadableBill, match="'Mars/Olympus' is not a time zone"):
        lines(table(*rows), settings=Settings("Mars/Olympus"))
    with pytest.raises(UnreadableBill, match="'Asia/Kolkata' do not begin on a full hour"):
        lines(table(*rows), settings=Settings("Asia/Kolkata"))


WRONG_TABLES: dict[str, tuple[list[File], dict[str, Any], str]] = {
    "unknown currency": (table("2026-02-01,m,input,1,1,1,DKK"), {}, "bill.csv, line 2: the currency is 'DKK'"),
    "no currency": (
        table("2026-02-01,1", header="date,amount\n"),
        {},
        "say --currency USD if the whole file is in USD",
    ),
    "no date": (
        table("x,1,USD", header="when,amount,currency\n"),
        {},
        "no column 'date' for the date; it has when, amount",
    ),
    "wrong column": (table(), {"columns": {"model": "SKU"}}, "no column 'SKU' for the model"),
    "wrong month": (
        table("2026-01-31,m,input,1,1,1,USD"),
        {},
        "line 2: the line is of 2026-01-31, and the bill is of 2026-02",
    ),
    "bad date": (
        table("31/02/2026,m,input,1,1,1,USD"),
        {},
        "the date is '31/02/2026'; dates are written as 2026-09-01",
    ),
    "negative quantity": (
        table("2026-02-01,m,input,-5,1,1,USD"),
        {},
        "the quantity is '-5'; a credit has a negative amount",
    ),
    "half a token": (table("2026-02-01,m,input,1.5,1,1,USD"), {}, "the quantity is '1.5', and tokens are whole"),
    "too many": (table("2026-02-01,m,input,1e16,1,1,USD"), {}, "more than any provider serves"),
    "negative price": (table("2026-02-01,m,input,1,-1,1,USD"), {}, "the unit price must not be negative"),
    "dear price": (table("2026-02-01,m,input,1,1e9,1,USD"), {}, "bill.csv, line 2: the unit price"),
    "NaN": (table("2026-02-01,m,input,1,1,NaN,USD"), {}, "the amount is 'NaN', which is not finite"),
    "huge": (table("2026-02-01,m,input,1,1,1e30,USD"), {}, "may be at most 9000000 USD"),
    "decimal comma": (
        table('2026-02-01,m,input,1,1,"0,22",USD'),
        {},
        "line 2: the amount is '0,22'; a comma may only stand between thousands",
    ),
    "European thousands": (table('2026-02-01,m,input,1,1,"1.234,50",USD'), {}, "the amount is '1.234,50'; a comma"),
    "torn thousands": (table('2026-02-01,m,input,"1,23,4",1,1,USD'), {}, "the quantity is '1,23,4'; a comma"),
    "thousandths": (table('2026-02-01,m,input,1,"0,075",1,USD'), {}, "the unit price is '0,075'; a comma"),
    "two amounts": (
        table("2026-02-01,1,2,USD", header="date,amount,amount,currency\n"),
        {},
        "the column 'amount' is there 2 times, so it is not clear which is the amount",
    ),
    "no amount": (table("2026-02-01,m,input,1,1,,USD"), {}, "the amount is '', which is not a decimal number"),
    "strange meter": (
        table("2026-02-01,m,magic,1,1,1,USD"),
        {},
        r"'magic' is not a meter. Say what it is in the mapping",
    ),
    "cut line": (
        table("2026-02-01,m,input,1"),
        {},
        "line 2: not as many fields as the header has; is the file cut off",
    ),
    "open quote": (table('2026-02-01,"m,input,1,1,1,USD'), {}, "bill.csv, line 2: unexpected end of data"),
    "latin": ([File("bill.csv", HEADER.encode() + b"2026-02-01,\xfc")], {}, "not UTF-8; save it as CSV in UTF-8"),
    "empty": (table(), {}, "the files have no lines of 2026-02"),
    "unknown key": (table(), {"colums": {}}, "the mapping has the unknown key 'colums'; known: columns"),
    "unknown field": (table(), {"columns": {"price": "x"}}, "the mapping names the field 'price'; known: date"),
    "unknown meter": (table(), {"meters": {"a": "tokens"}}, "the mapping names the meter 'tokens'; known: input"),
    "no unit": (table(), {"unit_price_per": 0}, "the mapping's unit_price_per is 0; write a whole number"),
}


@pytest.mark.parametrize("what", WRONG_TABLES)
def test_what_is_wrong_with_a_table_is_said(what: str) -> None:
    files, mapping, message = WRONG_TABLES[what]
    with pytest.raises(UnreadableBill, match=message):
        read_bill("p", FEBRUARY, files, mapping=Mapping.parse(mapping))
