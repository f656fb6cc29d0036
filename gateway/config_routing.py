"""The section `routing` of penstock.yaml: when artifacts of the router are taken back, recalibrated, called out of date."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config_section import Section

Source = Literal["feedback", "exact", "judge", "human"]
Sources = Annotated[tuple[Source, ...], Field(min_length=1, max_length=4)]


class Rollback(Section):
    """When a challenger, or a new champion, is taken back, and when a challenger becomes champion."""

    automatic: bool = Field(True, description="Whether a worse artifact is taken back; else it is only told.")
    promote: bool = Field(False, description="Whether a challenger that is proved better or cheaper becomes champion.")
    confidence: float = Field(0.95, ge=0.8, le=0.999, description="At least this sure, over all looks together.")
    margin: float = Field(0.02, ge=0, le=0.5, description="Loss of mean quality that is put up with.")
    error_margin: float = Field(
        0.05, ge=0, le=0.5, description="More failed requests that are put up with, as a share."
    )
    cost_margin: float = Field(
        0.5,
        ge=0,
        le=100,
        description="Higher cost that is put up with unless quality is proved better; 0.5 is half more.",
    )
    latency_margin: float = Field(
        1.0, ge=0, le=100, description="More time per request that is put up with; 1 is twice as much."
    )
    least_labels: int = Field(
        50, ge=10, le=1_000_000, description="Labels that either artifact must have before quality decides."
    )
    least_requests: int = Field(
        200, ge=50, le=1_000_000, description="Requests that either must have before the rest decides."
    )
    watch_days: int = Field(7, ge=1, le=90, description="How long a new champion is compared with the one before it.")
    sources: Sources = Field(
        ("exact", "judge", "human"),
        description="Labels that count; with `feedback` any key of the policy can have an artifact taken back for all.",
    )


class Recalibration(Section):
    """What own labels do to the artifact."""

    do: Literal["nothing", "store", "propose"] = Field(
        "store", description="What becomes of a better calibration: an artifact to assign, or the challenger at once."
    )
    share: float = Field(0.1, gt=0, le=0.5, description="For `propose`: the challenger's share of the requests.")
    days: int = Field(30, ge=1, le=366, description="How far back labels count.")
    least_labels: int = Field(300, ge=100, le=1_000_000, description="Fewer labels than these change nothing.")
    keep: int = Field(
        5, ge=1, le=100, description="Recalibrated artifacts per policy that are kept when nothing uses them."
    )
    sources: Sources = Field(
        ("exact", "judge", "human"),
        description="Labels that count; feedback is given where it suits, so it is left out.",
    )


class Drift(Section):
    """When the operator hears that requests are not what the artifact knows."""

    window_hours: int = Field(
        24, ge=1, le=744, description="Requests of so many hours are compared with the reference."
    )
    least_requests: int = Field(500, ge=100, le=1_000_000, description="A window or reference of fewer says nothing.")
    stability: float = Field(0.25, gt=0, le=10, description="Population stability index from which on it is drift.")
    unfamiliar: float = Field(
        0.15, gt=0, le=1, description="Rise of the share of unfamiliar prompts from which on it is drift."
    )
    calibration: float = Field(0.1, gt=0, le=1, description="Calibration error on labels from which on it is drift.")
    least_labels: int = Field(
        200, ge=50, le=1_000_000, description="Labels of 30 days that the calibration error needs."
    )
    sources: Sources = Field(("exact", "judge", "human"), description="Labels that count for the calibration error.")


class Routing(Section):
    """Artifacts of the router in production."""

    rollback: Rollback = Field(Rollback(), description="When artifacts are taken back.")
    recalibration: Recalibration = Field(Recalibration(), description="What is learnt from own labels.")
    drift: Drift = Field(Drift(), description="When the operator is told that traffic has changed.")
