"""`penstock router artifacts|assign|rollback`: which artifact scores the requests of a policy, changed while gateways run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gateway.commands.options import Between, config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import actor, open_owners
from gateway.errors import ConfigError, NotFound, StartupError

DEFAULT_SHARE = 0.1


@click.group(short_help="Trained artifacts that are kept in the database.")
def artifacts() -> None:
    """Trained artifacts: the bundled one, and those that were added or recalibrated."""


@artifacts.command("list", short_help="Every artifact, and which policies use it.")
@config_option
@data_dir_option
@json_option
def list_(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show every artifact, the bundled one first."""
    from gateway.artifacts import bundled
    from gateway.commands.table import print_table
    from gateway.db.transaction import snapshot
    from gateway.routing.artifacts.show import list_artifacts

    with (
        open_owners(settings_with(config=config, data_dir=data_dir)) as (_, database),
        snapshot(database) as connection,
    ):
        listed = list_artifacts(connection, bundled())
    if as_json:
        print_json({"artifacts": listed})
        return
    columns = ("version", "source", "made (UTC)", "by", "champion of", "challenger of")
    rows = [
        [
            each["version"] if "called" not in each else f"{each['version']} ({each['called']})",
            each["source"],
            (each["made_at"] or "")[:19],
            each["made_by"] or "",
            ", ".join(each["champion_of"]),
            ", ".join(each["challenger_of"]),
        ]
        for each in listed
    ]
    print_table(columns, rows)


@artifacts.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
@data_dir_option
@json_option
def add(file: Path, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Keep FILE, which the training wrote. It is refused unless this release can serve with it."""
    from gateway import artifacts as kept

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (_, database):
        added = kept.add(database, _content(file), str(file), actor(), time.time())
    if as_json:
        print_json(added)
        return
    click.echo(f"{added['version']} is kept. `penstock router assign POLICY --champion {added['version']}` uses it.")


@artifacts.command()
@click.argument("version")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the file itself there."
)
@config_option
@data_dir_option
@json_option
def show(version: str, out: Path | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show what VERSION says of itself, and write its file if asked."""
    from gateway.artifacts import bundled
    from gateway.db.transaction import snapshot
    from gateway.routing.artifacts.queries import BUNDLED, artifact_bytes
    from gateway.routing.artifacts.show import list_artifacts, show_artifact

    with (
        open_owners(settings_with(config=config, data_dir=data_dir)) as (_, database),
        snapshot(database) as connection,
    ):
        if version == BUNDLED:
            shown: dict[str, Any] | None = {**list_artifacts(connection, bundled())[0], "card": bundled()["card"]}
        else:
            shown = show_artifact(connection, version)
        file = artifact_bytes(connection, version) if out is not None else None
    if shown is None or (out is not None and file is None):
        raise NotFound(
            f"There is no artifact {version!r} in the database. `penstock router artifacts list` shows them."
        )
    if out is not None and file is not None:
        _write(out, file[0])
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        if name != "card":
            click.echo(f"{name:<14} {', '.join(value) if isinstance(value, list) else '' if value is None else value}")
    for name, value in shown["card"].items():
        click.echo(f"card: {name:<20} {str(value)[:100]}")


@artifacts.command()
@click.argument("version")
@config_option
@data_dir_option
@json_option
def remove(version: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Remove VERSION, unless a policy uses it or a rollback would return to it."""
    from gateway.db.transaction import transaction
    from gateway.routing.artifacts.change import remove_artifact

    with (
        open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database),
        transaction(database) as connection,
    ):
        remove_artifact(connection, version, actor(), time.time(), catalog.policies)
    print_json({"removed": version}) if as_json else click.echo(f"{version} is removed.")


@click.command()
@click.argument("policy")
@click.option(
    "--champion", required=True, metavar="VERSION", help="Scores the requests; `bundled` is the package's own."
)
@click.option("--challenger", metavar="VERSION", help="Scores a share of them, and is judged against the champion.")
@click.option(
    "--share", type=Between(0, 0.5, min_open=True), help="The challenger's share, at most 0.5. [default: 0.1]"
)
@click.option("--reason", default="assigned by hand", show_default=True, help="Kept with the change.")
@config_option
@data_dir_option
@json_option
def assign(
    policy: str,
    champion: str,
    challenger: str | None,
    share: float | None,
    reason: str,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Give POLICY its artifacts; running gateways use them within two seconds."""
    from gateway.artifacts import known_policy
    from gateway.db.transaction import transaction
    from gateway.routing.artifacts.change import Room
    from gateway.routing.artifacts.change import assign as assign_artifacts
    from gateway.routing.artifacts.show import assignment_document
    from gateway.scorers import MOST_LOADED

    if share is not None and challenger is None:
        raise ConfigError(
            f"--share {share:g} is a challenger's share: name it with --challenger VERSION, or leave --share out"
        )
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        known_policy(catalog, policy)
        room = Room(MOST_LOADED, catalog.policies)
        part = DEFAULT_SHARE if share is None else share
        given = (policy, champion, challenger, part, actor(), time.time(), reason, room)
        with transaction(database) as connection:
            made = assignment_document(assign_artifacts(connection, *given))
    _said(made, as_json)


@click.command()
@click.argument("policy")
@click.option("--reason", required=True, help="Kept with the change.")
@config_option
@data_dir_option
@json_option
def rollback(policy: str, reason: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End POLICY's challenger or, when it has none, return to the champion before."""
    from gateway.artifacts import known_policy
    from gateway.db.transaction import transaction
    from gateway.routing.artifacts.change import roll_back
    from gateway.routing.artifacts.show import assignment_document

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        known_policy(catalog, policy)
        with transaction(database) as connection:
            made = roll_back(connection, policy, actor(), time.time(), reason)
        assert made is not None, "without an expectation it is rolled back or refused"
        shown = assignment_document(made)
    _said(shown, as_json)


def _said(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    challenger = f", challenger {made['challenger']} for {made['share']:.0%}" if made["challenger"] else ""
    click.echo(f"{made['policy']}: champion {made['champion']}{challenger}")


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {str(file)!r}: {error.strerror}") from error


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise StartupError(f"cannot write {str(file)!r}: {error.strerror}") from error
