"""The `penstock` command: a table of commands, each imported when it is asked for; errors become one message and an exit code.

Exit codes: 0 done, 1 could not be done, 2 the command line, a setting or the configuration is wrong.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from gateway import __version__
from gateway.errors import ConfigError, InvalidValue, PenstockError, StartupError

COMMANDS = {
    "up": "up:up",
    "serve": "serve:serve",
    "demo": "demo:demo",
    "config": "config_check:config",
    "migrate": "migrate:migrate",
    "keys": "keys:keys",
    "budgets": "budgets:budgets",
    "limits": "limits:limits",
    "members": "members:members",
    "policies": "policies:policies",
    "audit": "audit:audit",
    "prices": "prices:prices",
    "usage": "usage:usage",
    "requests": "requests:requests",
    "rollups": "rollups:rollups",
    "retention": "retention:retention",
    "ledger": "ledger:ledger",
    "invoice": "invoice:invoice",
    "credits": "credits:credits_",
    "export": "export:export",
    "jobs": "jobs:jobs",
    "events": "events:events",
    "reconcile": "reconcile:reconcile",
    "router": "router:router",
    "engine": "engine:engine",
    "scripted": "scripted:scripted",
    "deliver": "deliver:deliver",
    "worker": "worker:worker",
}
"""Name -> module in gateway.commands and the command in it. These modules import what is heavy inside their functions."""


class CommandTable(click.Group):
    """A click group that imports a command's module when the command is first asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: what a newcomer needs comes first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"gateway.commands.{module}"), attribute)
        return command


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="penstock", message="%(prog)s %(version)s")
def penstock() -> None:
    """Cost-aware LLM gateway: decides how much compute each request deserves, and bills it to the last token."""


def main() -> NoReturn:
    """Run the command line; never ends in a traceback for what a person can put right."""
    try:
        penstock.main(prog_name="penstock")
    except ConfigError as error:
        _fail(str(error), 2)
    except StartupError as error:
        _fail(str(error), 1)
    except PenstockError as error:
        _fail(error.message, 2 if isinstance(error, InvalidValue) else 1)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"penstock: {message}", err=True)
    sys.exit(code)
