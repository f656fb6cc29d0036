"""`penstock keys` on a database of its own: a secret is shown once, kept as a hash, rotated and revoked."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.catalog_owners import LIMITS
from gateway.commands.keys import LIMIT_OPTIONS
from tests.gateway.commands.processes import complaint, penstock

CONFIG = """
tenants: [{name: acme, projects: [{name: web}]}]
keys: [{key: "env:NOT_SET_HERE", name: declared, tenant: acme}]
models: [{name: m, tier: economy, provider: scripted, price: {input: 1, output: 2}}]
"""


class Keys:
    """`penstock keys` on one data folder."""

    def __init__(self, folder: Path, config: str | None = None) -> None:
        self.environment = {"PENSTOCK_DATA_DIR": str(folder)}
        if config is not None:
            file = folder.with_suffix(".yaml")
            file.write_text(config)
            self.environment["PENSTOCK_CONFIG"] = str(file)
        assert penstock("migrate", environment=self.environment).returncode == 0

    def json(self, *arguments: str) -> Any:
        """The document that a command prints."""
        done = penstock("keys", *arguments, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> tuple[int, str]:
        """Exit code and message of a command that cannot be done."""
        done = penstock("keys", *arguments, environment=self.environment)
        return done.returncode, complaint(done)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "data")


def test_a_made_key_is_listed_with_its_limits_and_without_its_secret(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "data", CONFIG)
    made = keys.json(
        *("create", "--name", "app", "--tenant", "acme", "--project", "web", "--model", "auto", "--tier", "economy"),
        *("--budget-usd", "0.000000000001", "--budget-usd", "100/month", "--budget-period", "day"),
        *("--requests-per-minute", "60", "--tokens-per-day", "9", "--parallel", "5", "--expires-in", "30d"),
    )
    listed = keys.json("list")
    (row,) = listed["keys"]
    assert row["id"] == made["id"]
    assert [(each["limit_usd"], each["period"], each["hard"]) for each in row["budgets"]] == [
        ("0.000000000001", "day", True),
        ("100", "month", True),
    ]
    assert row["limits"] == {"requests_per_minute": 60, "tokens_per_day": 9, "parallel": 5}
    assert (row["models"], row["tiers"], row["state"], row["project"]) == (["auto"], ["economy"], "valid", "web")
    assert made["key"] not in json.dumps(listed)
    assert keys.json("list", "--tenant", "default") == {"keys": []}


def test_the_database_holds_no_secret(keys: Keys) -> None:
    secret = keys.json("create", "--name", "app")["key"]
    folder = Path(keys.environment["PENSTOCK_DATA_DIR"])
    assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_rotated_key_is_the_same_key_with_another_secret(keys: Keys) -> None:
    old = keys.json("create", "--name", "app", "--budget-usd", "5", "--tokens-per-minute", "1000")
    before = keys.json("list")
    new = keys.json("rotate", "app", "--overlap", "24h")
    assert (new["id"], new["key"] == old["key"]) == (old["id"], False)
    assert new["old_secret_ends_at"] > before["keys"][0]["created_at"]
    assert keys.json("list") == before


def test_a_revoked_key_cannot_be_revoked_or_rotated_again_and_leaves_its_name(keys: Keys) -> None:
    made = keys.json("create", "--name", "app")
    code, said = keys.refused("create", "--name", "app")
    assert (code, "already has a key named 'app'" in said) == (1, True)
    assert keys.json("revoke", made["id"])["revoked"] == [made["id"]]
    for command in ("revoke", "rotate"):
        code, said = keys.refused(command, "app")
        assert (code, "No valid key has the name or id 'app'" in said) == (1, True)
    assert keys.json("create", "--name", "app")["id"] != made["id"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tenant", "nobody"], "tenant 'nobody' is not declared"),
        (["--tenant", "acme", "--project", "shop"], "has no project 'shop'"),
        (["--model", "gtp"], "model 'gtp' is not configured"),
        (["--budget-usd", "free"], "'free'"),
        (["--budget-usd", "-1"], "must not be negative"),
        (["--budget-usd", "0.0000000000001"], "more than 12 decimals"),
        (["--budget-usd", "5/year"], "the period must be one of day, week, month, lifetime"),
        (["--budget-usd", "5/day", "--budget-usd", "6/day"], "a budget per day already"),
        (["--name", "a\nb"], "invisible characters"),
        (["--expires-in", "0d"], "must not expire in the past"),
    ],
)
def test_what_a_key_cannot_have_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    keys = Keys(tmp_path / "data", CONFIG)
    code, said = keys.refused("create", "--name", "app", *arguments)
    assert code == 2
    assert words in said
    assert keys.json("list") == {"keys": []}


def test_the_name_of_a_declared_key_is_taken(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "data", CONFIG)
    code, said = keys.refused("create", "--name", "declared", "--tenant", "acme")
    assert (code, "named 'declared' in the configuration" in said) == (1, True)


@pytest.mark.parametrize("command", ["rotate", "revoke"])
def test_a_declared_key_is_changed_where_it_is_declared(tmp_path: Path, command: str) -> None:
    keys = Keys(tmp_path / "data", CONFIG)
    code, said = keys.refused(command, "declared")
    assert (code, "'declared' is declared in the configuration. Change it there" in said) == (1, True)
    code, said = keys.refused(command, "declared", "--tenant", "default")
    assert (code, "No valid key has the name" in said) == (1, True)


def test_a_gateway_does_not_start_when_a_declared_key_has_the_name_of_a_made_one(tmp_path: Path) -> None:
    Keys(tmp_path / "data").json("create", "--name", "app")
    declared = Keys(
        tmp_path / "data", CONFIG.replace("env:NOT_SET_HERE", "sk-12345678").replace("declared, tenant: acme", "app")
    )
    done = penstock("serve", "--port", "0", environment=declared.environment)
    assert done.returncode == 2
    assert "the key 'app' of the tenant 'default' is in the configuration" in done.stderr


def test_a_duration_that_cannot_be_read_is_refused_with_the_forms_it_takes(keys: Keys) -> None:
    for text in ("soon", "9999999999999d", "-1d", "²d"):
        done = penstock("keys", "create", "--name", "app", f"--expires-in={text}", environment=keys.environment)
        assert done.returncode == 2
        assert "is not a duration; write for example 90s, 30m, 24h or 7d" in done.stderr


def test_without_a_database_nothing_is_made(tmp_path: Path) -> None:
    done = penstock("keys", "list", environment={"PENSTOCK_DATA_DIR": str(tmp_path / "nowhere")})
    assert done.returncode == 1
    assert "there is no database at" in complaint(done)
    assert not (tmp_path / "nowhere").exists()


def test_commands_know_every_limit_that_the_configuration_has() -> None:
    assert tuple(LIMITS) == LIMIT_OPTIONS


@pytest.mark.parametrize("limit", LIMIT_OPTIONS)
def test_a_limit_that_no_counter_can_hold_is_refused(keys: Keys, limit: str) -> None:
    done = penstock(
        "keys", "create", "--name", "app", f"--{limit.replace('_', '-')}={2**62}", environment=keys.environment
    )
    assert done.returncode == 2
    assert f"{2**62} is not in the range 1<=x<={2**62 - 1}" in done.stderr
