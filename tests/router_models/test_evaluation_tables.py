"""The evaluation's tables and curves show every method; promises by worth are judged on prompts that did not make them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from router_models import Router
from router_models.evaluation.baselines import NearestPrompts
from router_models.evaluation.calibration import domains_report
from router_models.evaluation.curves import _quality, colours_of, draw_curves
from router_models.evaluation.newcomers import MEASURES, gain_over
from router_models.evaluation.promises import WORTH_FLOORS, worths_report
from router_models.evaluation.scored import Scored
from router_models.evaluation.sizes import sizes_report
from router_models.evaluation.target_table import LEGEND, _newcomers, _wording, _worths, baseline_table, domain_table
from router_models.tiers import TIERS
from router_models.training.data import load_tables
from tests.router_models.small_tables import EASY, HARD, made_up

LEVELS = dict(zip(TIERS, (-0.5, 0.6, 1.6), strict=True))


def scored(count: int, labelled: float = 1.0) -> Scored:
    """Prompts whose ease is known up to some noise; of all but a share `labelled` nobody recorded the premium tier."""
    rng = np.random.default_rng(0)
    ease, guess = rng.normal(size=(2, count))
    guess = ease + 0.5 * guess
    probability = {tier: 1 / (1 + np.exp(-(0.8 * guess + level))) for tier, level in LEVELS.items()}
    rate = {
        tier: (rng.random(count) < 1 / (1 + np.exp(-(ease + level)))).astype(float) for tier, level in LEVELS.items()
    }
    rate["premium"][int(labelled * count) :] = np.nan
    tokens = {tier: np.full(count, 200.0) for tier in TIERS}
    flags = np.ones(count, dtype=bool)
    none = pd.DataFrame({"place": np.zeros(0, dtype=int), "model": [], "tier": [], "score": []})
    return Scored(
        domains=np.full(count, "made_up"),
        seen_domain=flags,
        unfamiliar=~flags,
        characters=np.full(count, 800.0),
        probability=probability,
        low=probability,
        high=probability,
        tokens=tokens,
        rate=rate,
        used=tokens,
        answers=none,
    )


def report() -> dict[str, Any]:
    line = [[0.0, 0.5], [1.0, 0.8]]
    pair = {name: {"apgr": value} for name, value in (("artifact", 0.6), ("length", 0.55), ("oracle", 1.1))}
    nine = {name: {"area": value} for name, value in (("local", 0.69), ("knn", 0.67), ("dataset_mean", 0.685))}
    cells = [{"predicted": 0.2, "recorded": 0.3, "prompts": 5}]
    return {
        "routellm": {
            "mmlu_test": {
                "always_weak": 0.5,
                "always_strong": 0.8,
                "prompts": 9,
                "curves": {"artifact": line, "oracle": line},
            }
            | pair
        },
        "few_labels": {"mmlu_test": {"labels": 1500, "rows": {"local": {"apgr": 0.67}, "knn": {"apgr": 0.65}}}},
        "nine_models": {
            "rows": nine,
            "curves": {"local": line, "oracle": line},
            "billions_of_parameters": {"a": 7.0, "b": 7.0, "c": 70.0},
            "always_one_model": {"a": 0.5, "b": 0.55, "c": 0.2},
        },
        "quality": {"seen_domains": {"economy": {"reliability": cells}, "standard": {"note": "too few"}}},
    }


def test_every_method_has_a_row_and_every_comparison_a_column() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in baseline_table(report()).splitlines()]
    assert rows[0] == ["method", "mmlu_test, unseen", "mmlu_test, 1500 labels", "nine models, area"]
    found = {row[0]: row[1:] for row in rows[2:]}
    assert found["artifact"] == [".600", "", ""]
    assert found["artifact and labels"] == ["", ".670", ".690"]
    assert found["nearest neighbours"] == ["", ".650", ".670"]
    assert found["dataset mean"] == ["", "", ".685"]
    # Of the cheapest models the better one is what always weak means.
    assert found["always weak"] == [".000", ".000", ".550"]
    assert found["always strong"] == ["1.000", "1.000", ".200"]
    assert next(iter(found)) == "artifact"
    assert list(found)[-1] == "oracle"


def test_the_curves_are_drawn_to_files(tmp_path: Path) -> None:
    written = draw_curves(report(), tmp_path / "curves")
    assert [path.name for path in written] == ["router_quality.png", "router_nine_models.png", "router_reliability.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_a_method_has_one_colour_in_all_panels_and_methods_differ() -> None:
    colours = colours_of(["artifact", "subject mean", "oracle", "artifact", "oracle"])
    assert list(colours) == ["artifact", "subject mean", "oracle"]
    assert len(set(colours.values())) == 3
    panels = report()["routellm"]
    panels["gsm8k_test"] = {**panels["mmlu_test"], "curves": {"oracle": [[0.0, 0.5], [1.0, 0.8]]}}
    figure = _quality(Figure, panels)
    lines = {(axes.get_title(), line.get_label()): line.get_color() for axes in figure.axes for line in axes.lines}
    assert lines["mmlu_test", "oracle"] == lines["gsm8k_test", "oracle"] != lines["mmlu_test", "artifact"]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["artifact", "oracle", "random"]
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_promises_by_worth_are_kept_on_the_other_half() -> None:
    found = worths_report(scored(1000), Router.load(), seed=0, deployments=40)
    assert found["prompts"] == 1000
    for floor in WORTH_FLOORS:
        row = found["rows"][str(floor)]
        assert row["kept"] >= 0.9
        assert row["saved"] > 0.0
    assert found["rows"]["0.8"]["saved"] > found["rows"]["0.95"]["saved"]
    assert set(found["artifact"]) == {str(floor) for floor in WORTH_FLOORS}


def test_promises_by_worth_need_prompts_with_all_tiers() -> None:
    found = worths_report(scored(1000, labelled=0.1), Router.load(), seed=0)
    assert found["prompts"] == 100
    assert "too few" in found["note"]


def test_what_a_larger_request_is_worth_is_compared_by_what_it_saves_on_the_record() -> None:
    found = sizes_report(scored(1000))
    assert found["prompts"] == 1000
    # All of these requests are as large, so the powers choose alike.
    assert found["saved"]["0.0"] == pytest.approx(found["saved"]["1.0"], abs=0.02)
    assert found["saved"]["0.0"] == sorted(found["saved"]["0.0"], reverse=True)
    assert 0.0 < found["saved"]["0.75"][-1] < found["saved"]["0.75"][0] < 1.0


def test_the_gain_of_labels_has_an_interval_over_models() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(0.2, 0.1, size=(40, len(MEASURES)))
    better = base + np.array([-0.03, 0.0, 0.01]) + rng.normal(0.0, 0.01, size=base.shape)
    better[3, 1] = np.nan  # all answers of a model alike: nothing to rank
    gains = gain_over(better, base, seed=0)
    assert gains["brier"]["low"] > 0.02
    assert gains["brier"]["value"] == pytest.approx(0.03, abs=0.005)
    assert gains["auc"]["low"] < 0.0 < gains["auc"]["high"]
    assert gains["routed_above_mix"]["low"] < gains["routed_above_mix"]["value"] < gains["routed_above_mix"]["high"]
    narrow = gains["brier"]["high"] - gains["brier"]["low"]
    assert narrow == pytest.approx(2 * 1.96 * 0.01 / np.sqrt(40), rel=0.35)
    row = dict.fromkeys(MEASURES, 0.1)
    told = _newcomers({
        "models": 40, "labels": 40, "rows": dict.fromkeys(("ability", "global_mean", "prior_only"), row),
        "gain_over": {"global_mean": gains, "prior_only": gains},
    })  # fmt: skip
    assert len(told) == 4
    assert "the prior without labels (40 models)" in told[1]
    assert f"({gains['brier']['low']:+.4f} to {gains['brier']['high']:+.4f})" in told[3]


def test_calibration_is_told_by_domain_beside_what_chance_would_show() -> None:
    rng = np.random.default_rng(1)
    part = scored(900)
    names = np.repeat(["large", "shifted", "small", "tiny"], (420, 420, 40, 20))
    truth = np.where(
        names == "shifted", np.clip(part.probability["economy"] - 0.2, 0.0, 1.0), part.probability["economy"]
    )
    rate = (rng.random(900) < truth).astype(float)
    found = domains_report(replace(part, domains=names, rate={**part.rate, "economy": rate}), "economy")
    assert set(found) == {"large", "shifted", "small"}, "a few prompts say nothing"
    assert found["large"]["ece"] < 2 * found["large"]["ece_by_chance"]
    assert found["large"]["gap"] < 3 * found["large"]["gap_by_chance"]
    assert found["shifted"]["ece"] > 2 * found["shifted"]["ece_by_chance"]
    too_high = found["shifted"]["predicted"] - found["shifted"]["recorded"]
    assert 0.1 < too_high == pytest.approx(found["shifted"]["gap"], abs=2e-4)
    assert "ece" not in found["small"]
    told = domain_table({"seen_domains": {"economy": {"domains": found}, "premium": {"note": "too few"}}}).splitlines()
    assert len(told) == 2 + 3
    assert told[2].startswith("| large (seen) | ")
    assert f"(chance {found['shifted']['ece_by_chance']:.3f}".replace("0.", ".", 1) in told[3]
    assert "gap ." in told[4]
    assert told[4].endswith("; 40 |  |")


def test_nearest_prompts_rank_what_failed_on_like_prompts_first(tmp_path: Path) -> None:
    rank = NearestPrompts(load_tables(made_up(tmp_path)), Router.load())
    easy, hard = (rank([pattern.format(91, 12) for pattern in patterns]) for patterns in (EASY, HARD))
    assert hard.min() > easy.max() + 0.2
    assert rank([]).shape == (0,)


@pytest.mark.parametrize("method", ["random_mix", "subject_gain_leave_one_out"])
def test_methods_of_two_names_share_a_row(method: str) -> None:
    document = report()
    document["nine_models"]["rows"][method] = {"area": 0.6}
    assert method.replace("_", " ") not in baseline_table(document)


def test_the_table_says_how_far_wording_goes_and_what_bounds_it() -> None:
    turned = {"one_nonsense": 0.5, "one_foreign": 0.25, "any": 1.0, "any_plea": None}
    quality, unfamiliar = _wording({
        "quality_lost_by_one_plea": {"p95": 0.12},
        "quality_lost_by_three_chosen": {"p95": 0.19},
        "turned_unfamiliar": {"prompts": 4, "ends": 9, "turned": turned},
    })  # fmt: skip
    assert "one .120, three chosen .190" in quality
    assert "nonsense 50 %, a German sentence 25 %, the best of 9 such ends 100 %, of the pleas none" in unfamiliar
    assert "max_unfamiliar_share" in unfamiliar


def test_the_table_says_what_a_sample_cannot_promise_and_what_its_words_mean() -> None:
    kept = {"kept": 1.0, "saved": 0.41, "possible": 1.0}
    promise = {"possible": False, "labels": 0, "kept_here": 1.0, "saved_here": 0.0}
    rows = _worths({"rows": {"0.9": kept}, "artifact": {"0.9": promise}})
    assert "100.0 % of deployments (saves 41 %" in rows[0]
    assert "not possible with its 0 labels: always the best tier" in rows[1]
    for word in ("target", "APGR", "ECE", "floor 0.9 kept", "promised by its own sample"):
        assert f"`{word}`" in LEGEND
