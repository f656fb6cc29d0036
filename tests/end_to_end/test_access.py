"""Who may ask for what: keys, scopes, budgets and rate limits as the official client meets them."""

from __future__ import annotations

import openai
import pytest

from tests.end_to_end.conftest import QUESTION, Client


@pytest.mark.parametrize(
    ("key", "status", "code"), [("sk-wrong-key", 401, "invalid_api_key"), ("", 401, "missing_api_key")]
)
def test_a_wrong_or_missing_key_is_unauthenticated(client: Client, key: str, status: int, code: str) -> None:
    headers = {} if key else {"authorization": ""}
    with pytest.raises(openai.AuthenticationError) as error:
        client(key or "x", default_headers=headers).chat.completions.create(model="small", messages=QUESTION)
    assert (error.value.status_code, error.value.code) == (status, code)


def test_a_scope_limits_models_and_tiers_and_what_is_listed(client: Client) -> None:
    scoped = client("sk-scoped-0123456789")
    assert [listed.id for listed in scoped.models.list()] == ["auto", "small"]
    assert scoped.models.retrieve("small").id == "small"
    for name in ("large", "premium"):
        with pytest.raises(openai.PermissionDeniedError) as error:
            scoped.chat.completions.create(model=name, messages=QUESTION)
        assert error.value.code in {"model_not_allowed", "tier_not_allowed"}
    raw = scoped.chat.completions.with_raw_response.create(model="auto", messages=QUESTION)
    assert raw.headers["x-penstock-model"] == "small"


def test_a_budget_refuses_what_could_exceed_it_and_tells_the_client_not_to_retry(client: Client) -> None:
    poor = client("sk-poor-0123456789")
    with pytest.raises(openai.RateLimitError) as error:
        poor.chat.completions.create(model="large", messages=QUESTION, max_tokens=1000)
    assert error.value.code == "budget_exceeded"
    assert error.value.response.headers["x-should-retry"] == "false"
    assert "tenant 'poor'" in error.value.message
    assert poor.chat.completions.create(model="small", messages=QUESTION, max_tokens=10).choices


def test_a_rate_limit_refuses_and_says_when_to_come_back(client: Client) -> None:
    limited = client("sk-limited-0123456789")
    refused = None
    for _ in range(5):  # the window may turn once between requests
        try:
            limited.chat.completions.create(model="small", messages=QUESTION, max_tokens=10)
        except openai.RateLimitError as error:
            refused = error
            break
    assert refused is not None
    assert refused.code == "limit_exceeded"
    assert 1 <= int(refused.response.headers["retry-after"]) <= 60
