"""Artifacts in SQL: kept once, refused when they are no good, assigned and rolled back with a reason and an audit row."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, update

from gateway.artifacts import add, bundled, known_policy
from gateway.db.audit import audit_page
from gateway.db.connect import Database
from gateway.db.router_tables import router_assignments
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict, InvalidValue, NotFound
from gateway.routing.artifacts.change import Room, assign, promote, propose, remove_artifact, roll_back
from gateway.routing.artifacts.queries import BUNDLED, Assignment, artifact_bytes, assignment_rows
from gateway.routing.artifacts.show import change_page, list_artifacts, list_assignments
from gateway.scorers import LARGEST_BYTES, MOST_LOADED, bundled_version
from router_models.artifact import BUNDLED as FILE
from router_models.artifact import load
from tests.builders import catalog, model
from tests.routed_traffic import variant

NOW = 1_790_000_000.0
POLICIES = ("default", *"pqrs")
ROOM = Room(MOST_LOADED, POLICIES)


def added(database: Database, folder: Path, *names: str) -> list[str]:
    """Versions of artifacts that differ in their name and a little in their probabilities."""
    shifts = [0.01 * number for number in range(1, len(names) + 1)]
    contents = [variant(folder, name, shift) for name, shift in zip(names, shifts, strict=True)]
    return [add(database, content, "test", "tester", NOW)["version"] for content in contents]


def given(
    database: Database,
    champion: str,
    challenger: str | None = None,
    share: float = 0.1,
    policy: str = "default",
    at: float = NOW,
) -> Assignment:
    with transaction(database) as connection:
        return assign(connection, policy, champion, challenger, share, "tester", at, "a test", ROOM)


def back(database: Database, at: float = NOW + 1) -> Assignment:
    with transaction(database) as connection:
        found = roll_back(connection, "default", "tester", at, "it was bad")
    assert found is not None
    return found


def test_an_artifact_is_kept_with_its_bytes_and_card_and_adding_it_again_changes_nothing(
    database: Database, tmp_path: Path
) -> None:
    content = variant(tmp_path, "mine", 0.5)
    first = add(database, content, "mine.npz", "tester", NOW)
    assert first["version"].startswith("mine-")
    assert (first["source"], first["made_by"], first["card"]) == ("file", "tester", {"name": "mine"})
    assert add(database, content, "again.npz", "somebody", NOW + 9) == first
    with snapshot(database) as connection:
        kept = artifact_bytes(connection, first["version"])
        listed = list_artifacts(connection, bundled())
    assert kept == (content, first["sha256"])
    assert [each["version"] for each in listed] == [BUNDLED, first["version"]]
    assert listed[0]["called"] == bundled_version()
    assert [entry["action"] for entry in audit_page(database).entries] == ["router.artifact.add"]


def test_another_file_of_the_same_version_is_refused(database: Database, tmp_path: Path) -> None:
    (version,) = added(database, tmp_path, "mine")
    content = (tmp_path / "mine.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as packed, zipfile.ZipFile(tmp_path / "other.npz", "w") as other:
        for name in packed.namelist():
            other.writestr(name, packed.read(name))  # not compressed: other bytes, the same arrays
    with pytest.raises(Conflict, match=f"another artifact of version '{version}'"):
        add(database, (tmp_path / "other.npz").read_bytes(), "other", "tester", NOW)


def _changed(content: bytes, **arrays: np.ndarray) -> bytes:
    with np.load(io.BytesIO(content)) as stored:
        parts = {name: stored[name] for name in stored.files} | arrays
    made = io.BytesIO()
    np.savez_compressed(made, **parts)  # type: ignore[arg-type]
    return made.getvalue()


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda content: b"", "is damaged"),
        (lambda content: b"not an artifact at all", "is damaged"),
        (lambda content: content[: len(content) // 2], "is damaged"),
        (lambda content: content[:5000] + bytes([content[5000] ^ 255]) + content[5001:], "is damaged"),
        (lambda content: _changed(content, offset=np.zeros((2, 3))), "checksum does not match"),
        (lambda content: content.ljust(LARGEST_BYTES + 1, b"\0"), "is larger than 32 MiB"),
    ],
)
def test_a_file_that_is_damaged_is_refused(database: Database, tmp_path: Path, break_it, why: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidValue, match=why):
        add(database, break_it(FILE.read_bytes()), "bad.npz", "tester", NOW)
    with snapshot(database) as connection:
        assert len(list_artifacts(connection, bundled())) == 1


def _with_header(content: bytes, old: bytes, new: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as stored:
        header = stored["header"].tobytes()
    assert old in header
    return _changed(content, header=np.frombuffer(header.replace(old, new), dtype=np.uint8))


def test_a_file_of_another_format_or_other_features_is_refused_and_says_so(database: Database) -> None:
    content = FILE.read_bytes()
    with np.load(io.BytesIO(content)) as stored:
        header = stored["header"].tobytes()
    number = header.split(b'"format": ')[1].split(b",")[0]
    features = header.split(b'"features": "')[1].split(b'"')[0]
    with pytest.raises(InvalidValue, match="has format 99, this release reads"):
        add(database, _with_header(content, b'"format": ' + number, b'"format": 99'), "old.npz", "tester", NOW)
    with pytest.raises(InvalidValue, match="was trained with features 'others'"):
        add(database, _with_header(content, features, b"others"), "other.npz", "tester", NOW)


def test_an_artifact_with_numbers_that_no_training_gives_is_refused(database: Database, tmp_path: Path) -> None:
    content = variant(tmp_path, "broken", kernel=np.full_like(load().weights.kernel, 3e38))
    with pytest.raises(InvalidValue, match=r"'kernel' has numbers beyond 1e\+06"):
        add(database, content, "broken", "tester", NOW)


def test_an_artifact_that_no_address_can_name_or_whose_card_is_no_json_is_refused(database: Database) -> None:
    content = FILE.read_bytes()
    version = b'"version": "' + bundled_version().encode() + b'"'
    for old, new, why in (
        (version, b'"version": "../../x"', "its version '../../x' is not letters"),
        (b'"card": {', b'"card": {"odd": NaN, ', "its card is not an object of texts, finite numbers"),
        (b'"card": {', b'"card": [1], "unread": {', "its card is not an object"),
    ):
        with pytest.raises(InvalidValue, match=why):
            add(database, _with_header(content, old, new), "odd.npz", "tester", NOW)


def test_the_bundled_artifact_need_not_be_added_and_cannot_be_removed(database: Database) -> None:
    with pytest.raises(InvalidValue, match="is the bundled one"):
        add(database, FILE.read_bytes(), "router.npz", "tester", NOW)
    with pytest.raises(Conflict, match="belongs to the package"), transaction(database) as connection:
        remove_artifact(connection, BUNDLED, "tester", NOW, POLICIES)


def test_a_policy_goes_from_champion_to_champion_and_back_again(database: Database, tmp_path: Path) -> None:
    one, two = added(database, tmp_path, "one", "two")
    assert given(database, one).predecessor == BUNDLED
    now = given(database, two, at=NOW + 1)
    assert (now.champion, now.predecessor, now.champion_since) == (two, one, now.since)
    assert back(database, NOW + 2).champion == one
    with pytest.raises(Conflict, match="no champion before"):
        back(database)
    with snapshot(database) as connection:
        page = change_page(connection, 2)
        rest = change_page(connection, 2, page.next, "default")
        assert list_assignments(connection, ["default", "other"])[1]["champion"] == BUNDLED
    assert [row["action"] for row in page.rows + rest.rows] == ["rollback", "assign", "assign"]
    assert page.rows[0]["reason"] == "it was bad"
    assert page.rows[0]["before"]["champion"], page.rows[0]["after"]["champion"] == (two, one)
    assert [entry["action"] for entry in audit_page(database).entries][:3] == [
        "router.rollback",
        *["router.assign"] * 2,
    ]


def test_a_rollback_ends_the_challenger_first(database: Database, tmp_path: Path) -> None:
    one, two = added(database, tmp_path, "one", "two")
    given(database, one)
    both = given(database, one, two, 0.2, at=NOW + 5)
    assert (both.challenger, both.share, both.predecessor) == (two, 0.2, BUNDLED)
    assert both.champion_since < both.since, "the champion is the same as before"
    after = back(database)
    assert (after.champion, after.challenger, after.share) == (one, None, 0.0)


def test_what_was_changed_meanwhile_is_left_alone(database: Database, tmp_path: Path) -> None:
    one, two = added(database, tmp_path, "one", "two")
    seen = given(database, one, two)
    given(database, one, two, 0.3, at=NOW + 1)
    with transaction(database) as connection:
        assert roll_back(connection, "default", "job", NOW + 2, "bad", expected=seen) is None
        assert promote(connection, "default", "job", NOW + 2, "good", {}, seen) is None
        assert propose(connection, "default", one, 0.1, "job", NOW + 2, "new", ROOM) is None
        assert assignment_rows(connection)["default"].share == 0.3


def test_a_promoted_challenger_can_be_taken_back(database: Database, tmp_path: Path) -> None:
    one, two = added(database, tmp_path, "one", "two")
    seen = given(database, one, two)
    with transaction(database) as connection:
        made = promote(connection, "default", "job", NOW + 2, "good", {"quality": 1}, seen)
    assert made is not None
    assert (made.champion, made.challenger, made.predecessor) == (two, None, one)
    assert back(database).champion == one


def test_assignments_that_make_no_sense_are_refused(database: Database, tmp_path: Path) -> None:
    (one,) = added(database, tmp_path, "one")
    with pytest.raises(NotFound, match="There is no artifact 'nothing'"):
        given(database, "nothing")
    with pytest.raises(InvalidValue, match="champion and challenger at once"):
        given(database, one, one)
    for share in (0.0, 0.51, float("nan")):
        with pytest.raises(InvalidValue, match="is not possible"):
            given(database, BUNDLED, one, share)
    with pytest.raises(InvalidValue, match="Give a reason"), transaction(database) as connection:
        assign(connection, "default", one, None, 0.1, "tester", NOW, "  ", ROOM)
    with pytest.raises(InvalidValue, match="Known: default"):
        known_policy(catalog(model("m")), "defualt")
    with snapshot(database) as connection:
        assert assignment_rows(connection) == {}, "what was refused left nothing"


def test_more_artifacts_than_gateways_hold_are_not_assigned(database: Database, tmp_path: Path) -> None:
    versions = added(database, tmp_path, *"abcde")
    for policy, version in zip("pqrs", versions, strict=False):
        given(database, version, policy=policy)
    with pytest.raises(Conflict, match="Gateways hold 4 artifacts beside the bundled one, and this would be 5"):
        given(database, versions[4])
    given(database, versions[0])


def test_policies_that_left_the_configuration_take_no_room_and_hold_no_artifact(
    database: Database, tmp_path: Path
) -> None:
    versions = added(database, tmp_path, *"abcde")
    for policy, version in zip("pqrs", versions, strict=False):
        given(database, version, policy=policy)
    with transaction(database) as connection:
        room = Room(MOST_LOADED, ["default", "q"])
        assign(connection, "default", versions[4], None, 0.1, "tester", NOW, "a test", room)
        remove_artifact(connection, versions[0], "tester", NOW, room.policies)
        with pytest.raises(Conflict, match="for: q"):
            remove_artifact(connection, versions[1], "tester", NOW, room.policies)
        assert set(assignment_rows(connection)) == {"default", "q", "r", "s"}, "what is gone is assigned to nobody"


def test_an_artifact_in_use_cannot_be_removed(database: Database, tmp_path: Path) -> None:
    one, two, three = added(database, tmp_path, "one", "two", "three")
    given(database, one)
    given(database, two, three, at=NOW + 1)

    def remove(version: str) -> None:
        with transaction(database) as connection:
            remove_artifact(connection, version, "tester", NOW, POLICIES)

    for version in (one, two, three):
        with pytest.raises(Conflict, match="is in use, or what a rollback would return to, for: default"):
            remove(version)
    given(database, BUNDLED, at=NOW + 2)
    remove(one)
    remove(three)
    with pytest.raises(NotFound):
        remove(one)


def test_the_database_itself_refuses_a_share_that_is_too_large(database: Database) -> None:
    given(database, BUNDLED)

    def spoil(connection: Connection) -> None:
        connection.execute(update(router_assignments).values(challenger_share=0.9))

    with pytest.raises(Exception, match="router_assignments_share"), transaction(database) as connection:
        spoil(connection)


def test_what_is_probed_is_what_the_router_says(tmp_path: Path) -> None:
    content = variant(tmp_path, "mine", 0.5)
    assert load(Path("a name"), content=content).card == {"name": "mine"}
