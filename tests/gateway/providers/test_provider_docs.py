"""docs/providers.md says what a script may hold and what the limits are; it is compared with the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from gateway.providers.deadlines import TICK
from gateway.providers.http import KEEP_ALIVE_SECONDS, MAX_ERROR_BYTES, MAX_REPLY_BYTES
from gateway.providers.script import Behaviour, Script, Tokens
from gateway.providers.stream import MAX_EVENT_BYTES

PAGE = (Path(__file__).parents[3] / "docs" / "providers.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    """First column to second, of the table under this first heading cell."""
    table = PAGE.split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0]
    cells = re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE)
    return {name: second.strip().strip("`") for name, second in cells}


def test_every_key_of_a_script_is_on_the_page_with_its_default() -> None:
    defaults = {entry.name: getattr(Script(), entry.name) for entry in fields(Script)}
    shown = {name: "" if value in (None, "", Tokens()) else str(value) for name, value in defaults.items()}
    assert rows("key") == shown
    for entry in fields(Tokens):
        assert f"`{entry.name}`" in PAGE


def test_every_behaviour_is_on_the_page() -> None:
    assert tuple(rows("behaviour")) == get_args(Behaviour)


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    for words in (
        f"{MAX_REPLY_BYTES >> 20} MiB for a plain reply",
        f"{MAX_EVENT_BYTES >> 20} MiB for one event",
        f"{MAX_ERROR_BYTES >> 10} KiB of an error reply",
        f"kept for {KEEP_ALIVE_SECONDS:g} s",
        f"up to {TICK * 1000:g} ms late",
    ):
        assert words in PAGE
