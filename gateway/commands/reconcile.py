"""`penstock reconcile`: import a provider's bill, compare it with our book, explain, accept and sign off; all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.reconcile_decide import accept, sign_off, sign_offs
from gateway.errors import ConfigError, StartupError

if TYPE_CHECKING:
    from gateway.billing.reconcile.csv_bill import Mapping
    from gateway.billing.reconcile.pages import File
    from gateway.billing.reconcile.show import Run
    from gateway.config import Config

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
LARGEST_FILE = 512 * 1024 * 1024


@click.group(short_help="Compare a provider's bill with our book.")
def reconcile() -> None:
    """A provider's bill against our book: every difference explained, accepted or disputed, and the month signed off."""


def _month_options(command: Decorated) -> Decorated:
    """Whose bill, of which month."""
    command = click.option("--period", required=True, metavar="YYYY-MM", help="The month of the bill.")(command)
    text = "Whose bill, by default under its name in `penstock usage --group-by provider`."
    return click.option("--provider", required=True, metavar="NAME", help=text)(command)


@reconcile.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_month_options
@click.option(
    "--format", "form", type=click.Choice(("openai", "anthropic", "csv")), help="[default: seen in the files]"
)
@click.option(
    "--columns", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE", help="CSV mapping."
)
@click.option("--column", "column", multiple=True, metavar="FIELD=HEADER", help="CSV: the column of one field.")
@click.option("--currency", metavar="CODE", help="CSV without a column for it.")
@click.option("--zone", default="UTC", show_default=True, metavar="NAME", help="CSV: time zone of the bill's days.")
@click.option("--our-account", multiple=True, metavar="ID", help="A key or project of Penstock's. [default: all]")
@click.option("--model", "models", multiple=True, metavar="THEIRS=OURS", help="A model with another name on the bill.")
@click.option("--booked-as", metavar="NAME", help="The provider's name in our usage. [default: --provider]")
@click.option(
    "--only-model", multiple=True, metavar="OURS", help="An upstream name that this bill is about. [default: all]"
)
@click.option("--replace", is_flag=True, help="In place of the bill that this month has.")
@click.option("--by", default="command line", show_default=True, metavar="NAME", help="Who imports it.")
@config_option
@data_dir_option
@json_option
def import_(
    provider: str, period: str, config: Path | None, data_dir: Path | None, as_json: bool, **given: Any
) -> None:
    """Read all files of a month's bill and keep them; the same files again change nothing."""
    from gateway.billing.reconcile.lines import Settings
    from gateway.billing.reconcile.read import read_bill
    from gateway.billing.reconcile.runs import import_bill
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import month_given
    from gateway.money import format_usd

    month = month_given(period)
    try:
        models = tuple(_pair(each, "--model") for each in given["models"])
        settings = Settings(
            given["zone"], tuple(given["our_account"]), models, given["booked_as"], tuple(given["only_model"])
        )
        files = [_read(path) for path in given["files"]]
        bill = read_bill(provider, month, files, given["form"], settings, _mapping(given))
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        bill_id, new = import_bill(database, bill, datetime.now(UTC), given["by"], replace=given["replace"])
    if as_json:
        lines, usd = len(bill.lines), format_usd(bill.total)
        print_json({"id": bill_id, "new": new, "format": bill.form, "lines": lines, "total_usd": usd})
    elif new:
        click.echo(f"{bill_id}: {len(bill.lines)} lines over {format_usd(bill.total)} USD are imported.")
    else:
        click.echo(f"{bill_id} was imported from these files before; nothing was changed.")


@reconcile.command()
@_month_options
@click.option("--format", "form", type=click.Choice(("openai", "anthropic")), required=True, help="Whose API.")
@click.option("--key", metavar="env:NAME", help="Admin key. [default: env:OPENAI_ADMIN_KEY, env:ANTHROPIC_ADMIN_KEY]")
@click.option("--base-url", metavar="URL", help="Where the API is. [default: the provider's own]")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Where to save."
)
@json_option
def fetch(
    provider: str, period: str, form: str, key: str | None, base_url: str | None, out: Path, as_json: bool
) -> None:
    """Save a month's pages of a provider's cost and usage API, to be imported."""
    from gateway.billing.reconcile.fetch import APIS, fetch_pages
    from gateway.commands.invoice_details import month_given
    from gateway.settings import read_secret

    month = month_given(period)
    reference = key or f"env:{APIS[form].key_variable}"
    if not reference.startswith("env:"):
        raise ConfigError("--key must name a variable, env:NAME: what is typed on a command line stays in its history.")
    secret = read_secret(reference.removeprefix("env:"))
    if secret is None:
        raise ConfigError(f"the variable of {reference!r} is not set; it must hold an admin key of the organisation.")
    pages = list(fetch_pages(form, month, secret, base_url))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for page in pages:
            (out / page.name).write_bytes(page.content)
    except OSError as error:
        raise StartupError(f"cannot write into {str(out)!r}: {error.strerror}.") from error
    names = [str(out / page.name) for page in pages]
    if as_json:
        print_json({"provider": provider, "period": str(month), "files": names})
    else:
        click.echo(f"{len(names)} pages are saved. Next: penstock reconcile import --provider {provider} "
                   f"--period {month} {out}/{form}-{month}-*.json")  # fmt: skip


@reconcile.command()
@_month_options
@click.option("--by", default="command line", show_default=True, metavar="NAME", help="Who reconciles.")
@config_option
@data_dir_option
@json_option
def run(provider: str, period: str, by: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Compare the imported bill with our book and keep what is found."""
    from gateway.billing.reconcile.runs import Tolerances
    from gateway.billing.reconcile.runs import reconcile as compare
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import configuration, month_given
    from gateway.money import parse_usd

    settings = settings_with(config=config, data_dir=data_dir)
    month, config_file = month_given(period), configuration(settings)
    stated = config_file.billing.reconciliation
    tolerances = Tolerances(
        parse_usd(stated.rounding_usd, "rounding_usd"), parse_usd(stated.variance_usd, "variance_usd")
    )
    with open_database(settings) as database:
        done = compare(database, provider, month, tolerances, datetime.now(UTC), by, _served(config_file))
    print_json(done.as_dict()) if as_json else _print_run(done)


@reconcile.command()
@click.argument("run_id", required=False)
@click.option("--provider", metavar="NAME", help="Without a run: only runs of this provider.")
@click.option("--period", metavar="YYYY-MM", help="Without a run: only runs of this month.")
@click.option("--class", "kind", metavar="NAME", help="With a run: only findings of this class, also `agreed`.")
@click.option(
    "--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write variances."
)
@config_option
@data_dir_option
@json_option
def show(run_id: str | None, config: Path | None, data_dir: Path | None, as_json: bool, **given: Any) -> None:
    """One run with its findings, or the list of runs."""
    from gateway.billing.reconcile.desk import KINDS
    from gateway.billing.reconcile.show import list_runs, read_run
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import month_given

    kind, csv_file = given["kind"], given["csv_file"]
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--class is {kind!r}; known: {', '.join(KINDS)}.")
    if run_id is None and (kind is not None or csv_file is not None):
        raise ConfigError("--class and --csv need a run; `penstock reconcile show` lists them.")
    month = month_given(given["period"]) if given["period"] is not None else None
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        if run_id is None:
            runs = list_runs(database, given["provider"], month)
            print_json({"runs": [each.summary() for each in runs]}) if as_json else _print_runs(runs)
            return
        found = read_run(database, run_id)
    if csv_file is not None:
        try:
            csv_file.write_text(found.as_csv(), encoding="utf-8")
        except OSError as error:
            raise StartupError(f"cannot write {str(csv_file)!r}: {error.strerror}.") from error
    print_json(found.as_dict(kind)) if as_json else _print_run(found, kind)


@reconcile.command()
@click.argument("run_id")
@click.argument("finding", type=click.IntRange(1))
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Requests to show.")
@config_option
@data_dir_option
@json_option
def requests(run_id: str, finding: int, limit: int, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Bill lines and requests behind one finding; the request nearest to the variance first."""
    from gateway.billing.reconcile.drill_down import behind
    from gateway.commands.database import open_database
    from gateway.commands.table import print_table

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        page = behind(database, run_id, finding, limit)
    if as_json:
        print_json(page.as_dict())
        return
    click.echo(f"{page.finding.kind}: {page.finding.why}")
    columns = ("line", "day", "model", "meter", "tier", "quantity", "amount_usd", "description")
    print_table(columns, [[_cell(row[name]) for name in columns] for row in page.bill_lines], right=columns[5:7])
    names = ("request_id", "quantity", "amount_usd")
    print_table(names, [[_cell(row[name]) for name in names] for row in page.requests], right=names[1:])
    if page.more:
        click.echo("There are more; raise --limit.")


for decision in (accept, sign_off, sign_offs):
    reconcile.add_command(decision)


def _read(path: Path) -> File:
    from gateway.billing.reconcile.pages import File

    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{str(path)!r} is larger than {LARGEST_FILE} bytes; export the bill in parts.")
        return File(path.name, path.read_bytes())
    except OSError as error:
        raise StartupError(f"cannot read {str(path)!r}: {error.strerror}.") from error


def _mapping(given: dict[str, Any]) -> Mapping:
    """The YAML file, with what the options say on top of it."""
    import yaml

    from gateway.billing.reconcile.csv_bill import Mapping
    from gateway.config_yaml import load_yaml

    document: Any = {}
    if given["columns"] is not None:
        try:
            document = load_yaml(_read(given["columns"]).content) or {}
        except yaml.YAMLError as error:
            raise ConfigError(f"{given['columns']}: not valid YAML: {error}") from None
    if isinstance(document, dict):
        named = dict(_pair(each, "--column") for each in given["column"])
        document = {**document, "columns": {**(document.get("columns") or {}), **named}}
        if given["currency"] is not None:
            document["currency"] = given["currency"]
    return Mapping.parse(document)


def _pair(text: str, option: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals or not left.strip() or not right.strip():
        raise ConfigError(f"{option} is {text!r}; write it as LEFT=RIGHT.")
    return left.strip(), right.strip()


def _served(config: Config) -> list[tuple[str, str]]:
    """(provider, upstream name) of everything that is configured, also of models that nobody asked in the month."""
    return [(entry.provider, entry.model or entry.name) for entry in config.models if entry.provider is not None]


def _print_run(found: Run, kind: str | None = None) -> None:
    from gateway.commands.table import print_table

    document = found.as_dict(kind)  # type: ignore[arg-type]
    for name in ("id", "provider", "period", "bill_usd", "book_usd", "variance_usd", "accepted_usd", "disputed_usd",
                 "open_usd", "rounding_tolerance_usd", "variance_tolerance_usd"):  # fmt: skip
        click.echo(f"{name.removesuffix('_usd').replace('_', ' '):<20}{document[name]}")
    columns = ("class", "findings", "open", "variance_usd")
    print_table(columns, [[_cell(row[name]) for name in columns] for row in document["classes"]], right=columns[1:])
    names = ("number", "class", "state", "first_day", "model", "meter", "tier", "variance_usd", "why")
    rows = [[_cell(row[name]) for name in names] for row in document["findings"]]
    print_table(names, rows, right={"number", "variance_usd"})


def _print_runs(runs: list[Run]) -> None:
    from gateway.commands.table import print_table

    if not runs:
        click.echo("There are no runs. `penstock reconcile import` and `penstock reconcile run` make one.")
        return
    columns = ("id", "provider", "period", "run_at", "bill_usd", "book_usd", "variance_usd", "open_usd")
    print_table(columns, [[_cell(each.summary()[name]) for name in columns] for each in runs], right=columns[4:])


def _cell(value: object) -> str:
    return "" if value is None else str(value)
