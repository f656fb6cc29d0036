"""`engine_options` of a bundled model as arguments of `penstock engine serve`; its own check of them follows at the start."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.errors import ConfigError

_TAKEN = frozenset(("model", "served-name", "weights-dir", "host", "port", "api-key"))
"""What the gateway chooses itself."""

_FLAGS = frozenset(("prefix-sharing",))
"""Options that have a `--no-` form."""

_NAME = re.compile(r"[a-z][a-z0-9-]*")


def command_arguments(options: Mapping[str, str | int | float | bool], label: str) -> tuple[str, ...]:
    """`quantize: int8` becomes `--quantize int8`; `off`, which YAML reads as false, `--name=off`; of a flag true and false
    become `--name` and `--no-name`. Raises ConfigError."""
    arguments: list[str] = []
    for key, value in options.items():
        name = key.replace("_", "-")
        if name in _TAKEN or not _NAME.fullmatch(name):
            raise ConfigError(
                f"{label}: engine_options.{key} is nothing to choose here; take an option of `penstock engine serve` "
                f"other than {', '.join(sorted(_TAKEN))}."
            )
        if isinstance(value, bool) and (value or name in _FLAGS):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        else:
            shown = "off" if value is False else value  # YAML reads a bare `off` as false
            arguments.append(f"--{name}={shown}")  # one argument, so that no value can be taken for an option
    return tuple(arguments)
