"""Artifacts of a running gateway: assigned live, seen in the header, shared with a challenger, taken back, never its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.db.router_tables import router_artifacts
from gateway.db.transaction import transaction
from gateway.scorers import bundled_version
from tests.administering import Member, member, until
from tests.backends import PostgresServer
from tests.routed_traffic import variant
from tests.running import ADMIN_KEY, KEY, Gateway, Upstream, gateway, model

SHARE = 0.5


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(
    admin_upstream: Upstream, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("router")
    environment = {"DATABASE_URL": f"sqlite:///{folder / 'router.db'}"}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.execute("CREATE DATABASE router")
        environment = {"DATABASE_URL": server.url("router")}
        database = connect(environment["DATABASE_URL"])
        migrate(database)
        database.close()
    models = [model("m", "economy", admin_upstream.url), model("m2", "premium", admin_upstream.url, model="m")]
    keys = [{"key": KEY, "name": "test"}]
    policies = {"default": {"min_quality": 0.9}, "other": {}}
    with gateway(folder, {"models": models, "keys": keys, "policies": policies}, **environment) as started:
        yield started


@pytest.fixture
def admin(running: Gateway) -> Member:
    return Member(running, ADMIN_KEY)


def ask(running: Gateway) -> httpx.Headers:
    """The headers of one answer."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "What is the capital of Peru?"}], "max_tokens": 5}
    headers = {"authorization": f"Bearer {KEY}"}
    reply = httpx.post(f"{running.base_url}/chat/completions", headers=headers, json=body, timeout=30)
    assert reply.status_code == 200, reply.text
    return reply.headers


def used(running: Gateway) -> str:
    return ask(running)["x-penstock-artifact"]


def add(admin: Member, content: bytes) -> httpx.Response:
    return httpx.post(
        f"{admin.running.url}/admin/api/router/artifacts",
        headers={"authorization": f"Bearer {admin.token}"},
        content=content,
        timeout=60,
    )


def added(admin: Member, folder: Path, name: str, shift: float) -> str:
    reply = add(admin, variant(folder, name, shift))
    assert reply.status_code == 201, reply.text
    return str(reply.json()["version"])


def assign(admin: Member, champion: str, **more: Any) -> dict[str, Any]:
    reply = admin.ask("PUT", "router/assignments/default", {"champion": champion, **more})
    assert reply.status_code == 200, reply.text
    made: dict[str, Any] = reply.json()
    return made


def metric(running: Gateway, name: str) -> float:
    lines = httpx.get(f"{running.url}/metrics", timeout=60).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


def test_an_assigned_artifact_scores_within_seconds_and_is_named_in_header_and_log(
    running: Gateway, admin: Member, tmp_path: Path
) -> None:
    assert used(running) == bundled_version()
    version = added(admin, tmp_path, "first", 0.2)
    made = assign(admin, version, reason="trained on more")
    assert (made["champion"], made["predecessor"]) == (version, "bundled")
    until(lambda: used(running) == version)
    event = running.event(ask(running)["x-penstock-request-id"])
    assert event["artifact"] == version
    (change,) = admin.get("router/changes", policy="default", limit=1)["changes"]
    assert (change["reason"], change["actor"]) == ("trained on more", "admin key")
    rolled = admin.ask("POST", "router/assignments/default/rollback", {"reason": "it was a test"})
    assert rolled.json()["champion"] == "bundled"
    until(lambda: used(running) == bundled_version())
    actions = [entry["action"] for entry in admin.get("audit", limit=3)["entries"]]
    assert actions == ["router.rollback", "router.assign", "router.artifact.add"]


def test_a_challenger_scores_its_share_of_live_requests(running: Gateway, admin: Member, tmp_path: Path) -> None:
    one, two = added(admin, tmp_path, "one", 0.1), added(admin, tmp_path, "two", -0.1)
    assign(admin, one, challenger=two, share=SHARE)
    until(lambda: used(running) == two)
    seen = [used(running) for _ in range(100)]
    assert set(seen) == {one, two}
    assert abs(seen.count(two) - 100 * SHARE) < 5 * (100 * SHARE * (1 - SHARE)) ** 0.5
    assert admin.ask("POST", "router/assignments/default/rollback", {"reason": "enough"}).json()["challenger"] is None
    assign(admin, "bundled")
    until(lambda: used(running) == bundled_version())


def test_an_artifact_that_is_spoilt_in_sql_stops_nothing(running: Gateway, admin: Member, tmp_path: Path) -> None:
    good, bad = added(admin, tmp_path, "good", 0.3), added(admin, tmp_path, "bad", 0.4)
    assign(admin, good)
    until(lambda: used(running) == good)
    database = connect(running.extra_environment["DATABASE_URL"])
    with transaction(database) as connection:
        spoilt = update(router_artifacts).where(router_artifacts.c.version == bad)
        connection.execute(spoilt.values(bytes=b"\0" * 1000))
    database.close()
    assign(admin, bad)
    until(lambda: metric(running, "penstock_router_unusable_artifacts") == 1)
    assert used(running) == good
    assert f"router artifact {bad!r} cannot be used" in running.log
    # Not even a start with nothing else in memory.
    running.stop()
    running.start()
    until(lambda: metric(running, "penstock_router_unusable_artifacts") == 1)
    assert used(running) == bundled_version()
    assign(admin, good)
    until(lambda: used(running) == good)
    assign(admin, "bundled")


def test_what_is_no_artifact_is_refused_with_a_reason(running: Gateway, admin: Member) -> None:
    for content in (b"", b"nonsense", b"PK\x03\x04"):
        reply = add(admin, content)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")
        assert "is damaged" in reply.json()["error"]["message"]
    assert add(admin, b"\0" * (33 * 2**20)).status_code == 413
    assert "Known: default, other" in admin.refused(400, "PUT", "router/assignments/unknown", {"champion": "bundled"})
    admin.refused(404, "PUT", "router/assignments/default", {"champion": "nothing"})
    admin.refused(404, "GET", "router/artifacts/nothing")
    admin.refused(404, "GET", "router/artifacts/bundled/file")
    admin.refused(409, "DELETE", "router/artifacts/bundled")
    admin.refused(400, "PUT", "router/assignments/default", {"champion": "bundled", "challenger": "x", "share": 0.9})
    alone = admin.refused(400, "PUT", "router/assignments/default", {"champion": "bundled", "share": 0.2})
    assert "challenger" in alone
    admin.refused(400, "POST", "router/assignments/default/rollback", {"reason": ""})


def test_who_may_see_artifacts_and_who_may_change_them(running: Gateway, admin: Member) -> None:
    developer, viewer, tenants = member(admin, "developer"), member(admin, "viewer"), member(admin, "admin", "default")
    assert developer.get("router/artifacts")[0]["called"] == bundled_version()
    assert developer.get("router/assignments")[0]["policy"] == "default"
    assert "card" in developer.get("router/artifacts/bundled")
    assert developer.get("router/drift") == {"drift": [], "next": None}
    developer.refused(403, "PUT", "router/assignments/default", {"champion": "bundled"})
    viewer.refused(403, "GET", "router/artifacts")
    tenants.refused(403, "GET", "router/artifacts")


def test_the_commands_do_the_same(running: Gateway, admin: Member, tmp_path: Path) -> None:
    content = variant(tmp_path, "typed", 0.25)
    version = running.json("router", "artifacts", "add", str(tmp_path / "typed.npz"))["version"]
    listed = {each["version"]: each for each in running.json("router", "artifacts", "list")["artifacts"]}
    assert version in listed
    running.command("router", "artifacts", "show", version, "--out", str(tmp_path / "copy.npz"))
    assert (tmp_path / "copy.npz").read_bytes() == content
    reply = httpx.get(
        f"{running.url}/admin/api/router/artifacts/{version}/file", headers={"authorization": f"Bearer {ADMIN_KEY}"}
    )
    assert reply.content == content
    made = running.json("router", "assign", "default", "--champion", version, "--reason", "typed")
    assert made["champion"] == version
    until(lambda: used(running) == version)
    refused = running.command("router", "artifacts", "remove", version, check=False)
    assert refused.returncode == 1
    assert "is in use" in refused.stderr
    said = running.command("router", "rollback", "default", "--reason", "typed too").stdout
    assert said == "default: champion bundled\n"
    running.command("router", "artifacts", "remove", version)
    assert version not in running.command("router", "artifacts", "list").stdout
    bad = tmp_path / "bad.npz"
    bad.write_bytes(content[:-100])
    refused = running.command("router", "artifacts", "add", str(bad), check=False)
    assert (refused.returncode, "is damaged" in refused.stderr) == (2, True)
    assert json.loads(running.command("jobs", "run", "challengers", "--json").stdout)["error"] is None
    assert json.loads(running.command("jobs", "run", "router-drift", "--json").stdout)["error"] is None
    assert json.loads(running.command("jobs", "run", "recalibrate", "--json").stdout)["error"] is None
