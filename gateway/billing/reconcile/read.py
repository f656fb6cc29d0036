"""A provider's bill of one month from its files: which format they are of, all lines, and a hash that knows them again.

Everything wrong with a file is an UnreadableBill; nothing is left out silently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from gateway.billing.periods.month import Month
from gateway.billing.reconcile import anthropic_bill, openai_bill
from gateway.billing.reconcile.csv_bill import Mapping, csv_lines
from gateway.billing.reconcile.lines import BillLine, Settings, UnreadableBill, check_total, zone_of
from gateway.billing.reconcile.pages import Bucket, File, Page, complete_chain, read_page
from gateway.billing.reconcile.quantities import Tokens, with_quantities

Form = Literal["openai", "anthropic", "csv"]
FORMS: tuple[Form, ...] = get_args(Form)

Lines = Callable[[Iterator[Bucket]], Iterator[BillLine]]
Counts = Callable[[Iterator[Bucket]], Iterator[Tokens]]
READERS: dict[str, tuple[Lines, Counts]] = {
    "openai": (openai_bill.cost_lines, openai_bill.token_counts),
    "anthropic": (anthropic_bill.cost_lines, anthropic_bill.token_counts),
}


@dataclass(frozen=True, slots=True)
class Bill:
    """What a provider asks for a month. `digest` is the SHA-256 of the files and of how they were read."""

    provider: str
    month: Month
    form: Form
    digest: str
    files: tuple[str, ...]
    settings: Settings
    lines: tuple[BillLine, ...]

    @property
    def total(self) -> int:
        """Pico-USD of all lines; credits are negative."""
        return sum(line.amount for line in self.lines)


def read_bill(
    provider: str,
    month: Month,
    files: Sequence[File],
    form: Form | None = None,
    settings: Settings | None = None,
    mapping: Mapping | None = None,
) -> Bill:
    """Read all files of one bill; the format is told from the files unless it is given."""
    settings, mapping = settings or Settings(), mapping or Mapping()
    zone = zone_of(settings.zone)
    hashes = [hashlib.sha256(file.content).hexdigest() for file in files]
    for place, each in enumerate(hashes):
        if each in hashes[:place]:
            twin = files[hashes.index(each)].name
            raise UnreadableBill(f"{files[place].name} is the same as {twin}; give every file once")
    form = form or _form_of(files)
    if form == "csv":
        lines = [line for file in files for line in csv_lines(file, mapping, month, zone)]
    else:
        if settings.zone != "UTC":
            raise UnreadableBill(f"the API of {form} counts days in UTC; leave --zone out")
        lines = _from_pages(form, [read_page(file) for file in files], month)
    if not lines:
        raise UnreadableBill(f"the files have no lines of {month}")
    check_total(lines)
    numbered = tuple(replace(line, position=number) for number, line in enumerate(lines, 1))
    reading = repr((sorted(hashes), form, settings, mapping if form == "csv" else None))
    digest = hashlib.sha256(reading.encode()).hexdigest()
    return Bill(provider, month, form, digest, tuple(file.name for file in files), settings, numbered)


def _form_of(files: Sequence[File]) -> Form:
    if not files:
        raise UnreadableBill("no file is given")
    if all(file.name.lower().endswith(".csv") for file in files):
        return "csv"
    return "openai" if any(read_page(file).of_openai for file in files) else "anthropic"


def _from_pages(form: Form, pages: list[Page], month: Month) -> list[BillLine]:
    """Costs, with the quantities of usage where there are pages of it."""
    usage = [page for page in pages if _has(page, "amount") is False]
    costs = [page for page in pages if _has(page, "amount")]
    for page in pages:
        if _has(page, "amount") is None:  # empty buckets: they belong to the chain that lacks them
            there = {bucket.start for other in costs for bucket in other.buckets}
            (usage if any(bucket.start in there for bucket in page.buckets) else costs).append(page)
    if not costs:
        raise UnreadableBill("the files are usage alone; add the pages of the costs, which have the amounts")
    read_costs, read_counts = READERS[form]
    lines = list(read_costs(complete_chain(costs, month, "costs")))
    return with_quantities(lines, read_counts(complete_chain(usage, month, "usage"))) if usage else lines


def _has(page: Page, name: str) -> bool | None:
    """Whether the results of a page have a field, as costs have an amount and usage has none; None without results."""
    results = [result for bucket in page.buckets for result in bucket.results]
    return any(name in result for result in results) if results else None
