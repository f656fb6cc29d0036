"""Options that several commands share, and how they override the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import click

from gateway.settings import Settings, read_settings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Between(click.FloatRange):
    """A number of a range; what is none (`nan`, `inf`) is refused, which click's own range lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Fails with the value named."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def config_option(command: Decorated) -> Decorated:
    """`--config FILE`, in place of PENSTOCK_CONFIG."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option("--config", type=kind, metavar="FILE", help="penstock.yaml. [env: PENSTOCK_CONFIG]")(command)


def data_dir_option(command: Decorated) -> Decorated:
    """`--data-dir DIR`, in place of PENSTOCK_DATA_DIR."""
    kind = click.Path(path_type=Path)
    text = "Folder for database, spool, weights and keys. [env: PENSTOCK_DATA_DIR; default: .penstock]"
    return click.option("--data-dir", type=kind, metavar="DIR", help=text)(command)


def listen_options(command: Decorated) -> Decorated:
    """`--host` and `--port`, in place of PENSTOCK_HOST and PENSTOCK_PORT."""
    port_help = "Port to listen on; 0 lets the system choose. [env: PENSTOCK_PORT; default: 4000]"
    command = click.option("--port", type=click.IntRange(0, 65535), metavar="N", help=port_help)(command)
    host_help = "Address to listen on. [env: PENSTOCK_HOST; default: 127.0.0.1]"
    return click.option("--host", metavar="ADDRESS", help=host_help)(command)


def json_option(command: Decorated) -> Decorated:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(command)


def print_json(document: object) -> None:
    """Print exactly one JSON document, on one line."""
    import orjson

    click.echo(orjson.dumps(document))


def settings_with(**options: Any) -> Settings:
    """The environment, with the options that were given in place of their variables. Raises ConfigError."""
    return replace(read_settings(), **{name: value for name, value in options.items() if value is not None})
