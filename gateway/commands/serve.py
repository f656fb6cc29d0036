"""`penstock serve`: the gateway alone, from a configuration file; everything that can be wrong is said before it listens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from gateway.commands.options import config_option, data_dir_option, listen_options, settings_with


@click.command(short_help="The gateway alone, from a configuration file.")
@config_option
@listen_options
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Gateway processes. [env: PENSTOCK_WORKERS]")
@click.option("--engine-url", metavar="URL", help="Where `engine: bundled` models are served, ending in /v1.")
@data_dir_option
def serve(
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    engine_url: str | None,
    data_dir: Path | None,
) -> None:
    """Run the gateway from a configuration file, without the bundled engine.

    An SQLite database is migrated at the start; a PostgreSQL database that is behind is refused until
    `penstock migrate` has run. Ends cleanly on SIGTERM or Ctrl-C: running streams are finished and settled.
    """
    from gateway.commands.configuration import check_engine, check_workers, load_catalog
    from gateway.commands.data_folder import lock_data_folder, open_data_folder
    from gateway.commands.database import check_keys, check_prices, deliver_leftovers, prepare_database
    from gateway.commands.listen import base_url, listen
    from gateway.commands.serving import deliverer_program, jobs_program, run_until_stopped, worker_programs

    settings = settings_with(config=config, host=host, port=port, workers=workers, data_dir=data_dir)
    catalog = load_catalog(settings)
    check_engine(catalog, engine_url)
    url = settings.database(catalog.database)
    check_workers(settings, catalog, url)
    folder = open_data_folder(settings.data_dir)
    lock_data_folder(folder)
    listener = listen(settings.host, settings.port)
    settings = replace(settings, data_dir=folder.path, database_url=url, port=listener.getsockname()[1])
    prepare_database(url, may_migrate=url.startswith("sqlite"))
    check_prices(catalog, url)
    check_keys(catalog, url)
    deliver_leftovers(folder, url, catalog)
    for warning in catalog.warnings:
        click.echo(f"penstock: warning: {warning}", err=True)
    address = base_url(listener)
    stages = [worker_programs(settings, listener, engine_url), [deliverer_program(settings), jobs_program(settings)]]
    run_until_stopped(stages, listener, lambda: click.echo(f"Penstock is ready at {address}/v1"))
