"""`penstock keys`: make, list, rotate and revoke keys; a secret is shown once and never again."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from gateway.callers import LimitKind, Period
from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError, StartupError
from gateway.types import TIERS

if TYPE_CHECKING:
    from gateway.keys.queries import KeyRow
    from gateway.keys.secrets import NewKey

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """`90s`, `30m`, `24h` or `7d`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; refuses anything else with the forms it takes."""
        if isinstance(value, float):
            return value
        text = str(value)
        if text[-1:] in UNITS and text[:-1].isdigit():
            return float(int(text[:-1]) * UNITS[text[-1]])
        self.fail(f"{text!r} is not a duration; write for example 90s, 30m, 24h or 7d.", param, ctx)


@click.group(short_help="Make, list, rotate and revoke keys.")
def keys() -> None:
    """Keys of the API. They are stored as hashes; a lost secret cannot be shown again, only rotated."""


@keys.command()
@click.option("--name", required=True, help="Shown in reports instead of the secret.")
@click.option("--tenant", default="default", show_default=True, help="Who is billed; declared in the configuration.")
@click.option("--model", "models", multiple=True, help="A model it may ask for (repeat); all when absent.")
@click.option("--tier", "tiers", multiple=True, type=click.Choice(TIERS), help="A tier it may be served from (repeat).")
@click.option("--budget-usd", help="Most it may spend per period, USD.")
@click.option("--budget-period", type=click.Choice(get_args(Period)), default="month", show_default=True)
@click.option("--requests-per-minute", type=click.IntRange(1))
@click.option("--tokens-per-minute", type=click.IntRange(1))
@click.option("--parallel", type=click.IntRange(1), help="Requests in flight at once.")
@click.option("--expires-in", type=Duration(), help="For example 30d; never when absent.")
@config_option
@data_dir_option
@json_option
def create(name: str, tenant: str, as_json: bool, config: Path | None, data_dir: Path | None, **given: Any) -> None:
    """Make a key and show its secret, once."""
    from gateway.commands.configuration import check_names
    from gateway.commands.database import open_database
    from gateway.keys.secrets import create_key

    settings = settings_with(config=config, data_dir=data_dir)
    check_names(settings, tenant=tenant, models=given["models"])
    kinds: dict[LimitKind, int | None] = {
        "requests": given["requests_per_minute"],
        "tokens": given["tokens_per_minute"],
        "parallel": given["parallel"],
    }
    with open_database(settings) as database:
        made = create_key(
            database,
            name=name,
            tenant=tenant,
            models=frozenset(given["models"]) or None,
            tiers=frozenset(given["tiers"]) or None,
            budget=_budget(given["budget_usd"], given["budget_period"]),
            limits={kind: limit for kind, limit in kinds.items() if limit is not None},
            expires_at=time.time() + given["expires_in"] if given["expires_in"] else None,
        )
    _show(made, as_json, {})


@keys.command("list")
@config_option
@data_dir_option
@json_option
def list_(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """All keys made so far, revoked ones too; never their secrets."""
    from gateway.commands.database import open_database
    from gateway.keys.queries import list_keys

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        rows = [_describe(row) for row in list_keys(database)]
    if as_json:
        print_json({"keys": rows})
    elif rows:
        from gateway.commands.table import print_table

        columns = ("id", "name", "tenant", "state", "budget", "limits", "models", "tiers", "last_used_at")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        click.echo("There are no keys yet. Make one with `penstock keys create --name NAME`.")


@keys.command()
@click.argument("name_or_id")
@click.option("--overlap", type=Duration(), default=0.0, help="How long the old secret still works. [default: 0s]")
@config_option
@data_dir_option
@json_option
def rotate(name_or_id: str, overlap: float, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Give a key a new secret with the same rights; the old one ends after the overlap."""
    from gateway.commands.database import open_database
    from gateway.keys.queries import end_key, list_keys
    from gateway.keys.secrets import create_key

    now = time.time()
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        old = _the_only(name_or_id, [row for row in list_keys(database) if name_or_id in {row.id, row.name}], now)
        made = create_key(
            database,
            name=old.name,
            tenant=old.tenant,
            models=old.models,
            tiers=old.tiers,
            budget=(old.budget.limit, old.budget.period) if old.budget else None,
            limits={limit.kind: limit.limit for limit in old.limits},
            expires_at=old.expires_at,
        )
        end_key(database, old.id, now + overlap)
    _show(made, as_json, {"replaces": old.id, "old_secret_ends_at": _moment(now + overlap)})


@keys.command()
@click.argument("name_or_id")
@config_option
@data_dir_option
@json_option
def revoke(name_or_id: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End every key with this name or id; a running gateway refuses it within seconds."""
    from gateway.commands.database import open_database
    from gateway.keys.queries import end_key

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        ended = end_key(database, name_or_id, time.time())
    if not ended:
        raise StartupError(f"no valid key has the name or id {name_or_id!r}. `penstock keys list` shows them.")
    print_json({"revoked": ended}) if as_json else click.echo(f"Revoked {', '.join(ended)}.")


def _budget(usd: str | None, period: Period) -> tuple[int, Period] | None:
    from gateway.money import parse_usd

    try:
        return (parse_usd(usd, "--budget-usd"), period) if usd is not None else None
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def _the_only(name_or_id: str, rows: list[KeyRow], now: float) -> KeyRow:
    valid = [row for row in rows if _state(row, now) == "valid"]
    if len(valid) == 1:
        return valid[0]
    if not valid:
        raise StartupError(f"no valid key has the name or id {name_or_id!r}. `penstock keys list` shows them.")
    raise StartupError(
        f"{len(valid)} valid keys are named {name_or_id!r}: {', '.join(row.id for row in valid)}. Give an id."
    )


def _show(made: NewKey, as_json: bool, more: dict[str, Any]) -> None:
    if as_json:
        print_json({"id": made.id, "name": made.name, "tenant": made.tenant, "key": made.secret, **more})
        return
    click.echo(f"{made.secret}\n")
    click.echo(
        f"This is the secret of {made.name!r} ({made.id}). Keep it now: it is stored as a hash and not shown again."
    )
    if more:
        click.echo(f"The old secret works until {more['old_secret_ends_at']}.")


def _describe(row: KeyRow) -> dict[str, Any]:
    from gateway.money import format_usd

    return {
        "id": row.id,
        "name": row.name,
        "tenant": row.tenant,
        "state": _state(row, time.time()),
        "models": sorted(row.models) if row.models is not None else None,
        "tiers": sorted(row.tiers) if row.tiers is not None else None,
        "budget": {"limit_usd": format_usd(row.budget.limit), "period": row.budget.period} if row.budget else None,
        "limits": {limit.kind: limit.limit for limit in row.limits},
        "created_at": _moment(row.created_at),
        "expires_at": _moment(row.expires_at),
        "revoked_at": _moment(row.revoked_at),
        "last_used_at": _moment(row.last_used_at),
    }


def _state(row: KeyRow, now: float) -> str:
    if row.revoked_at is not None and row.revoked_at <= now:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "valid"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={amount}" for name, amount in value.items()) or "-"
    return ", ".join(value) if isinstance(value, list) else str(value or "-")


def _moment(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds is not None else None
