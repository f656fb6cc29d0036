"""The difficulty router: features, trained artifact, calibration; numpy alone at serving time."""

from router_models.abilities import Ability, Interval, ability_from_benchmarks, learn_ability
from router_models.errors import ArtifactError, RouterError
from router_models.explain import Contribution, Explanation
from router_models.request import RequestText
from router_models.router import Router, Score
from router_models.tiers import TIERS, Tier

__all__ = [
    "TIERS",
    "Ability",
    "ArtifactError",
    "Contribution",
    "Explanation",
    "Interval",
    "RequestText",
    "Router",
    "RouterError",
    "Score",
    "Tier",
    "ability_from_benchmarks",
    "learn_ability",
]
