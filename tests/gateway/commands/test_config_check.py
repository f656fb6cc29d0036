"""`penstock config check`: what it would serve, or everything that is wrong with exit code 2."""

import json
from pathlib import Path

from router_models.artifact import load
from tests.gateway.commands.processes import complaint, penstock
from tests.routed_traffic import variant

GOOD = """
models:
  - {name: small, tier: economy, provider: scripted, price: {input: 0.05, output: 0.2}}
  - {name: large, tier: premium, provider: openai, base_url: "http://127.0.0.1:9/v1", api_key: env:LARGE_KEY,
     price: {input: 2.5, output: 10}}
tenants: [{name: acme}]
keys: [{key: env:ACME_KEY, name: app, tenant: acme}]
"""
SECRETS = {"LARGE_KEY": "sk-large-0123456789", "ACME_KEY": "sk-acme-0123456789"}


def written(folder: Path, text: str) -> str:
    """The path of a configuration file with this text."""
    path = folder / "penstock.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_right_configuration_is_shown_with_its_models_and_no_secret(tmp_path: Path) -> None:
    done = penstock("config", "check", written(tmp_path, GOOD), environment=SECRETS)
    assert done.returncode == 0
    assert "large" in done.stdout
    assert "declared keys: app" in done.stdout
    assert "0123456789" not in done.stdout + done.stderr


def test_without_a_file_the_one_of_the_environment_is_checked(tmp_path: Path) -> None:
    done = penstock("config", "check", environment={**SECRETS, "PENSTOCK_CONFIG": written(tmp_path, GOOD)})
    assert (done.returncode, "penstock.yaml is right" in done.stdout) == (0, True)
    done = penstock("config", "check")
    assert (done.returncode, "Name the file, or set PENSTOCK_CONFIG" in complaint(done)) == (2, True)


def test_a_price_from_the_book_is_shown_as_such(tmp_path: Path) -> None:
    text = "models: [{name: m, tier: economy, provider: scripted, price: book, book: {model: x/m}}]"
    done = penstock("config", "check", written(tmp_path, text), "--json")
    assert json.loads(done.stdout)["models"][0]["input_usd_per_million"] == "book"


def test_json_is_one_document(tmp_path: Path) -> None:
    done = penstock("config", "check", written(tmp_path, GOOD), "--json", environment=SECRETS)
    document = json.loads(done.stdout)
    assert document["ok"] is True
    assert document["tiers"] == {"economy": ["small"], "premium": ["large"]}
    assert document["models"][1]["output_usd_per_million"] == "10"
    assert done.stderr == ""


def test_every_wrong_key_is_named_with_the_nearest_right_one(tmp_path: Path) -> None:
    text = "modles: []\nmodels:\n  - {name: a, tier: cheap, provider: scripted, price: {inptu: 1, output: 1}}\n"
    done = penstock("config", "check", written(tmp_path, text))
    assert done.returncode == 2
    said = complaint(done)
    assert "unknown key 'modles'; did you mean 'models'?" in said
    assert "did you mean 'input'?" in said
    assert "'cheap'" in said


def test_every_secret_that_is_not_set_is_named(tmp_path: Path) -> None:
    done = penstock("config", "check", written(tmp_path, GOOD), "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert [name in " ".join(document["problems"]) for name in SECRETS] == [True, True]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = penstock("config", "check", str(tmp_path / "missing.yaml"))
    assert done.returncode == 2
    assert "missing.yaml" in complaint(done)


def test_a_key_that_stands_twice_is_refused_with_its_line_because_one_would_not_count(tmp_path: Path) -> None:
    text = "tenants:\n  - name: acme\n    budget: {limit_usd: 5}\n    budget: {limit_usd: 9}\n"
    done = penstock("config", "check", written(tmp_path, text))
    assert done.returncode == 2
    assert "line 4: the key 'budget' stands in line 3 already" in complaint(done)


def test_a_key_may_replace_one_of_an_anchor(tmp_path: Path) -> None:
    text = (
        "models:\n  - &small {name: a, tier: economy, provider: scripted, price: {input: 1, output: 2}}\n"
        "  - &other {<<: *small, name: b}\n  - {<<: *other, name: c}\n"
    )
    done = penstock("config", "check", written(tmp_path, text), "--json")
    assert [model["name"] for model in json.loads(done.stdout)["models"]] == ["a", "b", "c"]


def test_names_and_domains_that_the_router_does_not_know_are_wrong(tmp_path: Path) -> None:
    text = """
models:
  - {name: a, tier: economy, provider: scripted, price: {input: 1, output: 1}, quality: {recorded: gpt-nobody}}
  - {name: b, tier: premium, provider: scripted, price: {input: 1, output: 1}, quality: {benchmarks: {math: 0.5}}}
"""
    done = penstock("config", "check", written(tmp_path, text))
    said = complaint(done)
    assert done.returncode == 2
    assert "model 'a': quality.recorded: 'gpt-nobody' was not recorded" in said
    assert "model 'b': quality.benchmarks: ['math'] are no domains" in said


def test_labels_of_a_model_are_read_from_the_folder_of_the_file_and_what_is_wrong_with_them_is_said(
    tmp_path: Path,
) -> None:
    text = """
models:
  - {name: a, tier: economy, provider: scripted, price: {input: 1, output: 1}, quality: {labels: few.jsonl}}
  - {name: b, tier: premium, provider: scripted, price: {input: 1, output: 1}, quality: {labels: none.jsonl}}
"""
    file, few = written(tmp_path, text), tmp_path / "few.jsonl"
    lines = [json.dumps({"prompt": f"What is {n} + {n}?", "score": 1}) for n in range(20)]
    few.write_text("\n".join(lines[:19]), encoding="utf-8")
    said = complaint(penstock("config", "check", file))
    assert f"model 'a': quality.labels: {str(few)!r} labels 19 different prompts for 'a'; 20 are the least" in said
    assert f"model 'b': quality.labels: the labels {str(tmp_path / 'none.jsonl')!r} cannot be read" in said
    for name in ("few.jsonl", "none.jsonl"):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    assert penstock("config", "check", file).returncode == 0


def test_a_name_that_an_artifact_in_the_database_knows_is_right(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "models: [{name: m, tier: economy, provider: scripted, price: {input: 1, output: 1}, quality: {recorded: own-3}}]",
    )
    environment = {"PENSTOCK_DATA_DIR": str(tmp_path / "data")}
    assert penstock("migrate", environment=environment).returncode == 0
    own = tmp_path / "own.npz"
    own.write_bytes(variant(tmp_path, "own", models=[f"own-{place}" for place in range(len(load().models))]))
    assert "'own-3' was not recorded" in complaint(penstock("config", "check", file, environment=environment))
    assert penstock("router", "artifacts", "add", str(own), environment=environment).returncode == 0
    assert penstock("config", "check", file, environment=environment).returncode == 0


def test_policies_are_shown_unknown_regions_warned_of_and_who_pays_for_shadows_is_no_declared_key(
    tmp_path: Path,
) -> None:
    text = """
models: [{name: a, tier: economy, provider: scripted, price: {input: 1, output: 1}, regions: [eu]}]
policies:
  places: {regions: [mars], min_quality: 0.8}
  sampled: {shadow: {share: 0.1, compare: exact, budget_usd: 1}}
"""
    done = penstock("config", "check", written(tmp_path, text))
    assert done.returncode == 0
    assert 'policy places: regions: ["mars"], min_quality: 0.8' in done.stdout
    assert "declared keys: none" in done.stdout
    assert "policy 'places' asks for models in mars, and none is configured" in done.stderr
