"""The artifact in the package is one of this release: a gateway that cannot load it does not start."""

from __future__ import annotations

from router_models import embedder, sealed
from router_models.artifact import BUNDLED, KIND, features_of
from router_models.router import Router
from router_models.tiers import TIERS


def test_the_bundled_artifact_was_trained_with_the_features_that_this_release_computes() -> None:
    header, _ = sealed.read(BUNDLED, KIND)
    advice = "whoever changes what features are read trains the artifact again (python -m router_models.training)"
    assert header["features"] == features_of(embedder.load()), advice


def test_the_bundled_artifact_loads_and_scores_and_can_promise() -> None:
    router = Router.load()
    chances = [router.score_prompt("What is 2+2?").quality[tier].p for tier in TIERS]
    assert chances == sorted(chances)
    assert len(router.artifact.sample) > 0
