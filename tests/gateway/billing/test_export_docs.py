"""docs/exports.md names exactly the columns that exports have."""

from __future__ import annotations

import re

import pytest

from gateway.billing.exports.columns import Column
from gateway.billing.exports.focus_columns import BILLING_PERIOD, COST_AND_USAGE, INVOICE_DETAIL, METER_WORDS
from gateway.billing.exports.journal import JOURNAL
from gateway.billing.exports.usage_rows import usage_columns
from gateway.types import METERS
from tests.house.source import ROOT


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("Cost and Usage", COST_AND_USAGE),
        ("Billing Period", BILLING_PERIOD),
        ("Invoice Detail", INVOICE_DETAIL),
        ("Usage rows", usage_columns("provider")),
        ("Journal", JOURNAL),
    ],
)
def test_every_column_is_documented_and_no_other(section: str, columns: tuple[Column, ...]) -> None:
    page = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    body = re.split(r"\n## ", page.split(f"\n## {section}\n", 1)[1], maxsplit=1)[0]
    cells = re.findall(r"^\| (`[^|]+) \|", body, re.MULTILINE)
    documented = [name for text in cells for name in re.findall(r"`([^`]+)`", text)]
    assert sorted(documented) == sorted(column.name for column in columns)


def test_every_meter_has_its_words_in_focus() -> None:
    assert list(METER_WORDS) == list(METERS)
    assert len({words.sku_meter for words in METER_WORDS.values()}) == len(METERS)
