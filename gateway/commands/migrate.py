"""`penstock migrate`: bring the database to this version's tables; a database from a newer version is left alone."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.commands.options import config_option, data_dir_option, settings_with


@click.command(short_help="Bring the database to this version's tables.")
@config_option
@data_dir_option
def migrate(config: Path | None, data_dir: Path | None) -> None:
    """Create or change the tables of the configured database; nothing happens when they are up to date."""
    from gateway.commands.configuration import configured_database_url
    from gateway.commands.data_folder import open_data_folder
    from gateway.commands.database import prepare_database

    settings = settings_with(config=config, data_dir=data_dir)
    url = configured_database_url(settings)
    if url.startswith("sqlite"):
        open_data_folder(settings.data_dir)
    click.echo(f"The database {prepare_database(url, may_migrate=True)} is up to date.")
