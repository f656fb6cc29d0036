"""`penstock keys` on a database of its own: a secret is shown once, kept as a hash, rotated and revoked."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.catalog import hash_key
from tests.gateway.commands.processes import complaint, penstock


class Keys:
    """`penstock keys` on one data folder."""

    def __init__(self, folder: Path) -> None:
        self.environment = {"PENSTOCK_DATA_DIR": str(folder)}
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


def test_a_made_key_is_listed_with_its_limits_and_without_its_secret(keys: Keys) -> None:
    made = keys.json(
        *("create", "--name", "app", "--model", "auto", "--tier", "economy", "--budget-usd", "0.000000000001"),
        *("--budget-period", "day", "--requests-per-minute", "60", "--parallel", "5", "--expires-in", "30d"),
    )
    listed = keys.json("list")
    (row,) = listed["keys"]
    assert row["id"] == made["id"] == f"key_{hash_key(made['key'])[:16]}"
    assert row["budget"] == {"limit_usd": "0.000000000001", "period": "day"}
    assert row["limits"] == {"requests": 60, "parallel": 5}
    assert (row["models"], row["tiers"], row["state"]) == (["auto"], ["economy"], "valid")
    assert made["key"] not in json.dumps(listed)


def test_the_database_holds_no_secret(keys: Keys) -> None:
    secret = keys.json("create", "--name", "app")["key"]
    folder = Path(keys.environment["PENSTOCK_DATA_DIR"])
    assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_rotated_key_keeps_its_rights_and_the_old_one_ends(keys: Keys) -> None:
    old = keys.json("create", "--name", "app", "--budget-usd", "5", "--tokens-per-minute", "1000")
    new = keys.json("rotate", "app")
    assert new["replaces"] == old["id"]
    rows = {row["id"]: row for row in keys.json("list")["keys"]}
    assert rows[old["id"]]["state"] == "revoked"
    assert rows[new["id"]]["state"] == "valid"
    assert rows[new["id"]]["budget"] == rows[old["id"]]["budget"]
    assert rows[new["id"]]["limits"] == {"tokens": 1000}


def test_during_the_overlap_both_secrets_work_and_the_name_means_both(keys: Keys) -> None:
    old = keys.json("create", "--name", "app")
    new = keys.json("rotate", "app", "--overlap", "24h")
    assert {row["state"] for row in keys.json("list")["keys"]} == {"valid"}
    code, said = keys.refused("rotate", "app")
    assert (code, "2 valid keys are named 'app'" in said) == (1, True)
    assert set(keys.json("revoke", "app")["revoked"]) == {old["id"], new["id"]}


def test_a_revoked_key_cannot_be_revoked_or_rotated_again(keys: Keys) -> None:
    made = keys.json("create", "--name", "app")
    assert keys.json("revoke", made["id"])["revoked"] == [made["id"]]
    for command in ("revoke", "rotate"):
        code, said = keys.refused(command, "app")
        assert (code, "no valid key has the name or id 'app'" in said) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tenant", "acme"], "tenant 'acme' is not declared"),
        (["--budget-usd", "free"], "'free'"),
        (["--budget-usd", "-1"], "must not be negative"),
        (["--budget-usd", "0.0000000000001"], "more than 12 decimals"),
    ],
)
def test_what_a_key_cannot_have_is_refused(keys: Keys, arguments: list[str], words: str) -> None:
    code, said = keys.refused("create", "--name", "app", *arguments)
    assert code == 2
    assert words in said
    assert keys.json("list") == {"keys": []}


def test_a_duration_that_cannot_be_read_is_refused_with_the_forms_it_takes(keys: Keys) -> None:
    done = penstock("keys", "create", "--name", "app", "--expires-in", "soon", environment=keys.environment)
    assert done.returncode == 2
    assert "'soon' is not a duration; write for example 90s, 30m, 24h or 7d" in done.stderr


def test_without_a_database_nothing_is_made(tmp_path: Path) -> None:
    done = penstock("keys", "list", environment={"PENSTOCK_DATA_DIR": str(tmp_path / "nowhere")})
    assert done.returncode == 1
    assert "there is no database at" in complaint(done)
    assert not (tmp_path / "nowhere").exists()
