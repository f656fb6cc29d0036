"""Documentation that lies fails the build: each table in docs/ is compared, row by row, with what the code says.

A failure prints the rows as they should stand, ready to be pasted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway import errors
from gateway.api import admin, health, models
from gateway.api.wire.chat_request import OPTIONS
from gateway.app import HOT_ROUTES, OPEN_ROUTES
from gateway.catalog import build_catalog
from gateway.cli import penstock
from gateway.config import Config, check_config
from gateway.db.tables import metadata
from gateway.jobs.table import JOBS
from gateway.settings import SETTINGS
from gateway.telemetry.metrics import METRICS
from tests.house.source import ROOT, python_files, tree

ROW = re.compile(r"^\| .+ \|$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def page(name: str) -> str:
    """The text of one page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def cell(text: object) -> str:
    """Text as it stands in a table: on one line, bars escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def assert_table(name: str, section: str, expected: list[str]) -> None:
    """Every row of one section starts as the code says, and there is no other. Cells may follow the compared ones."""
    text = page(name)
    assert f"\n{section}\n" in text, f"docs/{name} needs the heading {section!r}"
    body = re.split(r"\n#{1,6} ", text.split(f"\n{section}\n", 1)[1], maxsplit=1)[0]
    rows = [re.sub(" +", " ", row) for row in ROW.findall(body) if not set(row) <= set("|-: ")][1:]
    expected = [re.sub(" +", " ", row) for row in expected]
    missing = [row for row in expected if not any(found.startswith(row) for found in rows)]
    stale = [row for row in rows if not any(row.startswith(want) for want in expected)]
    assert not missing, f"docs/{name}, {section!r}: rows that the code asks for:\n" + "\n".join(missing)
    assert not stale, f"docs/{name}, {section!r}: rows that the code does not know:\n" + "\n".join(stale)


def error_classes(base: type[errors.PenstockError] = errors.PenstockError) -> Iterator[type[errors.PenstockError]]:
    """The error tree, in the order in which it is written."""
    yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of penstock.yaml with its dotted name; `[]` marks a list, `NAME` a name of one's own."""
    for name, field in section.model_fields.items():
        key = field.alias or name
        inner, mark = inner_section(field.annotation)
        yield f"{prefix}{key}", field
        if inner is not None:
            yield from fields(inner, f"{prefix}{key}{mark}.")


def inner_section(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The section inside an annotation, and how its keys are reached from outside."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    origin = get_origin(annotation)
    for argument in get_args(annotation):
        section, mark = inner_section(argument)
        if section is not None:
            return section, {tuple: "[]", dict: ".NAME"}.get(origin, "") + mark
    return None, ""


def shown_default(field: FieldInfo) -> str:
    """A default as a reader of the page would type it."""
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel) or field.default in (None, (), {}):
        return ""
    if isinstance(field.default, tuple):
        return f"`[{', '.join(map(str, field.default))}]`"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def commands(
    group: click.Command, path: tuple[str, ...] = ("penstock",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that call it; hidden ones are not for people."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield from commands(command, (*path, name))


def error_row(error: type[errors.PenstockError]) -> str:
    """How one error stands in the table; what to do about it follows in the page's own words."""
    row = f"| {error.status} | `{error.type}` | `{error.code}` |"
    meaning = cell((error.__doc__ or "").splitlines()[0])
    return row if error is errors.PenstockError else f"{row} {meaning} |"


def test_every_error_that_can_happen_is_documented() -> None:
    sources = "\n".join((ROOT / path).read_text(encoding="utf-8") for path in python_files("gateway"))
    made = re.compile(r"(?<!class )\b([A-Z]\w+)\(")
    used = set(made.findall(sources)) | {"PenstockError"}
    rows = [error_row(error) for error in error_classes() if not error.__subclasses__() or error.__name__ in used]
    assert_table("http-api.md", "## Errors", rows)


def test_every_error_code_has_one_meaning() -> None:
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes)), f"two error classes share a code: {sorted(codes)}"


def test_every_setting_is_documented() -> None:
    rows = [
        f"| `{setting.name}` | {f'`{setting.default}`' if setting.default else ''} | {cell(setting.help)} |"
        for setting in SETTINGS
    ]
    assert_table("configuration.md", "## Environment", rows)


def test_every_configuration_key_is_documented() -> None:
    rows = [f"| `{name}` | {shown_default(field)} | {cell(field.description)} |" for name, field in fields(Config)]
    assert_table("configuration.md", "## penstock.yaml", rows)


def test_every_job_is_documented() -> None:
    rows = ROW.findall(page("operations.md").split("\n## Jobs\n", 1)[1].split("\n## ", 1)[0])
    assert {row.split("`")[1] for row in rows if "`" in row} == {job.name for job in JOBS}


def test_every_metric_is_documented() -> None:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {cell(metric.help)} |" for metric in METRICS
    ]
    assert_table("operations.md", "## Metrics", rows)


def first_cells(name: str, section: str) -> set[str]:
    """What stands in code type in the first column of one section's table."""
    body = re.split(r"\n## ", page(name).split(f"\n{section}\n", 1)[1], maxsplit=1)[0]
    return set(re.findall(r"^\| `([^`]+)` \|", body, re.MULTILINE))


def test_every_address_is_documented() -> None:
    routes = [*health.router.routes, *models.router.routes, *admin.router.routes]
    paths = {*HOT_ROUTES, *OPEN_ROUTES, *(getattr(route, "path", "") for route in routes)} - {""}
    paths |= {f"{admin.api.prefix}{getattr(route, 'path', '')}" for noun in admin.NOUNS for route in noun.routes.routes}
    text = page("http-api.md")
    plain = {path.replace(":path}", "}") for path in paths}
    assert not {path for path in plain if f"`{path}`" not in text}, "docs/http-api.md leaves these addresses out"
    known = plain | {"/admin/api/openapi.json"}
    assert first_cells("http-api.md", "## Addresses") <= known, "docs/http-api.md names addresses that do not exist"


def test_every_option_of_a_request_is_documented() -> None:
    assert first_cells("http-api.md", "## Options of a request") == set(OPTIONS)


def test_every_response_header_is_documented() -> None:
    sent = {
        node.value
        for path in (Path("gateway/chat/headers.py"), Path("gateway/middleware.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("x-penstock-")
    }
    assert first_cells("http-api.md", "## Response headers") == sent


def undocumented(words: tuple[str, ...], command: click.Command, text: str) -> Iterator[str]:
    """What docs/cli.md gets wrong about one command."""
    name = " ".join(words)
    if f"\n## {name}\n" not in text:
        yield f"needs the heading '## {name}'"
        return
    section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    options = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts) if flag[:2] == "--"}
    mentioned = set(FLAG.findall(section))
    yield from (f"{name} has the option {flag}, which is not mentioned" for flag in sorted(options - mentioned))
    yield from (f"{name} has no option {flag}" for flag in sorted(mentioned - options))


def test_every_command_is_documented_with_its_options() -> None:
    text = page("cli.md")
    wrong = [problem for words, command in commands(penstock) for problem in undocumented(words, command, text)]
    assert not wrong, "docs/cli.md:\n" + "\n".join(wrong)


def test_no_command_is_documented_that_does_not_exist() -> None:
    known = {" ".join(words) for words, _ in commands(penstock)}
    documented = set(re.findall(r"^## (penstock .+)$", page("cli.md"), re.MULTILINE))
    assert documented - known == set()


def test_every_database_table_is_listed_once() -> None:
    section = page("billing.md").partition("\n## Tables\n")[2]
    listed = [name for name in re.findall(r"`(\w+)`", section) if not name.startswith("_")]
    assert sorted(listed) == sorted(metadata.tables), "docs/billing.md, section Tables"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]
    assert not broken, f"these links lead nowhere: {broken}"


def test_the_example_configuration_is_accepted() -> None:
    example = re.search(r"```yaml\n(.*?)```", page("configuration.md"), re.DOTALL)
    assert example is not None
    config = check_config(yaml.safe_load(example.group(1)), "docs/configuration.md")
    assert build_catalog(config, "docs/configuration.md", secret=lambda name: f"secret of {name}").warnings == ()
