"""`penstock jobs`: how the jobs are doing, and one of them now; the process that runs them is not for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.settings import Settings

THREADS = 16
"""More than there are jobs at a time, so that none waits for a connection."""
LONGEST_STATEMENT_SECONDS = 600
"""Jobs look at everything there is; nobody waits for them."""
LEASE_STATEMENT_SECONDS = 5


@click.group(short_help="What runs behind the answers.")
def jobs() -> None:
    """Jobs: what `up` and `serve` do at intervals, in one process per installation."""


@jobs.command("list", short_help="How every job went last.")
@config_option
@data_dir_option
@json_option
def list_(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show every job with its interval, its last run and what came of it."""
    from gateway.commands.database import open_database
    from gateway.commands.table import print_table
    from gateway.jobs.listing import list_jobs
    from gateway.jobs.table import JOBS

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        listing = list_jobs(database, JOBS)
    if as_json:
        print_json(listing)
        return
    rows = [
        [
            job["name"],
            f"{job['every_seconds']:g} s",
            (job["started_at"] or "never")[:19],
            "" if job["seconds"] is None else f"{job['seconds']:.2f} s",
            f"FAILED {job['failures']} times: {job['error']}" if job["error"] else job["result"] or "",
        ]
        for job in listing["jobs"]
    ]
    print_table(("job", "every", "last run (UTC)", "took", "result"), rows, right=("every", "took"))
    click.echo(f"run by: {listing['leader'] or 'nobody; `penstock up` and `penstock serve` run them'}")


@jobs.command("run", short_help="Run one job now.")
@click.argument("name")
@config_option
@data_dir_option
@json_option
def run_(name: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Run the job NAME now, whoever else runs jobs; exit code 1 when it fails."""
    from gateway.commands.database import open_database
    from gateway.jobs.runner import Context, new_holder, run_job
    from gateway.jobs.table import JOBS

    job = next((job for job in JOBS if job.name == name), None)
    if job is None:
        raise ConfigError(f"there is no job {name!r}. Known: {', '.join(job.name for job in JOBS)}.")
    settings = settings_with(config=config, data_dir=data_dir)
    with open_database(settings) as database:
        run = run_job(Context(settings, _catalog(settings), database), job, new_holder())
    if as_json:
        print_json({"name": run.name, "seconds": run.seconds, "result": run.result, "error": run.error})
    elif run.error is None:
        click.echo(run.result or "done")
    if run.error is not None:
        click.echo(f"penstock: job {name} failed: {run.error}", err=True)
        sys.exit(1)


@jobs.command(hidden=True)
def work() -> None:
    """Run jobs until SIGTERM."""
    from gateway.commands.configuration import load_catalog
    from gateway.commands.give_way import give_way
    from gateway.db.connect import connect
    from gateway.jobs.runner import Context, run_until_signal
    from gateway.jobs.table import JOBS
    from gateway.telemetry.logs import configure_logging

    give_way()
    settings = settings_with()
    configure_logging(settings.log_level)
    catalog = load_catalog(settings)
    url = settings.database(catalog.database)
    database = connect(url, deadline_seconds=LONGEST_STATEMENT_SECONDS, pool_size=THREADS)
    leases = connect(url, deadline_seconds=LEASE_STATEMENT_SECONDS, pool_size=THREADS)
    try:
        run_until_signal(Context(settings, catalog, database, leases=leases), JOBS)
    finally:
        leases.close()
        database.close()


def _catalog(settings: Settings) -> Catalog:
    """The configuration; without one there are no tenants but `default`."""
    from gateway.catalog import build_catalog
    from gateway.commands.configuration import load_catalog
    from gateway.config import Config

    return load_catalog(settings) if settings.config else build_catalog(Config(), "no configuration")
