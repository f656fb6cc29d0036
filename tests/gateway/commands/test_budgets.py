"""`penstock budgets`, `limits`, `members` and `audit` on a database of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.commands.processes import complaint, penstock

CONFIG = """
tenants:
  - {name: acme, budget: [{limit_usd: 100}, {limit_usd: 10, period: day, hard: false}],
     users: {each: {budget: {limit_usd: 1}}}, limits: {parallel: 9}}
keys: [{key: "env:NOT_SET_HERE", name: app, tenant: acme, budget: {limit_usd: 5}}]
"""


class Terminal:
    """`penstock` on one data folder and configuration."""

    def __init__(self, folder: Path) -> None:
        config = folder / "penstock.yaml"
        config.write_text(CONFIG)
        self.environment = {"PENSTOCK_DATA_DIR": str(folder / "data"), "PENSTOCK_CONFIG": str(config)}
        assert penstock("migrate", environment=self.environment).returncode == 0

    def json(self, *arguments: str) -> Any:
        """The document that a command prints."""
        done = penstock(*arguments, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def text(self, *arguments: str) -> str:
        """What a command prints for people."""
        done = penstock(*arguments, environment=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> tuple[int, str]:
        """Exit code and message of a command that cannot be done."""
        done = penstock(*arguments, environment=self.environment)
        return done.returncode, complaint(done)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_a_budget_is_set_raised_and_removed_and_all_of_it_is_seen(terminal: Terminal) -> None:
    terminal.json("budgets", "set", "key:acme/app", "--limit-usd", "7.5", "--period", "month", "--soft")
    made = terminal.json(
        "budgets", "raise", "tenant:acme", "--usd", "20", "--period", "month", "--for", "3d", "--reason", "launch week"
    )
    listed = terminal.json("budgets", "list")
    shown = {(row["scope"], row["period"]): row for row in listed["budgets"]}
    assert shown["tenant:acme", "month"]["limit_usd"] == "120"
    assert shown["tenant:acme", "month"]["raised_usd"] == "20"
    assert (shown["tenant:acme", "day"]["hard"], shown["tenant:acme", "day"]["used_usd"]) == (False, "0")
    assert (shown["key:acme/app", "month"]["limit_usd"], shown["key:acme/app", "month"]["hard"]) == ("7.5", False)
    assert shown["user:acme/", "month"]["used_usd"] is None
    assert listed["raises"] == [made]
    table = terminal.text("budgets", "list", "--tenant", "acme")
    assert "launch week" in table
    assert "key:acme/app" in table
    assert terminal.json("budgets", "end-raise", str(made["id"]))["ended"]["id"] == made["id"]
    terminal.text("budgets", "remove", "key:acme/app")
    shown = {(row["scope"], row["period"]): row for row in terminal.json("budgets", "list")["budgets"]}
    assert shown["key:acme/app", "month"]["limit_usd"] == "5"
    assert shown["tenant:acme", "month"]["limit_usd"] == "100"


def test_setting_a_budget_says_what_it_replaces(terminal: Terminal) -> None:
    said = terminal.text("budgets", "set", "tenant:acme", "--limit-usd", "0.5", "--period", "day")
    assert said == "tenant:acme: 0.5 USD per day, hard, in place of 10 USD, soft.\n"
    made = terminal.json("budgets", "set", "tenant:acme", "--limit-usd", "3", "--period", "day", "--soft")
    assert (made["hard"], made["replaced"]) == (False, {"limit_usd": "0.5", "hard": True})
    said = terminal.text("budgets", "set", "tenant:acme", "--limit-usd", "9", "--period", "week")
    assert said == "tenant:acme: 9 USD per week, hard.\n"


def test_limits_are_set_listed_and_removed(terminal: Terminal) -> None:
    terminal.text("limits", "set", "user:acme/bob", "requests_per_day", "50")
    assert terminal.json("limits", "list", "--tenant", "acme")["limits"] == [
        {"scope": "tenant:acme", "limit": "parallel", "value": 9},
        {"scope": "user:acme/bob", "limit": "requests_per_day", "value": 50},
    ]
    terminal.text("limits", "remove", "user:acme/bob", "requests_per_day")
    assert len(terminal.json("limits", "list")["limits"]) == 1


def test_a_member_is_added_listed_and_removed_and_the_log_has_it_all(terminal: Terminal) -> None:
    made = terminal.json("members", "add", "--name", "Ann", "--role", "finance", "--tenant", "acme")
    assert made["token"].startswith("sk-penstock-member-")
    terminal.text("members", "remove", "Ann")
    [listed] = terminal.json("members", "list")["members"]
    assert (listed["id"], listed["role"], listed["ended_at"] is None) == (made["id"], "finance", False)
    assert terminal.json("members", "list", "--tenant", "other") == {"members": []}
    terminal.text("limits", "set", "tenant:acme", "parallel", "3")
    log = terminal.json("audit", "--limit", "2")
    assert [entry["action"] for entry in log["entries"]] == ["limits.set", "members.remove"]
    older = terminal.json("audit", "--before", str(log["next"]), "--tenant", "acme")
    assert [entry["action"] for entry in older["entries"]] == ["members.add"]
    assert all(entry["actor"].startswith("command line") for entry in log["entries"])
    assert made["token"] not in terminal.text("audit") + json.dumps(log)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["budgets", "set", "acme", "--limit-usd", "5"], 2, "'acme' does not name an owner"),
        (["budgets", "set", "tenant:nobody", "--limit-usd", "5"], 2, "tenant 'nobody' is not declared"),
        (["budgets", "set", "key:acme/nobody", "--limit-usd", "5"], 2, "there is no such key"),
        (["budgets", "set", "tenant:acme", "--limit-usd", "five"], 2, "--limit-usd must be a decimal number"),
        (["budgets", "set", "tenant:acme", "--limit-usd", "5,00"], 2, "--limit-usd must be a decimal number"),
        (["budgets", "remove", "tenant:acme"], 1, "no budget per month that was set at run time"),
        (["budgets", "raise", "tenant:acme", "--usd", "5", "--reason", "x"], 2, "give --until or --for"),
        (
            ["budgets", "raise", "tenant:acme", "--usd", "5", "--reason", " ", "--for", "1d"],
            2,
            "reason must be one line",
        ),
        (["budgets", "raise", "tenant:acme", "--usd", "0", "--reason", "x", "--for", "1d"], 2, "more than nothing"),
        (["budgets", "raise", "tenant:acme", "--usd", "5", "--reason", "x", "--until", "2020-01-01"], 2, "in the past"),
        (
            ["budgets", "raise", "tenant:acme", "--usd", "5", "--reason", "x", "--for", "1d", "--period", "week"],
            2,
            "has budgets per month, day, and none per week",
        ),
        (["budgets", "end-raise", "9"], 1, "No raise that is in force has the number 9"),
        (["limits", "remove", "tenant:acme", "parallel"], 1, "no limit parallel that was set at run time"),
        (["members", "add", "--name", "x", "--role", "viewer", "--tenant", "nobody"], 2, "'nobody' is not declared"),
        (["members", "remove", "nobody"], 1, "No member has the name or id 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_no_trace(
    terminal: Terminal, arguments: list[str], code: int, words: str
) -> None:
    done, said = terminal.refused(*arguments)
    assert (done, words in said) == (code, True), said
    assert terminal.json("audit") == {"entries": [], "next": None}
