"""The desk on which bill and book lie cell by cell until a finding takes them; nothing is on it twice (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, NamedTuple, get_args

from gateway.billing.reconcile.align import tier_of
from gateway.billing.reconcile.lines import BillLine, BookLine
from gateway.money import amount_for, format_usd

Kind = Literal[
    "agreed", "rounding", "credit", "outside", "duplicate", "price", "tier", "cache_split", "timing", "missing", "unexplained"
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
HARMLESS: tuple[Kind, ...] = ("agreed", "rounding")
"""Nobody has to look at these: nothing differs, or less than the stated threshold per line."""


class Cell(NamedTuple):
    """What is compared as one: a place (a day, or a request where the bill names it), a model, a meter and a tier."""

    place: str
    model: str
    meter: str
    tier: str

    @property
    def day(self) -> date | None:
        """The day, None for a request."""
        return date.fromisoformat(self.place[1:]) if self.place[0] == "@" else None

    def at(self, day: date) -> Cell:
        """The same on another day."""
        return self._replace(place=_place(day, None))


@dataclass(slots=True)
class Side:
    """Both sides of one cell."""

    bill: list[BillLine] = field(default_factory=list)
    book: list[BookLine] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finding:
    """Lines that one reason explains. `variance` is pico-USD that the bill asks beyond our book."""

    kind: Kind
    bill: tuple[BillLine, ...]
    book: tuple[BookLine, ...]
    variance: int
    why: str


@dataclass(slots=True)
class Desk:
    """The cells that nothing explains yet, and the findings so far."""

    cells: dict[Cell, Side] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def lay(self, bill: Iterable[BillLine], book: Iterable[BookLine], named: Collection[str | None] = ()) -> None:
        """Put lines on the desk. Requests of the book that neither this bill nor `named` names are compared by day."""
        bill = list(bill)
        named = {*named, *(line.request_id for line in bill)}
        for line in bill:
            cell = Cell(_place(line.day, line.request_id), line.model or "", line.meter, tier_of(line))
            self.cells.setdefault(cell, Side()).bill.append(line)
        for own in book:
            request = own.request_id if own.request_id in named else None
            self.cells.setdefault(Cell(_place(own.day, request), own.model, own.meter, own.tier), Side()).book.append(
                own
            )

    def add(self, kind: Kind, bill: Sequence[BillLine], book: Sequence[BookLine], why: str) -> None:
        """A finding of lines that were never put on the desk."""
        self.findings.append(Finding(kind, tuple(bill), tuple(book), amount(bill) - amount(book), why))

    def take(self, cells: Sequence[Cell], kind: Kind, why: str) -> None:
        """Everything in these cells is one finding."""
        sides = [self.cells.pop(cell) for cell in cells]
        self.add(
            kind, [line for side in sides for line in side.bill], [line for side in sides for line in side.book], why
        )

    def take_lines(self, cell: Cell, kind: Kind, lines: Sequence[BillLine], why: str) -> None:
        """Some lines of a cell's bill are one finding; the rest stays."""
        side = self.cells[cell]
        side.bill = [line for line in side.bill if not any(line is taken for taken in lines)]
        if not side.bill and not side.book:
            del self.cells[cell]
        self.add(kind, lines, (), why)

    def cut(self, early: Sequence[BookLine], late: Sequence[BookLine], why: str) -> None:
        """The book was compared with `early`, which is not of our month, and without `late`, which is."""
        self.findings.append(Finding("timing", (), tuple(late), amount(early) - amount(late), why))


def amount(lines: Iterable[BillLine | BookLine]) -> int:
    """Pico-USD of lines."""
    return sum(line.amount for line in lines)


def quantity(lines: Iterable[BillLine | BookLine]) -> int | None:
    """Units of lines; None when one of them does not say."""
    total = 0
    for line in lines:
        if line.quantity is None:
            return None
        total += line.quantity
    return total


def miscalculated(side: Side, rounding: int) -> str:
    """What the bill's lines ask that is not their quantity at their price; empty when all fit or do not say."""
    wrong = []
    for line in side.bill:
        if line.quantity is None or line.rate is None:
            continue
        fitting = amount_for(line.quantity, line.rate)
        if abs(line.amount - fitting) > rounding:
            wrong.append(
                f"line {line.position} of the bill asks {format_usd(line.amount)} USD, and its {line.quantity} units at "
                f"{format_usd(line.rate)} USD per million are {format_usd(fitting)} USD"
            )
    return "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more such lines" if len(wrong) > 3 else "")


def _place(day: date, request_id: str | None) -> str:
    return f"@{day.isoformat()}" if request_id is None else f"#{request_id}"
