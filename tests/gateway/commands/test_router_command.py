"""`penstock router`: one object out per line in, in order, whatever the line holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_models import Router
from tests.gateway.commands.processes import complaint, penstock
from tests.routed_traffic import variant


def test_each_line_gives_one_score_with_all_its_parts() -> None:
    lines = [
        {"prompt": "What is 2+2?"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Prove it."}]},
        {"prompt": ""},
    ]
    done = penstock("router", "score", "--json", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(scores) == len(lines)
    for score in scores:
        assert 0 < score["difficulty"] < 1
        for tier in score["quality"].values():
            assert 0 <= tier["low"] <= tier["p"] <= tier["high"] <= 1
        assert set(score["expected_output_tokens"]) == set(score["quality"])
        assert score["artifact"]
        assert score["microseconds"] > 0


def test_a_line_that_cannot_be_scored_says_why_in_its_place() -> None:
    lines = [
        "nonsense",
        '{"prompt": "one", "messages": []}',
        '{"prompt": 5}',
        '{"messages": "x"}',
        "[]",
        '{"prompt": "fine"}',
    ]
    done = penstock("router", "score", "--json", stdin="\n".join(lines) + "\n")
    assert done.returncode == 1
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [reply.get("line") for reply in replies] == [1, 2, 3, 4, 5, None]
    assert "not JSON" in replies[0]["error"]
    assert "Traceback" not in done.stderr


def test_an_explanation_names_what_moved_the_score_and_in_which_unit() -> None:
    prompt = "Prove that there are infinitely many primes."
    document = json.loads(penstock("router", "explain", prompt, "--json").stdout)
    assert document["score"]["difficulty"] > 0
    why = document["explanation"]
    assert "logits of ease" in why["unit"]
    assert all({"part", "detail", "push", "direction"} == set(part) for part in why["parts"])
    assert sum(part["push"] for part in why["parts"]) == pytest.approx(why["ease"] - why["usual_ease"], abs=1e-3)
    told = penstock("router", "explain", prompt)
    assert "logits of ease" in told.stdout
    assert "a question of 44 bytes" in told.stdout
    tokens, gain = (document["score"][name] for name in ("expected_reasoning_tokens", "thinking_gain"))
    assert f"reasoning at length: about {tokens:.0f} tokens more" in told.stdout
    assert f"good answer by {gain:+.3f} (" in told.stdout
    assert "easier" in told.stdout
    assert "harder" in told.stdout


@dataclass
class Configured:
    """A data folder with an artifact that is champion of one of its policies."""

    environment: dict[str, str]
    version: str
    file: Path

    def explain(self, *arguments: str) -> Any:
        done = penstock("router", "explain", "What is 2+2?", *arguments, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    tiers = (("small", "economy", 0.1), ("middle", "standard", 1), ("large", "premium", 10))
    models: list[dict[str, Any]] = [
        {"name": name, "tier": tier, "provider": "scripted", "price": {"input": price, "output": price}}
        for name, tier, price in tiers
    ]
    for each in models[:2]:
        each["regions"] = ["eu"]
    models[2]["reasoning"] = True
    policies = {
        "default": {"min_quality": 0.8},
        "europe": {"min_quality": 0.8, "regions": ["eu"], "unfamiliar": "choose"},
    }
    config = tmp_path / "penstock.yaml"
    config.write_text(yaml.safe_dump({"models": models, "policies": policies}), encoding="utf-8")
    environment = {"PENSTOCK_DATA_DIR": str(tmp_path / "data"), "PENSTOCK_CONFIG": str(config)}
    assert penstock("migrate", environment=environment).returncode == 0
    file = tmp_path / "own.npz"
    file.write_bytes(variant(tmp_path, "own", 0.4))
    assert penstock("router", "artifacts", "add", str(file), environment=environment).returncode == 0
    version = Router.load(file).version
    done = penstock("router", "assign", "europe", "--champion", version, environment=environment)
    assert done.returncode == 0, done.stderr
    return Configured(environment, version, file)


def test_every_policy_is_explained_by_the_artifact_that_the_gateway_uses_for_it(configured: Configured) -> None:
    bundled = Router.load().version
    document = configured.explain()
    assert document["score"]["artifact"] == bundled
    artifacts = {each["policy"]: each["artifact"] for each in document["policies"]}
    assert (artifacts["default"], artifacts["europe"]) == (bundled, configured.version)
    for wanted in (configured.version, str(configured.file)):
        document = configured.explain("--artifact", wanted)
        assert {document["score"]["artifact"], *(each["artifact"] for each in document["policies"])} == {
            configured.version
        }
    default = next(each for each in document["policies"] if each["policy"] == "default")
    thinks = {each["model"]: each.get("expected_reasoning_tokens") for each in default["candidates"]}
    assert thinks["large"] == round(document["score"]["expected_reasoning_tokens"])
    assert thinks["small"] is None
    assert default["thinking_gain"] == document["score"]["thinking_gain"]
    told = penstock("router", "explain", "What is 2+2?", environment=configured.environment)
    assert f"with {thinks['large']} reasoning tokens: " in told.stdout
    assert f"policy europe [{configured.version}, difficulty" in told.stdout


def test_policies_are_explained_from_the_file_while_there_is_no_database(
    configured: Configured, tmp_path: Path
) -> None:
    document = {**configured.environment, "PENSTOCK_DATA_DIR": str(tmp_path / "new")}
    done = penstock("router", "explain", "What is 2+2?", "--json", environment=document)
    assert done.returncode == 0, done.stderr
    found = {each["policy"]: each for each in json.loads(done.stdout)["policies"]}
    assert {each["artifact"] for each in found.values()} == {Router.load().version}
    assert [each["model"] for each in found["europe"]["rejected"]] == ["large"]
    assert not (tmp_path / "new").exists(), "nothing is made by looking"


def test_a_policy_that_leaves_models_out_is_explained_by_the_promise_that_its_requests_get(
    configured: Configured,
) -> None:
    europe = next(
        each for each in configured.explain("--artifact", "bundled")["policies"] if each["policy"] == "europe"
    )
    assert "kept on average" in europe["decision"]
    assert "worth_pico" in europe


def test_an_artifact_can_be_explained_without_a_configuration_and_one_that_is_not_there_is_named(
    configured: Configured,
) -> None:
    prompt = ("router", "explain", "What is 2+2?", "--artifact")
    assert configured.version in penstock(*prompt, str(configured.file)).stdout
    other = penstock(*prompt, "kernel-0", environment=configured.environment)
    assert other.returncode != 0
    assert "there is no artifact 'kernel-0'" in complaint(other)
