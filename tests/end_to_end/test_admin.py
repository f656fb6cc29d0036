"""The admin API of a running gateway: roles, one tenant's members who see nothing of another, changes that count at once."""

from __future__ import annotations

import json
import time

import httpx

from tests.administering import Member, chat, member, until


def test_only_the_admin_key_and_members_are_let_in(admin: Member) -> None:
    for token in ("x", "sk-acme-0123456789", "sk-penstock-member-guess", "\u00fc"):
        headers = {"authorization": f"Bearer {token}".encode()}
        reply = httpx.get(f"{admin.running.url}/admin/api/tenants", headers=headers, timeout=30)
        assert reply.status_code == 401
        assert f"'{token}'" not in reply.text
    viewer = member(admin, "viewer")
    [found] = [each for each in admin.get("members") if each["last_used_at"] is None and each["role"] == "viewer"]
    assert len(viewer.get("tenants")) == 3
    until(lambda: next(each for each in admin.get("members") if each["id"] == found["id"])["last_used_at"])
    assert admin.ask("DELETE", f"members/{found['id']}").json() == {"removed": found["id"]}
    assert viewer.ask("GET", "tenants").status_code == 401


def test_a_role_decides_and_the_refusal_says_which_roles_may(admin: Member) -> None:
    viewer, finance, developer = (member(admin, role) for role in ("viewer", "finance", "developer"))
    budget = {"scope": "tenant:acme", "period": "day", "limit_usd": "50"}
    assert "These roles may: owner, admin, finance." in viewer.refused(403, "PUT", "budgets", budget)
    assert "These roles may: owner, admin, finance." in developer.refused(403, "PUT", "budgets", budget)
    assert "These roles may: owner, admin, developer." in finance.refused(403, "POST", "keys", {"name": "x"})
    assert "These roles may: owner, admin." in finance.refused(403, "GET", "members")
    assert finance.ask("PUT", "budgets", budget).status_code == 200
    assert finance.ask("DELETE", "budgets", scope="tenant:acme", period="day").status_code == 200
    made = developer.ask("POST", "keys", {"name": "dev", "tenant": "rival"}).json()
    assert developer.ask("POST", f"keys/{made['id']}/revoke").json() == {"revoked": made["id"]}
    admin_member = member(admin, "admin")
    assert "only an owner" in admin_member.refused(403, "POST", "members", {"name": "x", "role": "owner"})


def test_a_key_is_made_rotated_and_revoked_and_its_budget_and_usage_follow(admin: Member) -> None:
    order = {
        "name": "日本/app:1", "tenant": "acme", "project": "web", "models": ["m"], "tiers": ["economy"],
        "budgets": [{"limit_usd": "5", "period": "day"}, {"limit_usd": 12.5}],
        "limits": {"requests_per_day": 100, "parallel": 3},
    }  # fmt: skip
    made = admin.ask("POST", "keys", order).json()
    answered = chat(admin.running, made["key"])
    assert answered.status_code == 200, answered.text
    event = admin.running.event(answered.headers["x-penstock-request-id"])
    assert (event["key_id"], event["tenant"]) == (made["id"], "acme")
    rotated = admin.ask("POST", f"keys/{made['id']}/rotate", {"overlap_seconds": 3600}).json()
    assert (rotated["id"], rotated["key"] == made["key"]) == (made["id"], False)
    assert chat(admin.running, rotated["key"]).status_code == chat(admin.running, made["key"]).status_code == 200
    [listed] = [key for key in admin.get("keys", tenant="acme") if key["id"] == made["id"]]
    assert [(each["limit_usd"], each["period"]) for each in listed["budgets"]] == [("5", "day"), ("12.5", "month")]
    assert (listed["limits"], listed["project"]) == ({"requests_per_day": 100, "parallel": 3}, "web")
    budgets = {(each["scope"], each["period"]): each for each in admin.get("budgets", tenant="acme")["budgets"]}
    assert float(budgets["key:acme/日本/app:1", "day"]["used_usd"]) > 0
    assert budgets["key:acme/日本/app:1", "day"]["resets_at"].endswith("00:00:00+00:00")
    assert admin.ask("POST", f"keys/{made['id']}/revoke").status_code == 200
    until(lambda: chat(admin.running, rotated["key"]).status_code == 401)
    assert chat(admin.running, made["key"]).json()["error"]["code"] == "revoked_api_key"
    everything = json.dumps([admin.get("keys"), admin.get("audit"), admin.get("members"), admin.get("tenants")])
    assert made["key"] not in everything
    assert rotated["key"] not in everything


def test_a_budget_set_over_http_counts_within_seconds_and_a_raise_opens_it_again(admin: Member) -> None:
    assert chat(admin.running, "sk-rival-0123456789").status_code == 200
    admin.ask("PUT", "budgets", {"scope": "tenant:rival", "limit_usd": "0.000000000001"})
    until(lambda: chat(admin.running, "sk-rival-0123456789").status_code == 429)
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    more = {"scope": "tenant:rival", "usd": "5", "until": later, "reason": "end of the quarter"}
    made = admin.ask("POST", "budgets/raises", more).json()
    until(lambda: chat(admin.running, "sk-rival-0123456789").status_code == 200)
    state = admin.get("budgets", tenant="rival")
    [budget] = state["budgets"]
    assert (budget["limit_usd"], budget["raised_usd"]) == ("5.000000000001", "5")
    assert state["raises"] == [made]
    assert made["reason"] == "end of the quarter"
    assert admin.ask("DELETE", f"budgets/raises/{made['id']}").status_code == 200
    until(lambda: chat(admin.running, "sk-rival-0123456789").status_code == 429)
    assert admin.ask("DELETE", "budgets", scope="tenant:rival").status_code == 200
    until(lambda: chat(admin.running, "sk-rival-0123456789").status_code == 200)
    assert admin.get("budgets", tenant="rival")["budgets"][0]["limit_usd"] == "77"


def test_a_user_gets_a_budget_of_its_own_and_a_new_secret_gives_no_new_money(admin: Member) -> None:
    made = admin.ask("POST", "keys", {"name": "spender", "tenant": "acme"}).json()
    admin.ask("PUT", "budgets", {"scope": "user:acme/bob/ü:1", "limit_usd": "0.000000000001", "period": "day"})
    until(lambda: chat(admin.running, made["key"], user="bob/ü:1").status_code == 429)
    refused = chat(admin.running, made["key"], user="bob/ü:1").json()["error"]
    assert (refused["code"], "bob/ü:1" in refused["message"]) == ("budget_exceeded", True)
    assert chat(admin.running, made["key"], user="ann").status_code == 200
    admin.ask("PUT", "budgets", {"scope": f"key:{made['id']}", "limit_usd": "0.0000001", "period": "lifetime"})
    until(lambda: chat(admin.running, made["key"]).status_code == 429)
    rotated = admin.ask("POST", f"keys/{made['id']}/rotate").json()["key"]
    assert chat(admin.running, rotated).json()["error"]["code"] == "budget_exceeded"


def test_limits_are_set_listed_and_removed(admin: Member) -> None:
    assert (
        admin.ask("PUT", "limits", {"scope": "tag:acme/x/y", "limit": "tokens_per_day", "value": 9}).status_code == 200
    )
    rows = admin.get("limits", tenant="acme")["limits"]
    assert {"scope": "tag:acme/x/y", "tenant": "acme", "limit": "tokens_per_day", "value": 9} in rows
    [acme] = [each for each in admin.get("tenants") if each["name"] == "acme"]
    assert acme["tags"][0]["limits"] == {"tokens_per_day": 9}
    assert acme["each_user"]["limits"] == {"requests_per_minute": 50}
    assert acme["projects"][0]["budgets"][0]["limit_usd"] == "10"
    gone = admin.ask("DELETE", "limits", scope="tag:acme/x/y", limit="tokens_per_day")
    assert gone.json() == {"removed": {"scope": "tag:acme/x/y", "limit": "tokens_per_day"}}
    assert "no limit tokens_per_day" in admin.refused(
        404, "DELETE", "limits", scope="tag:acme/x/y", limit="tokens_per_day"
    )


def test_a_member_of_one_tenant_sees_and_changes_nothing_of_another(admin: Member) -> None:
    theirs = chat(admin.running, "sk-rival-0123456789").headers["x-penstock-request-id"]
    ours = chat(admin.running, "sk-acme-0123456789").headers["x-penstock-request-id"]
    for request_id in (theirs, ours):
        admin.running.event(request_id)
    made = admin.ask("POST", "keys", {"name": "rivals-key", "tenant": "rival"}).json()
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    raised = admin.ask(
        "POST", "budgets/raises", {"scope": "tenant:rival", "usd": 1, "until": later, "reason": "rival reason"}
    ).json()
    member(admin, "viewer", "rival")
    mine = member(admin, "owner", "acme")
    listings = ("tenants", "keys", "budgets", "limits", "usage", "usage?group_by=tenant,key_name,day", "requests?limit=500",
                "members", "audit?limit=500")  # fmt: skip
    for path in listings:
        shown = json.dumps(mine.get(path))
        assert not [word for word in ("rival", theirs, made["id"]) if word in shown], (
            f"{path} shows another tenant: {shown}"
        )
    assert ours in json.dumps(mine.get("requests?limit=500"))
    assert [row["tenant"] for row in mine.get("usage", group_by="tenant")["rows"]] == ["acme"]
    for path in ("usage", "requests", "keys", "budgets", "limits", "members", "audit"):
        assert "belongs to the tenant 'acme'" in mine.refused(403, "GET", path, tenant="rival")
        assert "belongs to the tenant 'acme'" in mine.refused(403, "GET", path, tenant="nobody")
    assert mine.refused(404, "GET", f"requests/{theirs}").replace(theirs, "X") == mine.refused(
        404, "GET", "requests/req_0"
    ).replace("req_0", "X")
    for path in ("models", "ledger/verify"):
        assert "shows the whole installation" in mine.refused(403, "GET", path)
    mine.refused(403, "POST", "keys", {"name": "x", "tenant": "rival"})
    mine.refused(404, "POST", f"keys/{made['id']}/rotate")
    mine.refused(404, "POST", f"keys/{made['id']}/revoke")
    mine.refused(404, "DELETE", f"budgets/raises/{raised['id']}")
    mine.refused(403, "PUT", "budgets", {"scope": "tenant:rival", "limit_usd": 1})
    mine.refused(403, "DELETE", "budgets", scope="tenant:rival")
    mine.refused(400, "PUT", "budgets", {"scope": f"key:{made['id']}", "limit_usd": 1})
    mine.refused(403, "PUT", "limits", {"scope": "user:rival/bob", "limit": "parallel", "value": 1})
    mine.refused(403, "POST", "members", {"name": "x", "role": "viewer", "tenant": "rival"})
    mine.refused(403, "POST", "members", {"name": "x", "role": "viewer"})
    assert mine.ask("PUT", "budgets", {"scope": "user:acme/bob", "limit_usd": "3"}).status_code == 200
    assert mine.ask("POST", "keys", {"name": "mine", "tenant": "acme"}).status_code == 201


def test_a_member_of_one_tenant_sees_what_it_pays_and_not_what_the_provider_asks(admin: Member) -> None:
    answered = chat(admin.running, "sk-acme-0123456789").headers["x-penstock-request-id"]
    whole = admin.running.event(answered)
    assert whole["cost_usd"] != whole["charge_usd"]
    assert admin.get(f"requests/{answered}")["attempts"][0]["charge_source"].endswith(" +25%")
    mine = member(admin, "developer", "acme")
    detail = mine.get(f"requests/{answered}")
    assert detail["charge_usd"] == whole["charge_usd"]
    assert detail["ledger"]
    assert {entry["account"].split(":")[1] for entry in detail["ledger"]} == {"acme"}
    for document in (detail, mine.get("requests"), mine.get("usage")):
        assert "cost" not in json.dumps(document).replace("explanation", "")
        assert "charge_source" not in json.dumps(document)
        assert "+25%" not in json.dumps(document)


def test_every_change_is_in_the_audit_log_with_who_did_it(admin: Member) -> None:
    finance = member(admin, "finance")
    finance.ask("PUT", "budgets", {"scope": "user:acme/zoe", "limit_usd": "3", "hard": False})
    admin.running.json("budgets", "set", "user:acme/zoe", "--limit-usd", "4")
    newest = [entry for entry in admin.get("audit")["entries"] if entry["object"] == "user:acme/zoe"]
    assert [entry["actor"].split()[0] for entry in newest] == ["command", "member"]
    assert newest[0]["before"] == newest[1]["after"] == {"limit_usd": "3", "period": "month", "hard": False}
    assert newest[0]["after"] == {"limit_usd": "4", "period": "month", "hard": True}
    first = admin.get("audit", limit=1)
    second = admin.get("audit", limit=1, before=first["next"])
    assert second["entries"][0]["id"] < first["entries"][0]["id"]
