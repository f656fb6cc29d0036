"""What all sections of penstock.yaml have in common: unknown keys are errors, money is decimal, names can be shown."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

Usd = Annotated[Decimal, BeforeValidator(lambda value: repr(value) if isinstance(value, float) else value)]
"""A decimal amount. YAML floats are read by their shortest text, which is what was typed."""


def _number(value: object) -> object:
    """A number as it is. Raises ValueError for true, false and texts, which would otherwise be taken for numbers."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number, not a text or true or false")
    return value


Number = Annotated[float, BeforeValidator(_number)]

PRINTABLE = r"^[\x21-\x7e]+$"
"""Names that appear in headers and addresses: visible ASCII, no spaces."""

LONGEST_NAME = 100


def check_name(name: str) -> str:
    """A name of an owner as it is. Raises ValueError for what tables, logs and databases cannot show."""
    if not name.strip() or name != name.strip():
        raise ValueError("a name needs letters or digits, without spaces around them")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name has at most {LONGEST_NAME} characters, not {len(name)}")
    if not name.isprintable():
        raise ValueError("a name must not have line breaks or other invisible characters")
    return name


def check_tenant_name(name: str) -> str:
    """The same for a tenant, whose name stands before a slash wherever it is named with something of its own."""
    if "/" in name:
        raise ValueError("the name of a tenant must not have a slash: `project:acme/web` is a project of `acme`")
    return check_name(name)


Name = Annotated[str, AfterValidator(check_name)]
TenantName = Annotated[str, AfterValidator(check_tenant_name)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
