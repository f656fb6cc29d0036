"""`penstock up`: engine and gateway with one command; whatever would stop it is said before anything is started."""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.options import config_option, data_dir_option, listen_options, settings_with
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.commands.data_folder import DataFolder
    from gateway.settings import Settings


@click.command(short_help="Engine and gateway with one command; no configuration needed.")
@config_option
@listen_options
@data_dir_option
@click.option("--no-engine", is_flag=True, help="Do not start the bundled engine.")
def up(config: Path | None, host: str | None, port: int | None, data_dir: Path | None, no_engine: bool) -> None:
    """Start everything: database, bundled engine and gateway.

    Without a configuration it serves the bundled model, and OpenAI as premium tier when OPENAI_API_KEY is set.
    It prints the address, a first key and an example. Ctrl-C stops everything cleanly; a second one at once.
    """
    from gateway.commands.configuration import bundled_engine, check_engine, check_workers, load_catalog
    from gateway.commands.data_folder import lock_data_folder, open_data_folder
    from gateway.commands.database import check_keys, check_prices, deliver_leftovers, prepare_database
    from gateway.commands.engine_process import plan_engine
    from gateway.commands.listen import base_url, listen
    from gateway.commands.panel import Panel
    from gateway.commands.serving import deliverer_program, jobs_program, run_until_stopped, worker_programs

    settings = settings_with(config=config, host=host, port=port, data_dir=data_dir)
    folder = open_data_folder(settings.data_dir)
    lock_data_folder(folder)
    listener = listen(settings.host, settings.port)
    settings = replace(settings, data_dir=folder.path, port=listener.getsockname()[1])
    if settings.config is None:
        settings = replace(settings, config=_write_built_in_config(folder, settings, engine=not no_engine))
    catalog = load_catalog(settings)
    bundled = None if no_engine else bundled_engine(catalog)
    if bundled is None:
        check_engine(catalog, None)
    url = settings.database(catalog.database)
    check_workers(settings, catalog, url)
    plan = plan_engine(bundled, folder) if bundled is not None else None
    prepare_database(url, may_migrate=True)
    check_prices(catalog, url)
    check_keys(catalog, url)
    deliver_leftovers(folder, url, catalog)
    admin_key_file = None if settings.admin_key else folder.admin_key
    settings = replace(settings, database_url=url, admin_key=settings.admin_key or _admin_key(folder))
    panel = Panel(base_url(listener), folder, catalog, _first_key(folder, url, catalog), admin_key_file)
    for warning in catalog.warnings:
        click.echo(f"penstock: warning: {warning}", err=True)
    # Stopped in this order: the gateway finishes its streams while the engine answers, then the spool is emptied.
    gateway = worker_programs(settings, listener, plan.url if plan else None, plan.key if plan else None)
    others = [deliverer_program(settings), jobs_program(settings), *([plan.program] if plan else [])]
    run_until_stopped([gateway, others], listener, panel.show)


def _write_built_in_config(folder: DataFolder, settings: Settings, *, engine: bool) -> Path:
    from gateway.builtin import built_in_yaml

    if not engine and not settings.openai_api_key:
        raise ConfigError(
            "there is nothing to serve: --no-engine leaves out the bundled model and OPENAI_API_KEY is not set. "
            "Set it, give a configuration with --config, or leave --no-engine away."
        )
    folder.built_in_config.write_text(built_in_yaml(settings, engine=engine), encoding="utf-8")
    return folder.built_in_config


def _admin_key(folder: DataFolder) -> str:
    """The key of the admin API, made at the first start and kept."""
    from gateway.commands.data_folder import read_secret_file, write_secret_file

    kept = read_secret_file(folder.admin_key)
    if kept is None:
        kept = f"sk-penstock-admin-{secrets.token_urlsafe(32)}"
        write_secret_file(folder.admin_key, kept)
    return kept


def _first_key(folder: DataFolder, url: str, catalog: Catalog) -> str | None:
    """The secret of a valid key for the person at the terminal; None when the configuration declares keys.

    It is kept in the data folder, as the database has only its hash. A new one is made when that key has been revoked
    or the database is another one.
    """
    from gateway.catalog import hash_key
    from gateway.commands.data_folder import read_secret_file, write_secret_file
    from gateway.commands.database import database_at
    from gateway.commands.owners import actor
    from gateway.db.transaction import snapshot
    from gateway.keys.change import KeyOrder, create_key
    from gateway.keys.queries import find_secret, list_keys

    if catalog.keys:
        return None
    with database_at(url) as database:
        kept = read_secret_file(folder.first_key)
        with snapshot(database) as connection:
            found = find_secret(connection, hash_key(kept)) if kept is not None else None
        if kept is not None and found is not None and found.works(time.time()):
            return kept
        taken = {key.name for key in list_keys(database, "default") if key.revoked_at is None}
        # Another machine on the same database may have one, or the file was deleted.
        names = ("first-key" if number == 1 else f"first-key-{number}" for number in itertools.count(1))
        made = create_key(database, KeyOrder(next(name for name in names if name not in taken)), actor())
    write_secret_file(folder.first_key, made.secret)
    return made.secret
