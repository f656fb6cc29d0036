"""The database as commands use it: opened, at the code's version, caught up with the spool, and closed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.errors import StartupError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.commands.data_folder import DataFolder
    from gateway.db.connect import Database


@contextmanager
def database_at(url: str) -> Iterator[Database]:
    """The database at a URL, closed at the end. Raises ConfigError for a wrong URL, StartupError when unwritable."""
    from gateway.db.connect import connect

    database = connect(url)
    try:
        yield database
    finally:
        database.close()


def prepare_database(url: str, *, may_migrate: bool) -> str:
    """Bring the database to the code's version, or only check that it is there. Returns its URL without the password.

    Raises StartupError for a database that is older (when it may not be migrated) or newer than the code, and
    Unavailable when it does not answer.
    """
    from gateway.db.migrate import check_schema, migrate

    with database_at(url) as database:
        migrate(database) if may_migrate else check_schema(database)
        return database.url


def check_prices(catalog: Catalog, url: str) -> None:
    """Refuse a configuration with a model that the price book does not price: ConfigError says which and what to do."""
    from gateway.billing.prices.book import PriceBook

    if any(model.book is not None for model in catalog.models):
        with database_at(url) as database:
            PriceBook(catalog, database).load()


def check_keys(catalog: Catalog, url: str) -> None:
    """Refuse a configuration with a key that was made before under the same name: ConfigError says what to do."""
    import time

    from gateway.keys.authenticate import check_key_names
    from gateway.keys.queries import list_keys

    with database_at(url) as database:
        check_key_names(catalog, list_keys(database), time.time())


def deliver_leftovers(folder: DataFolder, url: str, catalog: Catalog) -> None:
    """Bring to the database what an unclean end left in the spool, before the gateway rebuilds its budgets from it.

    Call it with the data folder locked and nothing started. Raises StartupError when it cannot be done.
    """
    from gateway.metering.catch_up import deliver_everything
    from gateway.metering.segments import list_segments

    if list_segments(folder.spool):
        click.echo("penstock: delivering the usage that the last run left in the spool", err=True)
        deliver_everything(folder.spool, url, publish=catalog.outlets.events is not None)


@contextmanager
def database_or_empty(settings: Settings) -> Iterator[Database]:
    """The configured database; where no SQLite file is there yet, an empty one for now: what is configured counts alone."""
    import tempfile

    from gateway.db.migrate import migrate

    if _missing_file(settings) is None:
        with open_database(settings) as database:
            yield database
        return
    with tempfile.TemporaryDirectory() as folder, database_at(f"sqlite:///{folder}/empty.db") as database:
        migrate(database)
        yield database


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The configured database, checked to be at the code's version; a SQLite file that is not there is not made."""
    from gateway.commands.configuration import configured_database_url
    from gateway.db.migrate import check_schema

    if (file := _missing_file(settings)) is not None:
        raise StartupError(
            f"there is no database at {file!r} yet. `penstock up` or `penstock migrate` makes one; "
            "an existing one is named with --data-dir, --config or DATABASE_URL."
        )
    with database_at(configured_database_url(settings)) as database:
        check_schema(database)
        yield database


def _missing_file(settings: Settings) -> str | None:
    """The SQLite file that is configured and not there."""
    from gateway.commands.configuration import configured_database_url

    url = configured_database_url(settings)
    file = url.removeprefix("sqlite:///")
    return file if file != url and not Path(file).exists() else None
