"""A gateway with known secrets answers, refuses and fails; then everything it wrote is searched for them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.running import ADMIN_KEY, Gateway, gateway, model, upstream

CLIENT_SECRET = "sk-house-client-5c1f0e8d7a6b4932"
PROVIDER_SECRET = "sk-house-provider-90ab12cd34ef5678"
STRANGER_SECRET = "sk-house-stranger-aa55aa55aa55aa55"
PROMPT = "the-words-of-a-question-71f3"
ANSWER = "the-words-of-an-answer-38c9"

SCRIPTS = {
    "good": {"reply": ANSWER},
    "unauthorized": {"behaviour": "unauthorized"},
    "cut": {"behaviour": "cut", "reply": f"{ANSWER} and more words"},
    "wrong": {"behaviour": "wrong_json", "reply": ANSWER},
    "failing": {"behaviour": "flaky", "fail_every": 1},
}


class Seen:
    """Everything that a gateway sent out or wrote down."""

    def __init__(self) -> None:
        self.replies: dict[str, str] = {}
        self.log = ""
        self.files: dict[str, bytes] = {}
        self.made_secret = ""
        self.token = ""

    def collect(self, running: Gateway) -> None:
        """Read the log and every file of the data folder, as they are now."""
        self.log = running.log
        for path in running.data_dir.rglob("*"):
            if path.is_file():
                name = str(path.relative_to(running.data_dir))
                self.files[name] = self.files.get(name, b"") + path.read_bytes()

    def places_with(self, secret: str) -> list[str]:
        """Where a secret stands."""
        places = [name for name, text in self.replies.items() if secret in text]
        places += ["log"] if secret in self.log else []
        return places + [name for name, content in self.files.items() if secret.encode() in content]


def ask(running: Gateway, seen: Seen, name: str, secret: str, **changes: object) -> None:
    """One request, its reply kept whole: headers and body."""
    body = {"model": name, "messages": [{"role": "user", "content": PROMPT}], **changes}
    url = f"{running.base_url}/chat/completions?key={secret}"
    reply = httpx.post(url, json=body, headers={"authorization": f"Bearer {secret}"}, timeout=30)
    seen.replies[f"{name} {changes} {reply.status_code}"] = f"{reply.headers}\n{reply.text}"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder: Path = tmp_path_factory.mktemp("secrets")
    found = Seen()
    with upstream(SCRIPTS) as scripted:
        models = [model(name, "economy", scripted.url, api_key="env:HOUSE_PROVIDER_KEY") for name in SCRIPTS]
        models.append(model("gone", "economy", "http://127.0.0.1:9/v1", api_key="env:HOUSE_PROVIDER_KEY"))
        config = {"keys": [{"key": "env:HOUSE_CLIENT_KEY", "name": "declared"}], "models": models}
        environment = {
            "HOUSE_CLIENT_KEY": CLIENT_SECRET,
            "HOUSE_PROVIDER_KEY": PROVIDER_SECRET,
            "PENSTOCK_LOG_LEVEL": "debug",
        }
        with gateway(folder, config, **environment) as running:
            found.made_secret = running.json("keys", "create", "--name", "made")["key"]
            found.token = running.json("members", "add", "--name", "Ann", "--role", "owner")["token"]
            for name in (*SCRIPTS, "gone", "no-such-model"):
                for stream in (False, True):
                    ask(running, found, name, CLIENT_SECRET, stream=stream)
            ask(running, found, "good", CLIENT_SECRET, messages=[{"role": "user", "content": 1}])
            ask(running, found, "good", found.made_secret)
            ask(running, found, "good", STRANGER_SECRET)
            for path in ("admin/api/keys", "admin/api/models", "admin/api/requests", "admin/api/members", "admin/api/audit",
                         "metrics", "v1/models"):  # fmt: skip
                for secret in (ADMIN_KEY, CLIENT_SECRET, found.token):
                    reply = httpx.get(
                        f"{running.url}/{path}", headers={"authorization": f"Bearer {secret}"}, timeout=30
                    )
                    found.replies[f"{path} with {secret[:5]} {reply.status_code}"] = f"{reply.headers}\n{reply.text}"
            found.collect(running)
        found.collect(running)
    return found


def test_the_gateway_was_busy_while_it_was_watched(seen: Seen) -> None:
    statuses = {name.rsplit(" ", 1)[1] for name in seen.replies}
    assert {"200", "400", "401", "404", "502"} <= statuses
    assert '"level":"debug"' in seen.log
    assert any(name.endswith("penstock.db") and b"declared" in content for name, content in seen.files.items())
    assert any("spool" in name for name in seen.files)


@pytest.mark.parametrize("secret", [CLIENT_SECRET, PROVIDER_SECRET, STRANGER_SECRET, ADMIN_KEY])
def test_a_secret_stands_in_no_reply_no_log_and_no_file(seen: Seen, secret: str) -> None:
    assert seen.places_with(secret) == []


def test_a_made_key_is_shown_once_and_kept_nowhere(seen: Seen) -> None:
    assert seen.made_secret.startswith("sk-penstock-")
    assert seen.places_with(seen.made_secret) == []


def test_the_token_of_a_member_is_shown_once_and_kept_nowhere(seen: Seen) -> None:
    assert seen.token.startswith("sk-penstock-member-")
    assert any(name.startswith("admin/api/audit with sk-pe") and name.endswith(" 200") for name in seen.replies)
    assert seen.places_with(seen.token) == []


def test_questions_and_answers_are_not_kept(seen: Seen) -> None:
    assert PROMPT not in seen.log
    assert ANSWER not in seen.log
    kept = [name for name, content in seen.files.items() if PROMPT.encode() in content or ANSWER.encode() in content]
    assert kept == [], "SECURITY.md promises that prompts and answers are not stored"
