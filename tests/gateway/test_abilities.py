"""Models that are judged by themselves: by labels, a record or public scores, with every artifact that knows them."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path

import pytest

from gateway.abilities import Abilities, ability_problems
from gateway.artifacts import add
from gateway.db.connect import Database, connect
from gateway.errors import ConfigError
from gateway.scorers import kept_routers, open_artifact
from router_models.router import Router
from tests.builders import catalog, model
from tests.routed_traffic import variant

BUNDLED = Router.load()
PARIS = BUNDLED.score_prompt("Which is the capital of France?")
OWN = [f"own-{place}" for place in range(len(BUNDLED.artifact.models))]
OURS = catalog(model("m", quality={"recorded": "own-3"}))


def labelled(folder: Path, score: float, count: int = 40) -> str:
    lines = [{"prompt": f"Which is the capital of country {n}?", "score": score} for n in range(count)]
    path = folder / f"labels-{score}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(path)


def test_a_model_is_judged_by_labels_by_benchmarks_or_by_its_record(tmp_path: Path) -> None:
    domain, recorded = BUNDLED.artifact.domains[0], BUNDLED.artifact.models[0]
    built = catalog(
        model("plain"),
        model("benchmarked", quality={"benchmarks": {domain: 0.99}}),
        model("known", quality={"recorded": recorded}),
        model("good", "deep", quality={"labels": labelled(tmp_path, 1.0)}),
        model("bad", "deep", quality={"labels": labelled(tmp_path, 0.0)}),
    )
    known = Abilities(built, BUNDLED).of(BUNDLED.version)
    bases = {index: each.basis for index, each in known.items()}
    assert bases == {
        1: "public scores in 1 domain",
        2: f"what was recorded of {recorded}",
        3: "40 labels of its own",
        4: "40 labels of its own",
    }
    for ability in known.values():
        interval = ability.quality(PARIS)
        assert 0 < interval.low < interval.p < interval.high < 1
    assert known[4].quality(PARIS).high < known[3].quality(PARIS).low


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ({"benchmarks": {"no such": 0.5}}, "quality.benchmarks: .*no such"),
        ({"recorded": "gpt-0"}, "'gpt-0' was not recorded. Did you mean 'gpt-"),
        ({}, "give either `benchmarks`, `recorded` or `labels`"),
        ({"recorded": "gpt-4-0613", "labels": "x.jsonl"}, "give either"),
        ({"labels": "no-such-file.jsonl"}, "model 'm': quality.labels: .*no-such-file.jsonl' cannot be read"),
    ],
)
def test_what_nobody_knows_is_refused_at_the_start_and_by_the_check(quality: dict[str, object], message: str) -> None:
    built = catalog(model("m", quality=quality))
    with pytest.raises(ConfigError, match=message):
        Abilities(built, BUNDLED)
    problems = ability_problems(built, tuple)
    assert len(problems) == 1


def test_labels_are_kept_for_artifacts_that_come_later(tmp_path: Path) -> None:
    file = labelled(tmp_path, 1.0)
    abilities = Abilities(catalog(model("m", quality={"labels": file})), BUNDLED)
    Path(file).unlink()
    later = open_artifact(variant(tmp_path, "later", 0.5), "later")
    abilities.learn(later)
    assert abilities.of(later.version)[0].basis == "40 labels of its own"


def test_a_name_that_only_an_artifact_of_ones_own_knows_is_no_mistake_and_counts_with_that_artifact(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, kept = variant(tmp_path, "mine", models=OWN), partial(kept_routers, database)
    with pytest.raises(ConfigError, match="'own-3' was not recorded"):
        Abilities(OURS, BUNDLED, kept)
    assert ability_problems(OURS, kept)
    version = add(database, content, "mine.npz", "tester", 1_790_000_000.0)["version"]
    assert ability_problems(OURS, kept) == []
    with caplog.at_level(logging.WARNING):
        abilities = Abilities(OURS, BUNDLED, kept)
    assert "with the bundled artifact its tier counts: model 'm'" in caplog.text
    assert abilities.of(BUNDLED.version) == {}
    abilities.learn(open_artifact(content, version))
    assert abilities.of(version)[0].basis == "what was recorded of own-3"


def test_where_the_database_cannot_say_what_its_artifacts_know_the_gateway_starts_all_the_same(tmp_path: Path) -> None:
    nowhere = connect(f"sqlite:///{tmp_path / 'without_tables.db'}")
    abilities = Abilities(OURS, BUNDLED, partial(kept_routers, nowhere))
    nowhere.close()
    assert abilities.of(BUNDLED.version) == {}
