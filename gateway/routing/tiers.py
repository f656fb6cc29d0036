"""Which of the router model's predictions counts for a tier: it knows three, and deep is at least as good as premium."""

from __future__ import annotations

PREDICTED = {"economy": 0, "standard": 1, "premium": 2, "deep": 2}
"""The place of a tier's prediction among economy, standard, premium."""
