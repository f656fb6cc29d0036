"""The difficulty router: features, trained artifact, calibration; numpy alone at serving time."""

from router_models.errors import ArtifactError, RouterError
from router_models.request import RequestText
from router_models.router import Contribution, Interval, Router, Score
from router_models.tiers import TIERS, Tier

__all__ = [
    "TIERS",
    "ArtifactError",
    "Contribution",
    "Interval",
    "RequestText",
    "Router",
    "RouterError",
    "Score",
    "Tier",
]
