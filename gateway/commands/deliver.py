"""`penstock deliver`: brings usage events from the spool to the database; run by `up` and `serve`, not by people."""

from __future__ import annotations

import click

from gateway.commands.options import settings_with


@click.command(hidden=True)
def deliver() -> None:
    """Deliver the spool until SIGTERM, and what is left of it then."""
    from gateway.commands.configuration import configured_database_url, publishes_usage
    from gateway.commands.give_way import give_way
    from gateway.metering.deliver import run_deliverer
    from gateway.telemetry.logs import configure_logging

    give_way()
    settings = settings_with()
    configure_logging(settings.log_level)
    run_deliverer(settings.spool, configured_database_url(settings), publish=publishes_usage(settings))
