"""Which artifact scores a request in a running gateway, and that nothing that is in SQL can stop it."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.artifacts import add
from gateway.db.connect import Database, connect
from gateway.db.router_tables import router_artifacts, router_assignments
from gateway.db.transaction import transaction
from gateway.routing.artifacts.change import Room, assign
from gateway.routing.artifacts.queries import BUNDLED
from gateway.scorers import MOST_LOADED, RETRY_SECONDS, Scorers, bundled_version
from router_models.router import Router
from tests.routed_traffic import variant

NOW = 1_790_000_000.0
POLICIES = ("default", "another", *"uvwxyz")
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def bundled() -> Router:
    return Router.load()


class Clock:
    """A clock that a test sets, and the metrics that were reported."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reported: dict[tuple[str, tuple[str, ...]], float] = {}

    def __call__(self) -> float:
        return self.now

    def report(self, name: str, value: float, labels: tuple[str, ...]) -> None:
        self.reported[name, labels] = value

    @property
    def unusable(self) -> float:
        return self.reported["penstock_router_unusable_artifacts", ()]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scorers(database: Database, bundled: Router, clock: Clock) -> Scorers:
    return Scorers(bundled, database, POLICIES, clock.report, clock)


def given(
    database: Database, champion: str, challenger: str | None = None, share: float = 0.1, policy: str = "default"
) -> None:
    with transaction(database) as connection:
        assign(connection, policy, champion, challenger, share, "tester", NOW, "a test", Room(99, POLICIES))


def added(database: Database, folder: Path, name: str, shift: float = 0.1) -> str:
    version: str = add(database, variant(folder, name, shift), name, "tester", NOW)["version"]
    return version


def used(scorers: Scorers, policy: str = "default", request_id: str = "req_1") -> str:
    return scorers.for_request(policy, request_id).score_messages(QUESTION).artifact


def spoil(database: Database, version: str, content: bytes) -> None:
    with transaction(database) as connection:
        connection.execute(update(router_artifacts).where(router_artifacts.c.version == version).values(bytes=content))


def test_without_assignments_everything_is_scored_by_the_bundled_artifact(scorers: Scorers) -> None:
    scorers.renew()
    assert used(scorers) == used(scorers, "another") == bundled_version()


def test_an_assignment_arrives_with_the_next_look_and_goes_the_same_way(
    scorers: Scorers, database: Database, tmp_path: Path
) -> None:
    mine = added(database, tmp_path, "mine")
    given(database, mine)
    assert used(scorers) == bundled_version()
    scorers.renew()
    assert used(scorers) == mine
    assert used(scorers, "another") == bundled_version()
    assert [router.version for router in scorers.in_use()] == [bundled_version(), mine]
    given(database, BUNDLED)
    scorers.renew()
    assert used(scorers) == bundled_version()
    assert len(scorers.in_use()) == 1, "what nobody uses is not kept in memory"


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_a_challenger_gets_its_share_and_a_request_always_the_same_artifact(
    scorers: Scorers, database: Database, tmp_path: Path, share: float
) -> None:
    one, two = added(database, tmp_path, "one"), added(database, tmp_path, "two")
    given(database, one, two, share)
    scorers.renew()
    drawn, count = random.Random(5), 20_000
    ids = [f"req_{number:012x}{drawn.getrandbits(80):020x}" for number in range(count)]
    first = [scorers.for_request("default", each) for each in ids]
    # Both end at the artifacts' own routers, so comparing identity is enough.
    challenger = scorers.in_use()[2]
    took = sum(each is challenger for each in first)
    deviation = (count * share * (1 - share)) ** 0.5
    assert abs(took - count * share) < 4 * deviation
    assert [scorers.for_request("default", each) for each in ids[:500]] == first[:500]
    # Deployments share the load by the last digits of the id: the two choices have nothing to do with each other.
    odd = [each is challenger for each, name in zip(first, ids, strict=True) if int(name[-8:], 16) % 2]
    assert abs(sum(odd) - len(odd) * share) < 4 * (len(odd) * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 nearly"])
def test_a_corrupt_artifact_in_sql_changes_nothing_but_the_log_and_a_metric(
    scorers: Scorers, database: Database, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    good, bad = added(database, tmp_path, "good"), added(database, tmp_path, "bad")
    given(database, good)
    scorers.renew()
    intact = (tmp_path / "bad.npz").read_bytes()
    spoil(database, bad, content)
    given(database, bad)
    with caplog.at_level(logging.ERROR):
        scorers.renew()
        scorers.renew()
    assert used(scorers) == good, "the one before goes on"
    assert clock.unusable == 1
    assert len(caplog.records) == 1, "it is said once"
    assert f"router artifact '{bad}' cannot be used" in caplog.text
    spoil(database, bad, intact)
    scorers.renew()
    assert used(scorers) == good, "it is not read again at every look"
    clock.now += RETRY_SECONDS + 1
    scorers.renew()
    assert used(scorers) == bad
    assert clock.unusable == 0


def test_an_artifact_with_the_bytes_of_another_one_is_not_used(
    scorers: Scorers, database: Database, tmp_path: Path, clock: Clock
) -> None:
    good, other = added(database, tmp_path, "good"), added(database, tmp_path, "other")
    with transaction(database) as connection:
        good_row = router_artifacts.c.version == good
        values = {"bytes": (tmp_path / "other.npz").read_bytes(), "sha256": "0" * 64}
        connection.execute(update(router_artifacts).where(good_row).values(**values))
    given(database, other, good)
    scorers.renew()
    assert clock.unusable == 1
    assert {used(scorers, request_id=f"req_{number}") for number in range(200)} == {other}


def test_an_assignment_to_what_is_not_there_leaves_the_bundled_artifact(
    scorers: Scorers, database: Database, clock: Clock
) -> None:
    given(database, BUNDLED)
    with transaction(database) as connection:
        connection.execute(update(router_assignments).values(champion="gone", challenger="too", challenger_share=0.5))
    scorers.renew()
    assert used(scorers) == bundled_version()
    assert clock.unusable == 2


def test_no_more_artifacts_are_loaded_than_memory_is_meant_for(
    scorers: Scorers, database: Database, tmp_path: Path, clock: Clock
) -> None:
    versions = [added(database, tmp_path, name) for name in "abcdef"]
    for policy, version in zip("uvwxyz", versions, strict=True):
        given(database, version, policy=policy)
    scorers.renew()
    assert len(scorers.in_use()) == 1 + MOST_LOADED
    assert clock.unusable == 2
    assert used(scorers, "u") == versions[0]
    assert used(scorers, "z") == bundled_version()


def test_a_policy_that_left_the_configuration_has_nothing_loaded(
    scorers: Scorers, database: Database, tmp_path: Path, clock: Clock
) -> None:
    given(database, added(database, tmp_path, "gone"), policy="removed")
    mine = added(database, tmp_path, "mine")
    given(database, mine)
    scorers.renew()
    assert [router.version for router in scorers.in_use()] == [bundled_version(), mine]
    assert clock.unusable == 0


class Watched(Scorers):
    """Notes, at every single step of a change, what would score a request and could not be found by its version."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "_served":
            scoring = {each.champion.score_messages(QUESTION).artifact for each in self._served.values()}
            self.lost = [version for version in scoring if self.router(version) is None]


def test_whoever_is_scored_by_an_artifact_finds_its_router_by_the_version(
    database: Database, tmp_path: Path, bundled: Router, clock: Clock
) -> None:
    """Also in the moment of a change, and where the artifact that was to follow cannot be used: promises are made of it."""
    scorers = Watched(bundled, database, POLICIES, clock.report, clock)
    good, bad = added(database, tmp_path, "good"), added(database, tmp_path, "bad")
    given(database, good)
    scorers.renew()
    assert (used(scorers), scorers.lost) == (good, [])
    spoil(database, bad, b"garbage")
    given(database, bad)
    scorers.renew()
    assert used(scorers) == good
    assert scorers.router(good) is not None


async def test_a_database_that_is_away_stops_nothing(tmp_path: Path, bundled: Router, clock: Clock) -> None:
    unmigrated = connect(f"sqlite:///{tmp_path / 'empty.db'}")
    scorers = Scorers(bundled, unmigrated, POLICIES, clock.report, clock)
    await scorers.open()
    assert used(scorers) == bundled_version()
    await scorers.close()
    unmigrated.close()
