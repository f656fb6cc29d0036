"""How prices and their changes are printed: as documents, and as tables for people."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gateway.billing.prices.change import Comparison, Difference
    from gateway.billing.prices.choose import Price
    from gateway.billing.prices.seed import Seed

SHOWN = 40
"""Lines of a table for people; the document has them all."""


def describe(price: Price) -> dict[str, Any]:
    """One row for JSON."""
    from gateway.money import format_usd

    return {
        "id": price.id,
        "book": price.book,
        "owner": price.owner,
        "model": price.model,
        "meter": price.meter,
        "service_tier": price.service_tier,
        "least_tokens": price.least_tokens,
        "region": price.region,
        "usd_per_million": format_usd(price.rate),
        "currency": "USD",
        "valid_from": price.valid_from.isoformat(),
        "valid_to": price.valid_to.isoformat() if price.valid_to is not None else None,
        "source": price.source,
        "source_hash": price.source_hash,
    }


def regional_prices(known: list[Price], region: str, factor: str, begins: datetime) -> list[Price]:
    """The rows of a region from a provider's rows of a model. Raises ValueError without such rows, or without a factor."""
    from dataclasses import replace

    from gateway.billing.prices.change import BY_HAND, fingerprint
    from gateway.billing.prices.uplift import in_region

    try:
        number = Decimal(factor)
    except ArithmeticError:
        raise ValueError(f"--factor is {factor!r}, which is not a number: 10 % more is 1.1") from None
    base = [row for row in known if row.book == "provider" and row.is_valid(begins)]
    made = in_region([replace(row, valid_from=begins, source=BY_HAND) for row in base], region, number)
    if not made:
        raise ValueError("the model has no price for everywhere then; set one first with `penstock prices set`")
    return [replace(row, source_hash=fingerprint(row)) for row in made]


def print_prices(rows: list[dict[str, Any]]) -> None:
    """A table of rows."""
    from gateway.commands.table import print_table

    columns = (
        "model", "owner", "book", "meter", "service_tier", "least_tokens", "region", "usd_per_million", "valid_from",
        "valid_to",
    )  # fmt: skip
    cells = [[str(row[column] if row[column] not in ("", None) else "-") for column in columns] for row in rows]
    print_table(columns, cells, right=("least_tokens", "usd_per_million"))


def sync_document(seed: Seed, found: Comparison, *, applied: bool, removed: bool) -> dict[str, Any]:
    """What a map holds, what of it was not imported and why, and how it differs from the book."""
    return {
        "source": seed.source,
        "source_hash": seed.source_hash,
        "entries": seed.entries,
        "models": seed.models,
        "prices": len(seed.prices),
        "not_imported": dict(seed.skipped.most_common()),
        "refused": seed.refused,
        "unchanged": found.unchanged,
        "added": [_difference(difference) for difference in found.added],
        "changed": [_difference(difference) for difference in found.changed],
        "removed": [_difference(difference) for difference in found.removed],
        "kept": [_difference(difference) for difference in found.kept],
        "applied": applied,
        "removed_applied": applied and removed,
    }


def print_sync(document: dict[str, Any]) -> None:
    """The same for people: counts, the first changes, what to do next."""
    click.echo(
        f"{document['source']}: {document['entries']} entries, {document['prices']} prices of {document['models']} models."
    )
    for reason, count in document["not_imported"].items():
        click.echo(f"  not imported, {reason}: {count}")
    for refused in document["refused"][:SHOWN]:
        click.echo(f"  refused: {refused}")
    counts = ", ".join(f"{len(document[name])} {name}" for name in ("added", "changed", "removed", "kept"))
    click.echo(f"{counts}, {document['unchanged']} unchanged.")
    changes = [(name, line) for name in ("changed", "removed", "kept", "added") for line in document[name]]
    _print_changes(changes[:SHOWN])
    if len(changes) > SHOWN:
        click.echo(f"... and {len(changes) - SHOWN} more; --json shows all.")
    if document["removed"] and not document["removed_applied"]:
        click.echo("Removed prices stay in force unless they are ended with --remove.")
    click.echo("Applied." if document["applied"] else "Nothing was written; --apply does it.")


def _difference(difference: Difference) -> dict[str, Any]:
    from gateway.money import format_usd

    price = difference.new or difference.old
    assert price is not None, "a difference has at least one side"
    names = ("owner", "model", "meter", "service_tier", "least_tokens", "region")
    return {
        **{name: getattr(price, name) for name in names},
        "old_usd_per_million": format_usd(difference.old.rate) if difference.old is not None else None,
        "new_usd_per_million": format_usd(difference.new.rate) if difference.new is not None else None,
        "percent": str(difference.percent) if difference.percent is not None else None,
    }


def _print_changes(changes: list[tuple[str, dict[str, Any]]]) -> None:
    from gateway.commands.table import print_table

    if not changes:
        return
    columns = (
        "model", "owner", "meter", "service_tier", "least_tokens", "old_usd_per_million", "new_usd_per_million", "percent",
    )  # fmt: skip
    rows = [
        [kind, *(str(line[column] if line[column] is not None else "-") for column in columns)]
        for kind, line in changes
    ]
    print_table(("change", *columns), rows, right=columns[4:])
