"""A4 pages with a cursor that moves down: text, rows of columns, rules; a row that does not fit begins a new page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError, StartupError

MARGIN = 50.0
LEADING = 1.35
Column = tuple[int, int, bool]
"""Left edge and width in points from the left margin, and whether it is aligned right."""


class Sheet:
    """One PDF being written. Raises StartupError when reportlab is not installed, ConfigError for an unusable font."""

    def __init__(self, title: str, author: str, font: Path | None = None) -> None:
        try:
            from reportlab.lib.pagesizes import A4
            from reportlab.lib.utils import simpleSplit
            from reportlab.pdfbase.pdfmetrics import stringWidth
            from reportlab.pdfgen.canvas import Canvas
        except ModuleNotFoundError:
            raise StartupError("PDFs need reportlab: run pip install 'penstock[pdf]'.") from None
        self._plain, self._bold, self._glyphs = _fonts(font)
        self._split, self._measure = simpleSplit, stringWidth
        self._file = BytesIO()
        self._width, self._height = A4
        # Invariant: no clock and no random id, so that equal documents are equal files.
        self._canvas: Any = Canvas(self._file, pagesize=A4, invariant=1, pageCompression=1)
        self._canvas.setTitle(title)
        self._canvas.setAuthor(author)
        self._title, self._page = title, 1
        self._y = self._height - MARGIN

    def text(self, text: str, *, size: float = 9.0, bold: bool = False) -> None:
        """A paragraph over the whole width."""
        self.row(((0, round(self._width - 2 * MARGIN), False),), (text,), size=size, bold=bold)

    def side_by_side(self, left: Sequence[str], right: Sequence[str]) -> None:
        """Two blocks of lines; the first line of each is its label."""
        for place in range(max(len(left), len(right))):
            cells = tuple(side[place] if place < len(side) else "" for side in (left, right))
            self.row(((0, 240, False), (255, 240, False)), cells, bold=place == 0)

    def row(
        self,
        columns: Sequence[Column],
        cells: Sequence[str],
        *,
        size: float = 9.0,
        bold: bool = False,
        on_new_page: Callable[[], None] | None = None,
    ) -> None:
        """One row; cells that are too long go on below. `on_new_page` repeats a table's head."""
        font = self._bold if bold else self._plain
        wrapped = [
            self.wrap(self._checked(cell), font, size, width)
            for (_, width, _), cell in zip(columns, cells, strict=True)
        ]
        height = size * LEADING * max(1, *(len(lines) for lines in wrapped))
        if self._y - height < MARGIN + 15:
            self._next_page()
            if on_new_page is not None:
                on_new_page()
        self._canvas.setFont(font, size)
        for (left, width, to_the_right), lines in zip(columns, wrapped, strict=True):
            for number, line in enumerate(lines):
                y = self._y - size - number * size * LEADING
                if to_the_right:
                    self._canvas.drawRightString(MARGIN + left + width, y, line)
                else:
                    self._canvas.drawString(MARGIN + left, y, line)
        self._y -= height

    def wrap(self, text: str, font: str, size: float, width: float) -> list[str]:
        """The text in lines that fit; a word that does not fit by itself is cut, as model names may be long."""
        lines: list[str] = []
        for line in self._split(text, font, size, width):
            while self._measure(line, font, size) > width:
                fits = max(n for n in range(1, len(line)) if n == 1 or self._measure(line[:n], font, size) <= width)
                lines.append(line[:fits])
                line = line[fits:]
            lines.append(line)
        return lines

    def rule(self) -> None:
        """A line across the page."""
        self._y -= 3
        self._canvas.line(MARGIN, self._y, self._width - MARGIN, self._y)
        self._y -= 3

    def gap(self, points: float) -> None:
        """Empty space."""
        self._y -= points

    def finish(self) -> bytes:
        """The whole file."""
        self._footer()
        self._canvas.save()
        return self._file.getvalue()

    def _next_page(self) -> None:
        self._footer()
        self._canvas.showPage()
        self._page += 1
        self._y = self._height - MARGIN

    def _footer(self) -> None:
        self._canvas.setFont(self._plain, 8)
        self._canvas.drawRightString(self._width - MARGIN, MARGIN - 15, f"{self._title}, page {self._page}")

    def _checked(self, text: str) -> str:
        """The text on one line. Raises ConfigError for a character that would be printed as something else."""
        text = " ".join(text.split())
        missing = sorted({character for character in text if not self._glyphs(character)})
        if missing:
            raise ConfigError(
                f"the font of the PDF has no {missing[0]!r}, which stands in {text!r}. "
                "Name a TrueType font that has it with `billing: {font: FILE}` in the configuration."
            )
        return text


def _fonts(file: Path | None) -> tuple[str, str, Callable[[str], bool]]:
    """Names of the plain and the bold font, and whether they have a character."""
    if file is None:
        return "Helvetica", "Helvetica-Bold", _is_western
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFError, TTFont

    try:
        font = TTFont("penstock-invoice", str(file))
    except (TTFError, OSError) as error:
        raise ConfigError(f"billing.font {str(file)!r} cannot be used as a TrueType font: {error}.") from error
    pdfmetrics.registerFont(font)
    return font.fontName, font.fontName, lambda character: ord(character) in font.face.charToGlyph


def _is_western(character: str) -> bool:
    try:
        return character.isprintable() and bool(character.encode("cp1252"))
    except UnicodeEncodeError:
        return False
