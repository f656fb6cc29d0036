"""`penstock reconcile accept` and `sign-off`: what a person decides about a month, with a name and a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError


@click.command()
@click.argument("run_id")
@click.argument("findings", nargs=-1, type=click.IntRange(1))
@click.option("--class", "kind", metavar="NAME", help="Every open finding of this class, instead of numbers.")
@click.option("--dispute", is_flag=True, help="Known and not paid: nothing is posted.")
@click.option("--reason", required=True, help="Stays in the books.")
@click.option("--by", required=True, metavar="NAME", help="Who decides.")
@config_option
@data_dir_option
@json_option
def accept(
    run_id: str,
    findings: tuple[int, ...],
    kind: str | None,
    dispute: bool,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
    **given: str,
) -> None:
    """Accept findings: the difference is posted to the ledger as a correction of the provider's cost."""
    from gateway.billing.reconcile.accept import decide
    from gateway.billing.reconcile.desk import KINDS
    from gateway.commands.database import open_database
    from gateway.commands.owners import actor

    if bool(findings) == (kind is not None):
        raise ConfigError("name findings by number or one --class, not both or neither.")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--class is {kind!r}; known: {', '.join(KINDS)}.")
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        try:
            run = decide(
                database,
                run_id,
                findings,
                "disputed" if dispute else "accepted",
                given["reason"],
                given["by"],
                datetime.now(UTC),
                kind=kind,
                actor=actor(),
            )
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
    if as_json:
        print_json(run.as_dict())
    else:
        summary = run.summary()
        click.echo(
            f"accepted {summary['accepted_usd']} USD, disputed {summary['disputed_usd']}, open {summary['open_usd']}"
        )


@click.command("sign-off")
@click.option("--provider", metavar="NAME", help="Sign off this provider's month.")
@click.option("--tenant", metavar="NAME", help="Sign off this tenant's month.")
@click.option("--period", required=True, metavar="YYYY-MM", help="The month.")
@click.option("--by", required=True, metavar="NAME", help="Who signs.")
@click.option("--note", default="", help="Stays with the signature.")
@click.option("--force", metavar="REASON", help="Sign although it is not ready; the reason stays.")
@config_option
@data_dir_option
@json_option
def sign_off(period: str, config: Path | None, data_dir: Path | None, as_json: bool, **given: Any) -> None:
    """Sign a month off: who, when, with which totals. Refused while too much of the variance is undecided."""
    from gateway.billing.reconcile.sign_off import sign_off as sign
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import month_given
    from gateway.commands.owners import actor

    if (given["provider"] is None) == (given["tenant"] is None):
        raise ConfigError("give either --provider or --tenant.")
    month = month_given(period)
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        try:
            done = sign(
                database,
                "provider" if given["provider"] is not None else "tenant",
                given["provider"] or given["tenant"],
                month,
                given["by"],
                given["note"],
                datetime.now(UTC),
                force=given["force"],
                actor=actor(),
            )
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
    if as_json:
        print_json(done.as_dict())
    else:
        click.echo(f"{month} of {done.kind} {done.owner} is signed off by {done.signed_by}.")


@click.command("sign-offs")
@click.option("--provider", metavar="NAME", help="Only this provider's.")
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
@click.option("--period", metavar="YYYY-MM", help="Only of this month.")
@config_option
@data_dir_option
@json_option
def sign_offs(
    provider: str | None,
    tenant: str | None,
    period: str | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Signatures, newest month first, and what has changed since."""
    from gateway.billing.reconcile.sign_off import list_sign_offs
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import month_given
    from gateway.commands.table import print_table

    if provider is not None and tenant is not None:
        raise ConfigError("give either --provider or --tenant, or neither.")
    kind = "provider" if provider is not None else "tenant" if tenant is not None else None
    wanted = str(month_given(period)) if period is not None else None
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        found = list_sign_offs(database, kind, provider or tenant, wanted)  # type: ignore[arg-type]
    if as_json:
        print_json({"sign_offs": [each.as_dict() for each in found]})
    elif not found:
        click.echo("Nothing is signed off.")
    else:
        rows = [
            [str(each.month), each.kind, each.owner, each.signed_by, f"{each.signed_at:%Y-%m-%d %H:%M}",
             ", ".join(f"{name}: {then} -> {now}" for name, (then, now) in each.changes.items()) or "-"]
            for each in found
        ]  # fmt: skip
        print_table(("period", "of", "name", "signed_by", "signed_at", "changed since"), rows)
