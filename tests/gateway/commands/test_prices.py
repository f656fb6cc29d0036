"""`penstock prices` on a database of its own: nothing is written unasked, and what cannot be a price is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.billing.prices.queries import prices_since
from gateway.db.connect import connect
from tests.gateway.commands.processes import complaint, penstock

MAP: dict[str, dict[str, Any]] = {
    "sample_spec": {"litellm_provider": "one of many", "input_cost_per_token": 0},
    "gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05},
    "draw-x": {"litellm_provider": "openai", "output_cost_per_image": 0.04},
}

NEXT_YEAR = datetime.now(UTC).year + 1


class Prices:
    """`penstock prices` on one data folder, with a price map and a configuration beside it."""

    def __init__(self, folder: Path) -> None:
        self.map, self.config = folder / "map.json", folder / "penstock.yaml"
        self.environment = {"PENSTOCK_DATA_DIR": str(folder / "data")}
        self.write_map(MAP)
        models = [{"name": "chat", "tier": "premium", "provider": "scripted", "model": "gpt-x", "price": "book"}]
        self.config.write_text(yaml.safe_dump({"models": models, "tenants": [{"name": "acme"}]}))
        assert penstock("migrate", environment=self.environment).returncode == 0

    def write_map(self, document: object) -> None:
        self.map.write_text(json.dumps(document))

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The document that a command prints."""
        done = penstock("prices", *arguments, "--json", environment=self.environment)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def sync(self, *arguments: str) -> Any:
        """`prices sync` from the map."""
        return self.json("sync", "--file", str(self.map), *arguments)

    def listed(self, *arguments: str) -> dict[str, str]:
        """'model meter' -> USD per million."""
        rows = self.json("list", *arguments)["prices"]
        return {f"{row['model']} {row['meter']}": row["usd_per_million"] for row in rows}

    def written(self) -> int:
        """How many prices the database has."""
        database = connect(f"sqlite:///{Path(self.environment['PENSTOCK_DATA_DIR']) / 'penstock.db'}")
        try:
            return len(prices_since(database, datetime(2000, 1, 1, tzinfo=UTC)))
        finally:
            database.close()

    def refused(self, *arguments: str) -> tuple[int, str]:
        """Exit code and message of a command that cannot be done."""
        done = penstock("prices", *arguments, environment=self.environment)
        return done.returncode, complaint(done)


@pytest.fixture
def prices(tmp_path: Path) -> Prices:
    return Prices(tmp_path)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    """A book in which nothing is ever written."""
    return Prices(tmp_path_factory.mktemp("prices"))


def test_sync_shows_what_it_would_do_and_does_it_only_when_asked(prices: Prices) -> None:
    shown = prices.sync()
    assert (shown["entries"], shown["models"], shown["prices"]) == (2, 1, 2)
    assert shown["not_imported"] == {"not a price per token": 1}
    assert (len(shown["added"]), shown["applied"]) == (2, False)
    assert prices.listed() == {}
    assert prices.sync("--apply")["applied"]
    assert prices.listed() == {"gpt-x input": "2.5", "gpt-x output": "10"}
    again = prices.sync()
    assert (again["added"], again["changed"], again["removed"], again["unchanged"]) == ([], [], [], 2)


def test_a_second_sync_shows_old_new_and_percent_and_keeps_what_the_map_has_lost(prices: Prices) -> None:
    prices.sync("--apply")
    prices.write_map({"gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 2e-06}})
    found = prices.sync("--apply")
    [changed], [removed] = found["changed"], found["removed"]
    assert (changed["old_usd_per_million"], changed["new_usd_per_million"], changed["percent"]) == ("2.5", "2", "-20.0")
    assert (removed["meter"], removed["new_usd_per_million"]) == ("output", None)
    assert prices.listed() == {"gpt-x input": "2", "gpt-x output": "10"}
    assert prices.sync("--apply", "--remove")["removed_applied"]
    assert prices.listed() == {"gpt-x input": "2"}


def test_a_price_set_by_hand_survives_a_sync(prices: Prices) -> None:
    prices.sync("--apply")
    made = prices.json("set", "gpt-x", "--meter", "input", "--usd-per-million", "2.00000000001")
    assert (made["owner"], made["usd_per_million"]) == ("openai", "2.00000000001")
    found = prices.sync("--apply")
    assert [kept["old_usd_per_million"] for kept in found["kept"]] == ["2.00000000001"]
    assert prices.listed()["gpt-x input"] == "2.00000000001"


def test_a_scheduled_price_is_listed_as_of_its_time(prices: Prices) -> None:
    prices.sync("--apply")
    prices.json("set", "gpt-x", "--meter", "output", "--usd-per-million", "8", "--from", f"{NEXT_YEAR}-01-01")
    assert prices.listed("--model", "gpt")["gpt-x output"] == "10"
    assert prices.listed("--as-of", f"{NEXT_YEAR - 1}-12-31T23:59:59")["gpt-x output"] == "10"
    assert prices.listed("--as-of", f"{NEXT_YEAR}-01-01")["gpt-x output"] == "8"
    assert prices.listed("--model", "nothing like it") == {}


def test_a_fixed_price_of_a_tenant_belongs_to_a_model_and_a_tenant_of_the_configuration(prices: Prices) -> None:
    config = ("--config", str(prices.config))
    given = ("--meter", "input", "--usd-per-million", "3", *config)
    made = prices.json("set", "chat", *given, "--tenant", "acme")
    assert (made["book"], made["owner"], made["model"]) == ("tenant", "acme", "chat")
    assert prices.refused("set", "chat", *given, "--tenant", "nobody")[0] == 2
    assert prices.refused("set", "gpt-x", *given, "--tenant", "acme")[0] == 2


def test_check_names_what_a_configuration_lacks_and_is_content_when_it_lacks_nothing(prices: Prices) -> None:
    config = ("--config", str(prices.config))
    [problem] = prices.json("check", *config, code=1)["problems"]
    assert problem["kind"] == "unpriced"
    assert "'chat'" in problem["message"]
    assert "penstock prices sync --apply" in problem["message"]
    prices.sync("--apply")
    assert prices.json("check", *config) == {"ok": True, "problems": []}


BAD: list[tuple[tuple[str, ...], str]] = [
    (("--usd-per-million", "-1"), "must not be negative"),
    (("--usd-per-million", "NaN"), "must be finite"),
    (("--usd-per-million", "Infinity"), "must be finite"),
    (("--usd-per-million", "1e400"), "must be at most"),
    (("--usd-per-million", "2.5 EUR"), "must be a decimal number of USD"),
    (("--usd-per-million", "0.0000000000001"), "more than 12 decimals"),
    (("--usd-per-million", "0.0000025"), "a price per token is a million times smaller"),
    (("--usd-per-million", "25000"), "not plausible"),
    (("--usd-per-million", "2500000"), "not plausible"),
    (("--usd-per-million", "-0.00000000001"), "must not be negative"),
    (("--usd-per-million", "-Infinity"), "must be finite"),
    (("--usd-per-million", "sNaN"), "must be finite"),
    (("--usd-per-million", "2,50"), "must be a decimal number of USD"),
    (("--usd-per-million", ""), "must be a decimal number of USD"),
    (("--usd-per-million", "$2.5"), "must be a decimal number of USD"),
    (("--usd-per-million", "1", "--from", "2020-01-01"), "what has been billed keeps its price"),
    (("--usd-per-million", "1", "--from", "2206-01-01"), "more than ten years from now. Check the year"),
    (("--usd-per-million", "1", "--from", "9999-12-31"), "more than ten years from now. Check the year"),
    (("--usd-per-million", "1", "--book", "tenant"), "give --tenant"),
    (("--usd-per-million", "1", "--book", "provider", "--tenant", "acme"), "leave out --tenant"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_what_cannot_be_a_price_is_refused_and_nothing_is_written(
    empty: Prices, arguments: tuple[str, ...], message: str
) -> None:
    code, said = empty.refused("set", "gpt-x", "--meter", "input", "--provider", "openai", *arguments)
    assert code == 2
    assert message in said
    assert empty.written() == 0


def test_an_unknown_meter_and_an_unknown_owner_are_refused(empty: Prices) -> None:
    arguments = ("prices", "set", "gpt-x", "--usd-per-million", "1", "--meter")
    unknown = penstock(*arguments, "smell", environment=empty.environment)
    assert (unknown.returncode, "'smell' is not one of 'input'" in unknown.stderr) == (2, True)
    code, said = empty.refused(*arguments[1:], "input")
    assert (code, "by nobody yet: say with --provider" in said) == (2, True)
    assert empty.written() == 0


def test_a_file_that_is_no_map_is_refused(empty: Prices, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("not json")
    code, said = empty.refused("sync", "--apply", "--file", str(tmp_path / "map.json"))
    assert (code, "is not JSON" in said) == (2, True)
    assert empty.written() == 0


def test_people_are_told_the_same_in_tables(prices: Prices) -> None:
    done = penstock("prices", "sync", "--file", str(prices.map), environment=prices.environment)
    assert "2 added, 0 changed, 0 removed, 0 kept, 0 unchanged." in done.stdout
    assert "Nothing was written; --apply does it." in done.stdout
    prices.sync("--apply")
    listed = penstock("prices", "list", environment=prices.environment).stdout
    assert "gpt-x" in listed
    assert "2.5" in listed
    checked = penstock("prices", "check", "--config", str(prices.config), environment=prices.environment)
    assert checked.stdout == "The prices are right.\n"


BAD_UPLIFTS = [
    (("--region", "eu", "--factor", "0"), "must be above 0"),
    (("--region", "eu", "--factor", "-1.1"), "must be above 0"),
    (("--region", "eu", "--factor", "10%"), "is not a number: 10 % more is 1.1"),
    (("--region", "eu", "--factor", "110"), "at most 10: 10 % more is 1.1"),
    (("--region", "eu", "--factor", "NaN"), "must be above 0"),
    (("--region", " ", "--factor", "1.1"), "name it as the models' `book: {region: ...}` does"),
    (("--region", "eu", "--factor", "1.1", "--from", "2020-01-01"), "no price for everywhere then"),
    (("--region", "eu", "--factor", "1.1", "--provider", "nobody"), "no price for everywhere then"),
]


def test_a_region_is_a_factor_dearer_until_its_prices_change_and_check_then_says_so(prices: Prices) -> None:
    prices.sync("--apply")
    for arguments, message in BAD_UPLIFTS:
        code, said = prices.refused("uplift", "gpt-x", *arguments)
        assert (code, message in said) == (2, True), said
    made = prices.json("uplift", "gpt-x", "--region", "eu", "--factor", "1.1")["prices"]
    assert {row["meter"]: row["usd_per_million"] for row in made} == {"input": "2.75", "output": "11"}
    assert {(row["region"], row["source"]) for row in made} == {("eu", "penstock prices set x1.1")}
    assert prices.json("check") == {"ok": True, "problems": []}
    assert prices.sync()["removed"] == [], "what a person made is kept"
    prices.json("set", "gpt-x", "--meter", "input", "--usd-per-million", "4")
    [problem] = prices.json("check", code=1)["problems"]
    assert problem["kind"] == "outdated"
    assert "is 2.75 and would be 4.4 by its factor" in problem["message"]
    prices.json("uplift", "gpt-x", "--region", "eu", "--factor", "1.1")
    assert prices.json("check")["ok"]


def test_what_a_tenant_pays_is_shown_before_anybody_pays_it(prices: Prices) -> None:
    shown = prices.json("show", "chat", "--tenant", "acme", "--config", str(prices.config))
    assert shown["deployments"] == [{"provider": "scripted", "upstream_model": "gpt-x", "priced": False, "rates": []}]
    prices.sync("--apply")
    prices.json("set", "gpt-x", "--meter", "input", "--usd-per-million", "5", "--service-tier", "priority")
    example = (
        "--input",
        "1000",
        "--cached",
        "500",
        "--output",
        "10",
        "--reasoning",
        "90",
        "--service-tier",
        "priority",
    )
    [shown] = prices.json("show", "chat", "--tenant", "acme", *example, "--config", str(prices.config))["deployments"]
    rates = {
        (row["service_tier"], row["meter"]): (row["cost_usd_per_million"], row["charge_usd_per_million"])
        for row in shown["rates"]
    }
    assert rates["default", "input"] == rates["default", "cache_read"] == ("2.5", "2.5")
    assert rates["priority", "input"] == ("5", "5")
    assert rates["priority", "reasoning"] == ("10", "10")
    # 1000 x 5, 500 x 5 (cached costs what input does), 100 x 10 per million
    assert (shown["example"]["cost_usd"], shown["example"]["charge_usd"]) == ("0.0085", "0.0085")
    assert [line["meter"] for line in shown["example"]["lines"]] == ["input", "cache_read", "output", "reasoning"]
    code, said = prices.refused("show", "chat", "--tenant", "nobody", "--config", str(prices.config))
    assert (code, "nobody" in said) == (2, True)
    code, said = prices.refused("show", "chat")
    assert (code, "give one with --config or PENSTOCK_CONFIG" in said) == (2, True)


HOOK = {"url": "env:HOOK_URL_NOT_SET_HERE", "secret": "env:HOOK_SECRET_NOT_SET_HERE"}


@pytest.mark.parametrize("command", [("check",), ("show", "chat"), ("rate",)])
def test_webhooks_and_mail_whose_secrets_are_elsewhere_are_in_nobodys_way(
    prices: Prices, command: tuple[str, ...]
) -> None:
    prices.sync("--apply")
    document = yaml.safe_load(prices.config.read_text())
    document |= {"events": {"webhook": HOOK}, "alerts": {"webhook": HOOK, "email": ["a@example.com"]}}
    document["smtp"] = {"host": "mail.example.com", "from": "p@example.com"}
    document["tenants"][0]["alerts"] = {"webhook": HOOK}
    prices.config.write_text(yaml.safe_dump(document))
    prices.json(*command, "--config", str(prices.config))
