"""Invoices as PDFs: everything that must stand on them does, the same invoice is the same file, and no letter is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pypdf
import pytest
import reportlab
from reportlab.pdfbase.pdfmetrics import stringWidth

from gateway.billing.invoices.document import CreditNote, Invoice
from gateway.billing.invoices.lines import UsageSum, add_up, tax_lines, usage_lines
from gateway.billing.invoices.page import Sheet
from gateway.billing.invoices.pdf import credit_note_pdf, invoice_pdf
from gateway.billing.periods.month import Month
from gateway.errors import ConfigError
from gateway.money import PICO_PER_USD
from gateway.types import Meter
from tests.invoicing import NOW, parties

OCTOBER = Month(2026, 10)
VERA = Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"


def usage(model: str, meter: Meter, quantity: int, usd: int, month: Month = OCTOBER) -> UsageSum:
    rate = usd * PICO_PER_USD
    return UsageSum(month, model, meter, rate, quantity, quantity * rate // 1_000_000)


def invoice(*sums: UsageSum, **bill_to: object) -> Invoice:
    """A finalised invoice as the database would give it back."""
    between = parties(**{"name": "Acme Corp.", "address": "2 Mill Lane\nTown", "po_number": "PO-7", **bill_to})
    lines = usage_lines(sums or [usage("gpt", "input", 1_234_567, 10)], OCTOBER)
    lines += tax_lines(add_up(lines).net_cents, between.bill_to.tax_percent, between.bill_to.tax_name)
    return Invoice(
        id="invoice_1",
        tenant="acme",
        period=OCTOBER,
        state="finalised",
        number="INV-000042",
        issuer=between.issuer.model_dump(mode="json"),
        bill_to=between.bill_to.model_dump(mode="json"),
        currency="USD",
        lines=lines,
        totals=add_up(lines),
        credit_notes=(),
        created_at=NOW,
        finalised_at=NOW,
        due_at=NOW + timedelta(days=30),
        voided_at=None,
        void_reason=None,
    )


def text_of(document: bytes) -> list[str]:
    """The text of each page, as a reader would copy it."""
    return [" ".join(page.extract_text().split()) for page in pypdf.PdfReader(BytesIO(document)).pages]


def test_everything_that_finance_asks_for_stands_on_it() -> None:
    sums = [
        usage("gpt", "input", 1_234_567, 10),
        usage("gpt", "reasoning", 500_000, 20, Month(2026, 9)),
        usage("own", "gpu_seconds", 3_000_000, 2),
    ]
    [page] = text_of(invoice_pdf(invoice(*sums, tax_percent="7.7", tax_name="VAT", tax_id="CH-9")))
    for words in (
        "INVOICE", "INV-000042", "2026-11-03", "2026-12-03", "30 days", "PO-7", "2026-10-01 to 2026-11-01",
        "Penstock Inc.", "1 Weir Road", "Tax number: US-1", "Acme Corp.", "2 Mill Lane", "Tax number: CH-9",
        "gpt, input 1,234,567 10 12.35", "gpt, reasoning (usage of 2026-09) 500,000 20 10.00",
        "own, gpu seconds 3 s 2 per second 6.00", "Usage 28.35", "Subtotal 28.35", "VAT 7.7 % 2.18",
        "Total due (USD) 30.53", "Exact usage: 28.34567 USD; rounding: 0.00433 USD",
    ):  # fmt: skip
        assert words in page, f"{words!r} is not in {page!r}"


def test_the_same_invoice_is_the_same_file() -> None:
    assert invoice_pdf(invoice()) == invoice_pdf(invoice())
    assert invoice_pdf(invoice(), VERA) == invoice_pdf(invoice(), VERA)
    assert invoice_pdf(invoice()) != invoice_pdf(invoice(po_number="PO-8"))


def test_many_lines_go_on_over_pages_that_repeat_the_head() -> None:
    sums = [usage(f"model-{number}-{'with-a-long-name-' * 8}", "output", number, 1) for number in range(1, 90)]
    pages = text_of(invoice_pdf(invoice(*sums)))
    assert len(pages) > 3
    for number, page in enumerate(pages, 1):
        assert f"Invoice INV-000042, page {number}" in page
        assert "Quantity USD per million" in page or number == len(pages)
    whole = "".join(" ".join(pages).split())
    assert all(f"model-{number}-with-a-long-name-" in whole for number in range(1, 90))


@pytest.mark.parametrize("text", ["x" * 300, f"a {'long-' * 50} b", "words that fit " * 20, "", "W"])
def test_text_stays_in_its_column_and_is_whole(text: str) -> None:
    lines = Sheet("title", "author").wrap(text, "Helvetica", 9, 200)
    assert all(stringWidth(line, "Helvetica", 9) <= 200 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_void_invoice_and_a_draft_say_so() -> None:
    void = replace(invoice(), state="void", voided_at=NOW, void_reason="wrong address")
    assert "INVOICE (VOID)" in text_of(invoice_pdf(void))[0]
    assert "wrong address" in text_of(invoice_pdf(void))[0]
    draft = replace(invoice(), state="draft", number=None, finalised_at=None, due_at=None)
    assert "INVOICE (DRAFT)" in text_of(invoice_pdf(draft))[0]
    assert "none, this is a draft" in text_of(invoice_pdf(draft))[0]


def test_a_credit_note_names_its_invoice_and_its_tax() -> None:
    note = CreditNote("credit_1", "CN-000003", "invoice_1", 600, 100, "slow answers", NOW)
    [page] = text_of(credit_note_pdf(invoice(), note))
    for words in (
        "CREDIT NOTE", "CN-000003", "INV-000042 of 2026-11-03", "slow answers", "Net -5.00", "Tax 20 % -1.00",
        "Total credited (USD) -6.00",
    ):  # fmt: skip
        assert words in page


def test_letters_are_printed_or_refused_and_never_replaced() -> None:
    western = invoice(name="Müller & Søn, Åre – “Größe” €")
    assert "Müller & Søn, Åre – “Größe” €" in text_of(invoice_pdf(western))[0]
    with pytest.raises(
        ConfigError, match=r"the font of the PDF has no 'Ł', which stands in 'Łukasz'.*billing: \{font:"
    ):
        invoice_pdf(invoice(name="Łukasz"))
    assert "Łukasz" in text_of(invoice_pdf(invoice(name="Łukasz"), VERA))[0]
    with pytest.raises(ConfigError, match="has no '会'"):
        invoice_pdf(invoice(name="株式会社"), VERA)


def test_a_font_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "font.ttf"
    with pytest.raises(ConfigError, match=r"billing\.font .* cannot be used"):
        invoice_pdf(invoice(), wrong)
    wrong.write_bytes(b"not a font")
    with pytest.raises(ConfigError, match=r"billing\.font .* cannot be used"):
        invoice_pdf(invoice(), wrong)


def test_line_breaks_in_names_cannot_forge_lines() -> None:
    [page] = text_of(invoice_pdf(invoice(po_number="PO-1\nTotal due (USD) 0.00")))
    assert "Purchase order PO-1 Total due (USD) 0.00" in page
