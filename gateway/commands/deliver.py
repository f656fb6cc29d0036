"""`penstock deliver`: brings usage events from the spool to the database; run by `up` and `serve`, not by people."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from gateway.commands.options import settings_with

NICENESS = 10


@click.command(hidden=True)
def deliver() -> None:
    """Deliver the spool until SIGTERM, and what is left of it then."""
    from gateway.commands.configuration import configured_database_url
    from gateway.metering.deliver import run_deliverer
    from gateway.telemetry.logs import configure_logging

    _give_way()
    settings = settings_with()
    configure_logging(settings.log_level)
    run_deliverer(settings.spool, configured_database_url(settings))


def _give_way() -> None:
    """Answers come first: on a machine that is full, the spool grows and the ledger catches up later."""
    os.nice(NICENESS)
    with suppress(OSError):  # Linux may weigh whole sessions against each other, and then only this counts
        Path("/proc/self/autogroup").write_text(str(NICENESS))
