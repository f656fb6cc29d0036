"""Who may import whom, as data: who, what it may not import, where it may after all, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.source import PACKAGES, attributes, imports, is_within, module_name, python_files


@dataclass(frozen=True, slots=True)
class Layer:
    """Rooms of `gateway` on one level. `siblings` says whether they may import each other."""

    name: str
    rooms: tuple[str, ...]
    siblings: bool
    why: str


GROUND = (
    "catalog", "catalog_engine", "catalog_outlets", "catalog_owners", "catalog_shadow", "config", "config_exports",
    "config_outlets", "config_owners", "config_policies", "config_routing", "config_section", "config_shadow",
    "config_yaml", "mistakes", "builtin", "aside", "store", "db", "telemetry",
)  # fmt: skip
WORDS = (
    "types", "value", "routed", "callers", "conventions", "verdicts", "request_ids", "money", "errors", "settings", "garbage",
    "energy",
)  # fmt: skip
LAYERS = (
    Layer(
        "door",
        ("__main__", "cli", "commands", "supervise", "guardian", "app", "api", "middleware"),
        True,
        "the outside of the house: it may see every room and no room may see it",
    ),
    Layer("sentence", ("chat", "jobs"), True, "says what happens, in order; rooms below must not know that order"),
    Layer(
        "assembly",
        ("services", "scorers", "abilities", "promising", "rescoring", "artifacts", "recalibration"),
        True,
        "puts the parts together once",
    ),
    Layer(
        "parts",
        ("keys", "limits", "cache", "routing", "labels", "reasoning", "providers", "metering", "billing", "reports"),
        False,
        "a part that knows another part cannot be changed or tested alone; the sentence connects them",
    ),
    Layer("ground", GROUND, True, "what the parts stand on"),
    Layer(
        "words",
        WORDS,
        True,
        "what everybody says; it depends on nothing",
    ),
)

EXCEPTIONS: dict[tuple[str, str], str] = {
    # (file, room it may import although the layers forbid it): reason
    (
        "gateway/metering/deliver.py",
        "billing",
    ): "usage, rated lines and ledger entries of one event are one transaction",
    (
        "gateway/metering/deliver.py",
        "labels",
    ): "a label goes to SQL with the checkpoint of its record, and after the request it is about",
    ("gateway/billing/ledger/verify.py", "metering"): "compares both sides, so it reads both",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """`who` (a folder or file) may not import `modules`, except in the files under `unless`."""

    who: str
    modules: tuple[str, ...]
    why: str
    unless: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    """Names of these modules that may be imported all the same."""

    def __str__(self) -> str:
        where = f", except in {', '.join(self.unless)}" if self.unless else ""
        return f"{self.who} may not import {', '.join(self.modules)}{where}"


RULES = (
    Rule(
        "gateway",
        ("local_engine", "torch", "transformers"),
        "the engine is a provider: it is reached over HTTP, and the gateway starts in a second without torch",
    ),
    Rule(
        "gateway",
        ("router_models",),
        "the router is loaded once, where everything is assembled, and passed by hand",
        # Training and calibration are commands and a job of their own: nothing of them is loaded where requests are served.
        unless=(
            "gateway/services.py",
            "gateway/abilities.py",
            "gateway/promising.py",
            "gateway/rescoring.py",
            "gateway/scorers.py",  # opens the artifacts that are in SQL, for services and for whoever adds one
            "gateway/recalibration.py",  # fits an artifact to labels; only the job that does so imports it
            "gateway/commands/router",
        ),
    ),
    Rule("gateway", ("sklearn", "scipy", "pandas", "litellm"), "heavy libraries must not be in the gateway's memory"),
    Rule(
        "gateway",
        ("fastapi", "starlette"),
        "HTTP is spoken at the door only, so that everything else can be called without it",
        unless=("gateway/api/", "gateway/app.py", "gateway/middleware.py"),
    ),
    Rule(
        "gateway",
        ("uvicorn", "click", "rich"),
        "the terminal and the server process belong to the command line",
        unless=(
            "gateway/cli.py",
            "gateway/commands/",
            "gateway/supervise/",
            "gateway/supervise.py",
            "gateway/__main__.py",
        ),
    ),
    Rule(
        "gateway",
        ("aiohttp",),
        "upstreams are spoken to by providers only: deadlines and error translation live there",
        unless=("gateway/providers/",),
    ),
    Rule(
        "gateway", ("redis",), "shared counters are reached through the Store protocol only", unless=("gateway/store/",)
    ),
    Rule(
        "gateway",
        ("sqlalchemy", "alembic"),
        "SQL stands in queries.py files, so that every statement can be found and read; a connection may be passed on",
        unless=("gateway/db/", "queries.py"),
        but=("sqlalchemy.Connection", "sqlalchemy.Row"),
    ),
    Rule(
        "router_models",
        ("torch", "sklearn", "scipy", "pandas", "pyarrow"),
        "serving a score needs numpy alone",
        unless=("router_models/training/", "router_models/evaluation/"),
    ),
    Rule("router_models", ("gateway", "local_engine"), "the router can be used and trained without the gateway"),
    Rule("local_engine", ("gateway", "router_models"), "the engine is a server of its own"),
    Rule(
        "local_engine",
        ("transformers", "sklearn", "pandas", "litellm"),
        "transformers is the reference in tests, never a part of the engine",
        unless=("local_engine/training/",),
    ),
    Rule(
        "migrations",
        ("gateway.billing", "gateway.metering", "gateway.keys", "gateway.chat", "gateway.api"),
        "a migration describes one moment; code that goes on changing would change it afterwards",
    ),
)


@dataclass(frozen=True, slots=True)
class Touch:
    """An attribute that only some files may use."""

    what: tuple[str, ...]
    unless: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"{', '.join(self.what)} only in {', '.join(self.unless)}"


TOUCHES = (
    Touch(
        ("os.environ", "os.getenv", "os.putenv"),
        ("gateway/settings.py",),
        "every variable is documented because there is one list of them",
    ),
    Touch(
        ("connection.begin", "engine.begin", "commit", "begin_nested"),
        ("gateway/db/transaction.py",),
        "a transaction that somebody else may end is not one",
    ),
)


def allowed(path: Path, unless: tuple[str, ...]) -> bool:
    """Whether a file lies under one of the exceptions: a folder, a file, or a bare file name."""
    text = path.as_posix()
    return any(text.startswith(place) if "/" in place else path.name == place for place in unless)


def room_of(module: str) -> str | None:
    """The room of a module of `gateway`: `gateway.keys.secrets` is in `keys`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "gateway" and len(parts) > 1 else None


def layer_of(room: str) -> int:
    """The number of a room's layer, 0 at the top."""
    return next((number for number, layer in enumerate(LAYERS) if room in layer.rooms), -1)


def upward_imports(path: Path) -> list[tuple[str, str]]:
    """What a file of `gateway` imports from above or, among parts, from beside: (room, sentence)."""
    room = room_of(module_name(path))
    if room is None:
        return []
    found = []
    for item in imports(path):
        other = room_of(item.module)
        if other in {None, "__version__", room}:
            continue
        mine, theirs = layer_of(room), layer_of(other)
        if theirs > mine or (theirs == mine and LAYERS[mine].siblings):
            continue
        kind = f"is {LAYERS[theirs].name}, above {LAYERS[mine].name}" if theirs < mine else "is a part as well"
        why = LAYERS[theirs if theirs < mine else mine].why
        found.append((other, f"{path}:{item.line} imports gateway.{other}, which {kind}: {why}"))
    return found


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_forbidden_module_is_not_imported(rule: Rule) -> None:
    broken = [
        f"{path}:{item.line} imports {item.module}"
        for path in python_files(rule.who)
        if not allowed(path, rule.unless)
        for item in imports(path)
        if item.module not in rule.but and any(is_within(item.module, module) for module in rule.modules)
    ]
    assert not broken, f"{rule}: {rule.why}\n" + "\n".join(broken)


@pytest.mark.parametrize("touch", TOUCHES, ids=str)
def test_an_attribute_is_used_only_in_its_place(touch: Touch) -> None:
    broken = [
        f"{path}:{line} uses {text}"
        for path in python_files("gateway")
        if not allowed(path, touch.unless)
        for text, line in attributes(path)
        if any(text == what or text.endswith(f".{what}") for what in touch.what)
    ]
    assert not broken, f"{touch}: {touch.why}\n" + "\n".join(broken)


def test_the_environment_is_not_imported_by_name() -> None:
    names = {"os.environ", "os.getenv"}
    broken = [
        f"{path}:{item.line}" for path in python_files("gateway") for item in imports(path) if item.module in names
    ]
    assert not broken, f"`from os import environ` hides who reads the environment: {broken}"


def test_every_room_of_the_gateway_has_a_layer() -> None:
    rooms = {room for path in python_files("gateway") if (room := room_of(module_name(path)))}
    homeless = sorted(room for room in rooms if layer_of(room) < 0)
    assert not homeless, (
        f"give these rooms a layer in tests/house/test_imports.py and in docs/architecture.md: {homeless}"
    )


def test_rooms_import_downward_only() -> None:
    broken = [
        sentence
        for path in python_files("gateway")
        for other, sentence in upward_imports(path)
        if (path.as_posix(), other) not in EXCEPTIONS
    ]
    assert not broken, "\n".join(broken)


def test_every_exception_is_still_needed() -> None:
    used = {(path.as_posix(), other) for path in python_files("gateway") for other, _ in upward_imports(path)}
    stale = sorted(set(EXCEPTIONS) - used)
    assert not stale, f"remove these from EXCEPTIONS, nothing needs them any more: {stale}"


def test_tests_are_not_imported_by_the_product() -> None:
    broken = [
        f"{path}:{item.line} imports {item.module}"
        for path in python_files(*PACKAGES)
        for item in imports(path)
        if is_within(item.module, "tests") or is_within(item.module, "benchmarks")
    ]
    assert not broken, f"what is installed must not need what is not: {broken}"
