"""Explains how a bill differs from our book: every line is in exactly one finding, every finding has one class (pure).

The variance of a finding is what its bill lines ask less what its book lines say, so variances always sum to bill minus book.
Passes take lines from the desk, from what is certain to what is left over:

credit -> outside -> duplicate -> (agreed, rounding, price, tier of equal quantity) -> miscalculated -> tier -> cache split
-> timing -> missing
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from gateway.billing.reconcile.align import tier_of
from gateway.billing.reconcile.desk import Cell, Desk, Finding, Kind, Side, amount, miscalculated, quantity
from gateway.billing.reconcile.lines import OTHER, BillLine, BookLine
from gateway.money import amount_for, divide_rounding, format_usd

INPUTS = ("input", "cache_read", "cache_write_5m", "cache_write_1h")


@dataclass(frozen=True, slots=True)
class Known:
    """What else is known. `models`: those that we serve, by the bill's names; `ours`: our accounts, empty for all;
    `rates`: (model, meter) -> rate -> the tier whose price it is; `rounding`: pico-USD that one bill line may be off.
    `neighbours` are lines of the bills before and after this one.
    """

    models: frozenset[str] = frozenset()
    ours: frozenset[str] = frozenset()
    rates: Mapping[tuple[str, str], Mapping[int, str]] = field(default_factory=dict)
    rounding: int = 0
    neighbours: tuple[BillLine, ...] = ()


def classify(bill: Sequence[BillLine], book: Sequence[BookLine], known: Known) -> list[Finding]:
    """All findings, agreed ones too. Lines of the book that are not `billed` serve as neighbours; of those the ones that are
    `booked` are a cut-off: the provider counts them to another month.
    """
    desk = Desk()
    rest = _without_credits(desk, bill)
    rest = _without_outside(desk, rest, known)
    desk.lay(rest, [line for line in book if line.billed])
    _take_duplicates(desk)
    _compare_equal_quantities(desk, known)
    _take_miscalculated(desk, known.rounding)
    _take_moved(desk, "tier", lambda cell: (cell.place, cell.model, cell.meter), "the same tokens in another tier")
    _take_moved(desk, "cache_split", _cache_group, "the same input, of which another share was cached")
    _take_shifted_days(desk, known.rounding)
    _take_edges(desk, book, known)
    _take_rest(desk)
    _take_cut_off(desk, book)
    return _merged(desk.findings)


def _without_credits(desk: Desk, bill: Sequence[BillLine]) -> list[BillLine]:
    for line in bill:
        if line.amount < 0:
            desk.add("credit", [line], [], f"the provider gives back: {line.description or 'no description'}")
    return [line for line in bill if line.amount >= 0]


def _without_outside(desk: Desk, bill: Sequence[BillLine], known: Known) -> list[BillLine]:
    """Usage of accounts or models that Penstock does not serve, one finding per account and model."""
    strange: dict[tuple[str | None, str | None], list[BillLine]] = defaultdict(list)
    rest = []
    for line in bill:
        foreign = bool(known.ours) and line.account is not None and line.account not in known.ours
        if foreign or line.model is None or line.model not in known.models:
            strange[line.account, line.model].append(line)
        else:
            rest.append(line)
    for (account, model), lines in strange.items():
        reason = (
            f"the account {account!r} is not one of Penstock's"
            if known.ours and account is not None and account not in known.ours
            else f"Penstock does not serve {model!r}"
            if model is not None
            else f"no model in it: {lines[0].description or 'no description'}"
        )
        desk.add("outside", lines, [], reason)
    return rest


def _take_duplicates(desk: Desk) -> None:
    """Lines that are the same in everything, as far as the bill is nearer to the book without them."""
    for cell, side in list(desk.cells.items()):
        extra: list[BillLine] = []
        counts = Counter(_same(line) for line in side.bill)
        left = list(side.bill)
        for line in reversed(side.bill):
            if counts[_same(line)] < 2:
                continue
            fewer = [other for other in left if other is not line]
            if _distance(fewer, side.book) < _distance(left, side.book):
                counts[_same(line)] -= 1
                left = fewer
                extra.append(line)
        if extra:
            desk.take_lines(cell, "duplicate", extra, f"the same in everything, {len(extra)} too many on the bill")


def _compare_equal_quantities(desk: Desk, known: Known) -> None:
    """Cells on both sides with the same quantity (or without one on the bill): only money can differ."""
    for cell, side in list(desk.cells.items()):
        if not side.bill or not side.book:
            continue
        billed, noted = quantity(side.bill), quantity(side.book)
        asked, ours = amount(side.bill), amount(side.book)
        if billed is not None and billed != noted:
            continue
        if asked == 0 and ours:
            desk.take([cell], "credit", "used and billed at nothing: a free tier, a grant or a commitment")
            continue
        kind, why = _money(cell, side, known)
        if kind is not None:
            desk.take([cell], kind, why)


def _money(cell: Cell, side: Side, known: Known) -> tuple[Kind | None, str]:
    """Why the amounts of one cell differ, quantities being equal or unknown. None when it cannot be said yet."""
    asked, ours = amount(side.bill), amount(side.book)
    if asked == ours:
        return "agreed", ""
    stated = {line.rate for line in side.bill if line.rate is not None}
    rates = {line.rate for line in side.book}
    allowed = known.rounding * len(side.bill)
    counted = quantity(side.bill)
    if abs(asked - ours) <= allowed and stated <= rates:
        return "rounding", f"within {format_usd(allowed)} USD"
    noted = {line.noted_tier or line.tier for line in side.book}
    units = counted if counted is not None else quantity(side.book) or 0
    for rate, tier in known.rates.get((cell.model, cell.meter), {}).items():
        if {tier} != noted and (rate in stated - rates or abs(amount_for(units, rate) - asked) <= allowed):
            shown = ", ".join(sorted(noted))
            return "tier", f"billed at {format_usd(rate)} USD per million, the price of {tier}; noted as {shown}"
    if counted is None:
        return None, ""
    if wrong := miscalculated(side, known.rounding):
        return "price", wrong
    shown = ", ".join(format_usd(rate) for rate in sorted(stated)) or (
        f"about {format_usd(divide_rounding(asked * 1_000_000, counted))}" if counted else "?"
    )
    return "price", f"{shown} instead of {', '.join(format_usd(rate) for rate in sorted(rates))} USD per million"


def _take_miscalculated(desk: Desk, rounding: int) -> None:
    """Cells of other quantities with an amount that the bill's own price does not give: not to pass for moved tokens."""
    for cell, side in list(desk.cells.items()):
        if wrong := miscalculated(side, rounding):
            desk.take([cell], "price", wrong)


def _take_moved(desk: Desk, kind: Kind, group: Callable[[Cell], tuple[str, ...] | None], why: str) -> None:
    """Groups of cells whose quantities sum to the same on both sides, though not one by one."""
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in desk.cells:
        if (key := group(cell)) is not None:
            groups[key].append(cell)
    for cells in groups.values():
        bill = [line for cell in cells for line in desk.cells[cell].bill]
        book = [line for cell in cells for line in desk.cells[cell].book]
        if len(cells) > 1 and bill and book and quantity(bill) == quantity(book):
            moved = "; ".join(
                f"{cell.meter if kind == 'cache_split' else cell.tier} {quantity(desk.cells[cell].bill)} instead of "
                f"{quantity(desk.cells[cell].book)}"
                for cell in sorted(cells)
            )
            desk.take(cells, kind, f"{why}: {moved}")


def _cache_group(cell: Cell) -> tuple[str, ...] | None:
    return (cell.place, cell.model, cell.tier) if cell.meter in INPUTS else None


def _take_shifted_days(desk: Desk, rounding: int) -> None:
    """What is too much on one day and too little on following ones, or the reverse: the day was cut elsewhere."""
    for cell in sorted(desk.cells):
        run: list[Cell] = []
        following = cell
        while following in desk.cells and following.day is not None:
            run.append(following)
            if len(run) > 1 and _agree([desk.cells[each] for each in run], rounding):
                why = f"the same over {run[0].day} to {run[-1].day}: the days were cut elsewhere"
                desk.take(run, "timing", why)
                break
            following = following.at(following.day + timedelta(days=1))


def _agree(sides: Sequence[Side], rounding: int) -> bool:
    """Whether both sides have the same together: in units, or in money where the bill does not say any."""
    bill, book = [line for side in sides for line in side.bill], [line for side in sides for line in side.book]
    billed = quantity(bill)
    if not bill or not book:
        return False
    return billed == quantity(book) if billed is not None else abs(amount(bill) - amount(book)) <= rounding * len(bill)


def _take_edges(desk: Desk, book: Sequence[BookLine], known: Known) -> None:
    """What the month's edge moved: the bill has usage that our book has in the neighbouring month, or the reverse."""
    beyond = Desk()
    named = {line.request_id for side in desk.cells.values() for line in side.bill}
    beyond.lay(known.neighbours, [line for line in book if not line.billed], named)
    for cell, side in list(desk.cells.items()):
        excess = _excess(side)
        for other in [cell] if cell.day is None else [cell.at(cell.day + timedelta(days=step)) for step in (-1, 1)]:
            there = beyond.cells.get(other)
            if excess and there is not None and excess == -(_excess(there) or 0):
                whose = "our book has it" if excess > 0 else "it is on the neighbouring bill"
                desk.take([cell], "timing", f"{whose} on the other side of the month's edge, {other.place}")
                break


def _take_rest(desk: Desk) -> None:
    for cell, side in list(desk.cells.items()):
        billed, noted = quantity(side.bill), quantity(side.book)
        if not side.bill:
            desk.take([cell], "missing", "in our book and not on the bill")
        elif not side.book and cell.meter == OTHER:
            desk.take(
                [cell], "missing", f"on the bill, of a kind that Penstock does not count: {side.bill[0].description}"
            )
        elif not side.book:
            desk.take([cell], "missing", "on the bill and not in our book")
        elif billed is None or noted is None or not noted:
            desk.take([cell], "unexplained", "the bill says no quantity, so price and usage cannot be told apart")
        else:
            asked, ours = amount(side.bill), amount(side.book)
            volume = divide_rounding((billed - noted) * ours, noted)
            price = asked - ours - volume
            where = "more on the bill" if billed > noted else "less on the bill"
            why = f"{abs(billed - noted)} units {where}"
            if guessed := sum(line.quantity for line in side.book if line.estimated):
                why += f"; {guessed} of ours are estimates of streams that broke"
            if price:
                why += f"; {format_usd(volume)} USD of it by quantity, {format_usd(price)} USD by price"
            desk.take([cell], "missing" if abs(volume) >= abs(price) else "price", why)


def _take_cut_off(desk: Desk, book: Sequence[BookLine]) -> None:
    """The provider's month is cut in another zone than ours, UTC: what that moves in and out, as one finding."""
    early = [line for line in book if line.billed and not line.booked]
    late = [line for line in book if line.booked and not line.billed]
    if early or late:
        why = f"the bill's month is cut elsewhere: {len(early)} lines of our neighbouring month in, {len(late)} of this one out"
        desk.cut(early, late, why)


def _excess(side: Side) -> int | None:
    """How much more the bill has than the book; None when it cannot be said."""
    billed, noted = quantity(side.bill), quantity(side.book)
    return None if billed is None or noted is None else billed - noted


def _distance(bill: Sequence[BillLine], book: Sequence[BookLine]) -> int:
    billed, noted = quantity(bill), quantity(book)
    return abs(amount(bill) - amount(book)) if billed is None or noted is None else abs(billed - noted)


def _same(line: BillLine) -> tuple[object, ...]:
    return (
        line.day,
        line.quantity,
        line.rate,
        line.amount,
        line.account,
        line.request_id,
        line.description,
        tier_of(line),
    )


def _merged(findings: list[Finding]) -> list[Finding]:
    """Findings of single requests with the same reason, day, model, meter and tier are one."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for number, each in enumerate(findings):
        lines: tuple[BillLine | BookLine, ...] = (*each.bill, *each.book)
        requests = bool(lines) and all(line.request_id is not None for line in lines)
        first = lines[0] if requests else None
        key: tuple[object, ...] = (number,)
        if first is not None:
            key = (first.day, first.model, first.meter, first.tier, each.kind, each.why)
        groups.setdefault(key, []).append(each)
    return [
        Finding(
            group[0].kind,
            tuple(line for each in group for line in each.bill),
            tuple(line for each in group for line in each.book),
            sum(each.variance for each in group),
            group[0].why,
        )
        for group in groups.values()
    ]
