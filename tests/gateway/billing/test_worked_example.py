"""docs/billing.md works through one request; its numbers are computed here by the code that bills."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from gateway.billing.cost import rate_usage
from gateway.billing.ledger import entries_of
from gateway.billing.prices.choose import marked_up
from gateway.metering.normalise import normalise
from gateway.money import format_usd
from tests.builders import catalog, model, sheets
from tests.usage import attempt, event

PAGE = (Path(__file__).parents[3] / "docs" / "billing.md").read_text(encoding="utf-8")


def test_the_worked_example_is_what_the_code_computes() -> None:
    made = catalog(
        model("gpt", price={"input": 2.5, "cached_input": 1.25, "output": 10}),
        tenants=[{"name": "acme", "price_plan": {"markup_percent": 20}}],
    )
    [raw] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    usage = normalise(json.loads(raw))
    [asked] = sheets(made)
    paid = marked_up(asked, made.tenants["acme"].markup_percent).plain
    cost, charge = rate_usage(usage, asked.plain), rate_usage(usage, paid)
    for line, charged in zip(cost.lines, charge.lines, strict=True):
        amounts = f"{format_usd(line.rate)} | {format_usd(line.amount)} | {format_usd(charged.amount)}"
        assert f"| {line.meter} | {line.quantity} | {amounts} |" in PAGE
    total = usage.input_total + usage.output_total
    assert f"| total | {total} | | {format_usd(cost.total)} | {format_usd(charge.total)} |" in PAGE
    for account, amount in entries_of(event(attempt(1, usage, model="gpt", cost=cost, charge=charge))).items():
        assert f"| `{account.name}` | {amount} |" in PAGE
    twice = rate_usage(replace(usage, input=usage.input_total), paid).total
    lost = charge.total - charge.amount("reasoning")
    assert f"twice would have charged {format_usd(twice)} USD" in PAGE
    assert f"losing the reasoning tokens, {format_usd(lost)} USD" in PAGE
