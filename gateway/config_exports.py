"""The section `exports` of penstock.yaml: which exports are written by themselves, when, and where to."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.config_section import Section

_AT = re.compile(r"(?:(?P<day>[1-9]|1\d|2[0-8]) )?(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)", re.ASCII)
_BUCKET = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9._-]{1,62})(?:/(?P<prefix>[^\s]*))?", re.ASCII)


class S3(Section):
    """How an S3-compatible bucket is reached. What is absent comes from the usual AWS variables."""

    endpoint: str | None = Field(
        None, pattern="^https?://[^/]+$", description="Address of an S3-compatible server; Amazon's when absent."
    )
    region: str | None = Field(None, min_length=1, description="Region; AWS_REGION when absent, else us-east-1.")
    path_style: bool | None = Field(
        None, description="Whether the bucket stands in the path; true with an endpoint, else false."
    )
    access_key_id: str | None = Field(None, description="Normally `env:NAME`; AWS_ACCESS_KEY_ID when absent.")
    secret_access_key: str | None = Field(None, description="Normally `env:NAME`; AWS_SECRET_ACCESS_KEY when absent.")
    timeout_seconds: float = Field(60, gt=0, le=600, description="How long one request to the bucket may take.")


class ScheduledExport(Section):
    """One export that is written by itself."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$", description="Unique name: small letters, digits, - and _.")
    kind: Literal["focus", "csv", "parquet", "journal"] = Field(description="What is written, as in `penstock export`.")
    format: Literal["csv", "parquet"] = Field("csv", description="For `kind: focus`: in which form.")
    view: Literal["tenant", "provider"] = Field("tenant", description="What tenants pay, or what providers ask.")
    period: Literal["month", "day"] = Field("month", description="Whole months, or single days that are provisional.")
    to: str = Field(
        min_length=1, description="A folder (in the data folder when not absolute), or `s3://bucket/prefix`."
    )
    at: str = Field(
        "04:00", description="When, UTC: `04:00` on the next day; `3 04:00` on the third of the next month."
    )
    tenants: tuple[str, ...] | None = Field(
        None, min_length=1, description="One export for each of these; one of all tenants when absent."
    )
    tags: tuple[str, ...] = Field((), description="For `kind: focus`: tags that split rows, in the column Tags.")
    s3: S3 = Field(S3(), description="How the bucket is reached.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        at = _AT.fullmatch(self.at)
        if at is None or (at["day"] and self.period == "day"):
            raise ValueError(
                f"`at` is {self.at!r}; write `HH:MM` in UTC, or for months also the day (1 to 28) before it: `3 04:00`"
            )
        if self.to.startswith("s3:") and _BUCKET.fullmatch(self.to) is None:
            raise ValueError(f"`to` is {self.to!r}; write `s3://bucket` or `s3://bucket/prefix`")
        if self.kind == "journal" and self.tenants is not None:
            raise ValueError("a journal is of all tenants; leave `tenants` out")
        if self.kind != "focus" and (self.tags or self.format != "csv"):
            raise ValueError("`tags` and `format` are for `kind: focus` only")
        return self

    @property
    def due(self) -> tuple[int, int, int]:
        """Day of the next month (1 for days), hour and minute at which a period that has ended is exported."""
        at = _AT.fullmatch(self.at)
        assert at is not None
        return int(at["day"] or 1), int(at["hour"]), int(at["minute"])

    @property
    def bucket(self) -> tuple[str, str] | None:
        """Bucket and prefix, None for a folder."""
        found = _BUCKET.fullmatch(self.to)
        return (found["bucket"], (found["prefix"] or "").strip("/")) if found else None
