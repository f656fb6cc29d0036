"""Past requests under another artifact: scored again by what was kept, left alone or counted where that cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gateway.db.connect import Database
from gateway.errors import ConfigError
from gateway.rescoring import Shelf, recorded, rescored
from gateway.routing.past.columns import Past
from router_models import artifact
from router_models.kept import fingerprint, pack
from router_models.router import Router
from router_models.tiers import TIERS
from tests.gateway.routing.test_replay import past_of

ROUTER = Router.load()
PROMPTS = [
    "What is 2+2?",
    "Why is the sky blue, and why are sunsets red?",
    "Prove Fermat's little theorem by induction.",
]


def other(folder: Path) -> Path:
    """The bundled artifact with weaker heads, under a name of its own."""
    made, path = ROUTER.artifact, folder / "other.npz"
    weights = dataclasses.replace(made.weights, kernel=made.weights.kernel * np.float32(0.5))
    artifact.save(path, weights, list(made.domains), list(made.models), "other", {}, made.embedder, made.sample)
    return path


def past() -> Past:
    """Three prompts as the bundled artifact scored them, one whose features were not kept, one of another release."""
    scores = [ROUTER.score_prompt(prompt) for prompt in (*PROMPTS, "x", "y")]
    table = {
        name: np.array([[getattr(score.quality[tier], field) for tier in TIERS] for score in scores])
        for name, field in (("quality", "p"), ("low", "low"), ("high", "high"))
    }
    return past_of(
        5,
        **table,
        tokens=np.array([[round(score.expected_output_tokens[tier]) for tier in TIERS] for score in scores]),
        artifact=[ROUTER.version] * 5,
        features=[*(pack(score.features) for score in scores[:3]), None, pack(scores[4].features)],
        fingerprint=[fingerprint()] * 3 + [None, "another"],
        unfamiliar=[",".join(score.unfamiliar) for score in scores],
    )


def test_what_the_artifact_itself_scored_stays_to_the_last_bit(database: Database) -> None:
    made = past()
    kept, scores, left_out = rescored(made, Shelf(database).open(None))
    assert len(kept) == 5
    assert left_out == {}
    assert np.array_equal(scores.quality, recorded(made).quality)
    assert scores.familiarity == made.familiarity


def test_another_artifact_scores_by_features_and_counts_what_has_none(database: Database, tmp_path: Path) -> None:
    router = Shelf(database).open(other(tmp_path))
    kept, scores, left_out = rescored(past(), router)
    assert kept.ids == past().ids[:3]
    assert left_out == {"features_not_kept": 1, "features_of_another_release": 1}
    assert scores.artifact == [router.version] * 3
    for place, prompt in enumerate(PROMPTS):
        score = router.score_prompt(prompt)
        assert scores.quality[place] == pytest.approx([score.quality[tier].p for tier in TIERS], abs=0.02)
        assert scores.unfamiliar[place] == ",".join(score.unfamiliar)
        assert scores.familiarity[place] == pytest.approx(score.familiarity, abs=0.02)
        assert scores.shown is not None
        assert scores.shown[place] == pytest.approx(score.representation, abs=0.1)


def test_what_single_models_are_judged_by_is_made_where_it_was_not_kept(database: Database) -> None:
    made = dataclasses.replace(past(), shown=["[1.0, 0.5, -0.5]", *[None] * 4])
    kept, scores, left_out = rescored(made, ROUTER, all_by_it=False, shown=True)
    assert len(kept) == 3
    assert sum(left_out.values()) == 2
    assert scores.shown is not None
    assert scores.shown[0].tolist() == [1.0, 0.5, -0.5]
    assert scores.shown[1] == pytest.approx(ROUTER.score_prompt(PROMPTS[1]).representation, abs=0.1)


def test_an_artifact_that_is_not_there_is_refused_with_the_ones_that_are(database: Database, tmp_path: Path) -> None:
    shelf = Shelf(database)
    assert shelf.of("no such version") is None
    with pytest.raises(ConfigError, match=r"no artifact 'kernel-0' .*artifacts list"):
        shelf.open("kernel-0")
    for file in (str(other(tmp_path)), "pyproject.toml", "../../x"):
        with pytest.raises(ConfigError, match="there is no artifact"):
            shelf.open(file)  # a text is a version, whatever lies in the working directory
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"not an artifact")
    with pytest.raises(ConfigError, match="cannot be used"):
        shelf.open(damaged)
