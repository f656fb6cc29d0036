"""The three bands of model ability the router predicts for; the order is from weakest to strongest."""

from __future__ import annotations

from typing import Literal, get_args

Tier = Literal["economy", "standard", "premium"]
TIERS: tuple[Tier, ...] = get_args(Tier)
