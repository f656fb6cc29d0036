"""`penstock members`: people and programs with a role in the admin API; a token is shown once and never again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import actor, moment_text, open_owners
from gateway.keys.roles import ADMIN_KEY, ROLES

if TYPE_CHECKING:
    from gateway.keys.members.queries import Member


@click.group(short_help="Who may use the admin API, and in which role.")
def members() -> None:
    """Members use the admin API with a token of their own, in the role they were given."""


@members.command()
@click.option("--name", required=True, help="Unique within the tenant; shown in the audit log.")
@click.option("--role", required=True, type=click.Choice(ROLES))
@click.option("--tenant", help="The only tenant it may see and change; all of them when absent.")
@config_option
@data_dir_option
@json_option
def add(name: str, role: Any, tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Add a member and show its token, once."""
    from gateway.keys.members.change import add_member

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        made = add_member(database, catalog, name, role, tenant, ADMIN_KEY, actor())
    if as_json:
        print_json({**_describe(made.member), "token": made.token})
        return
    click.echo(f"{made.token}\n")
    click.echo(
        f"This is the token of {name!r} ({made.member.id}), {role} of {tenant or 'all tenants'}. It is not shown again."
    )


@members.command("list")
@click.option("--tenant", help="Only members of this tenant.")
@config_option
@data_dir_option
@json_option
def list_(tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """All members, those who were removed too; never their tokens."""
    from gateway.commands.database import open_database
    from gateway.commands.table import print_table
    from gateway.keys.members.queries import list_members

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        rows = [_describe(member) for member in list_members(database, tenant)]
    if as_json:
        print_json({"members": rows})
    elif rows:
        columns = ("id", "name", "role", "tenant", "created_at", "last_used_at", "ended_at")
        print_table(columns, [[str(row[column] or "-") for column in columns] for row in rows])
    else:
        click.echo("There are no members. Whoever has PENSTOCK_ADMIN_KEY is an owner of everything.")


@members.command()
@click.argument("name_or_id")
@config_option
@data_dir_option
@json_option
def remove(name_or_id: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End a member; its token stops at once."""
    from gateway.commands.database import open_database
    from gateway.keys.members.change import end_member

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        ended = end_member(database, name_or_id, ADMIN_KEY, actor())
    print_json({"removed": ended.id}) if as_json else click.echo(f"Removed {ended.name!r} ({ended.id}).")


def _describe(member: Member) -> dict[str, Any]:
    return {
        "id": member.id,
        "name": member.name,
        "role": member.role,
        "tenant": member.tenant,
        "created_at": moment_text(member.created_at),
        "created_by": member.created_by,
        "last_used_at": moment_text(member.last_used_at),
        "ended_at": moment_text(member.ended_at),
    }
