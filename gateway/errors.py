"""Every way to say no, as one tree; status, type and code live in the class and one handler renders them.

PenstockError
├── InvalidRequest (400) ─ InvalidJson, InvalidValue, UnknownOption, ContextTooLong, NoCandidate,
│                          BodyTooLarge (413), BodyTooSlow (408)
├── Unauthenticated (401) ─ MissingKey, InvalidKey, RevokedKey
├── Forbidden (403) ─ ModelNotAllowed, TierNotAllowed, UnknownTenant, UnknownProject
├── NotFound (404) ─ UnknownModel, UnknownRequest, UnknownRoute, UnknownDocument, MethodNotAllowed (405)
├── Conflict (409)
├── LimitExceeded (429) ─ BudgetExceeded,
│                         SessionExceeded ─ SessionBudgetExceeded, SessionTooLong, SessionLoop
├── Unavailable (503)
└── ProviderError (502) ─ ProviderUnreachable, ProviderTimeout (504), ProviderRateLimited (429), ProviderRejected (its own),
                          ProviderFailed, ProviderBadReply, StreamCut
ConfigError, StartupError: for the person at the terminal; never rendered as HTTP.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PenstockError(Exception):
    """Base of all errors that a client may see."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}

    @property
    def http_status(self) -> int:
        """The status to answer with; the class's own, unless a provider's is passed on."""
        return self.status

    def body(self) -> dict[str, Any]:
        """The OpenAI error body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(PenstockError):
    """The request cannot be answered as it is; changing it helps, repeating it does not."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidJson(InvalidRequest):
    """The body is not a JSON object."""

    code = "invalid_json"


class InvalidValue(InvalidRequest):
    """A field is missing, has the wrong type or is out of range."""

    code = "invalid_value"


class UnknownOption(InvalidRequest):
    """A key under `penstock` that does not exist."""

    code = "unknown_option"


class ContextTooLong(InvalidRequest):
    """The prompt does not fit the context of any model that may answer it."""

    code = "context_length_exceeded"


class BodyTooLarge(InvalidRequest):
    """The body is larger than the configured limit."""

    status = 413
    code = "request_too_large"


class BodyTooSlow(InvalidRequest):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"


class Unauthenticated(PenstockError):
    """No valid key."""

    status = 401
    type = "authentication_error"
    code = "unauthenticated"


class MissingKey(Unauthenticated):
    """No `Authorization: Bearer` header."""

    code = "missing_api_key"


class InvalidKey(Unauthenticated):
    """The key is unknown."""

    code = "invalid_api_key"


class RevokedKey(Unauthenticated):
    """The key was revoked or has expired."""

    code = "revoked_api_key"


class Forbidden(PenstockError):
    """The key is valid and may not do this."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class ModelNotAllowed(Forbidden):
    """The key's scope does not include the model."""

    code = "model_not_allowed"


class TierNotAllowed(Forbidden):
    """The key's scope does not include the tier."""

    code = "tier_not_allowed"


class UnknownTenant(Forbidden):
    """The key's tenant is no longer in the configuration, so nobody can be billed."""

    code = "unknown_tenant"


class UnknownProject(Forbidden):
    """The key's project is no longer in the configuration, so its budgets and limits are not known."""

    code = "unknown_project"


class NotFound(PenstockError):
    """There is nothing at this address."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModel(NotFound):
    """No model, tier or `auto` form has this name."""

    code = "model_not_found"


class UnknownRequest(NotFound):
    """No request of the key's tenant or project has this id."""

    code = "request_not_found"


class UnknownRoute(NotFound):
    """No such path."""

    code = "unknown_url"


class UnknownDocument(NotFound):
    """No invoice, credit note, grant or reconciliation has this number or id."""

    code = "document_not_found"


class MethodNotAllowed(NotFound):
    """The path exists and does not take this method."""

    status = 405
    code = "method_not_allowed"


class Conflict(PenstockError):
    """The state of a period or a document does not allow this; nothing was changed."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class LimitExceeded(PenstockError):
    """One of Penstock's own limits, never a provider's; the message says used, held, limit and reset."""

    status = 429
    type = "rate_limit_error"
    code = "limit_exceeded"

    def __init__(self, message: str, *, headers: dict[str, str] | None = None, of_model: bool = False) -> None:
        """`of_model`: only calls to this one model are refused; another may still answer."""
        super().__init__(message, headers=headers)
        self.of_model = of_model


class BudgetExceeded(LimitExceeded):
    """A budget would be overspent. Waiting does not help before its period ends, so clients must not retry."""

    type = "insufficient_quota"
    code = "budget_exceeded"

    def __init__(self, message: str, *, headers: dict[str, str] | None = None, of_model: bool = False) -> None:
        super().__init__(message, headers={"x-should-retry": "false", **(headers or {})}, of_model=of_model)


class SessionExceeded(LimitExceeded):
    """An agent run (`session_id`) has used its tokens or its steps; it will not get more, so clients must not retry."""

    code = "session_limit_exceeded"

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, headers={"x-should-retry": "false", **(headers or {})})


class SessionBudgetExceeded(SessionExceeded):
    """An agent run has spent or holds the money it may spend."""

    code = "session_budget_exceeded"


class SessionTooLong(SessionExceeded):
    """An agent run has gone on for longer than it may."""

    code = "session_time_exceeded"


class SessionLoop(SessionExceeded):
    """An agent run has made the same request as often as it may: it is probably going round in circles."""

    code = "session_loop_detected"


class NoCandidate(InvalidRequest):
    """No configured model satisfies the request's hard conditions (scope, capabilities, tier, cost cap)."""

    code = "no_candidate"


class Unavailable(PenstockError):
    """A part Penstock needs (database, store, spool) does not answer; safe to retry."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after)})


class ProviderError(PenstockError):
    """An upstream did not give an answer. Repeating is opt-in per class, and then per model in penstock.yaml."""

    status = 502
    type = "provider_error"
    code = "provider_error"

    retry_word: ClassVar[str | None] = None
    """What `retries.on` in penstock.yaml calls this error; without a word it is never repeated at the same upstream."""
    try_next: ClassVar[bool] = False
    """Another candidate may well answer."""

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int | None = None,
        upstream_body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, headers=headers)
        self.upstream_status = upstream_status
        self.upstream_body = upstream_body


class ProviderUnreachable(ProviderError):
    """No connection within the connect deadline; nothing was sent."""

    code = "provider_unreachable"
    retry_word = "unreachable"
    try_next = True


class ProviderTimeout(ProviderError):
    """The first token, the next token or the whole reply took longer than its deadline."""

    status = 504
    code = "provider_timeout"
    retry_word = "timeout"
    try_next = True


class ProviderRateLimited(ProviderError):
    """The upstream answered 429: its limit, not one of ours."""

    status = 429
    code = "provider_rate_limited"
    retry_word = "rate_limited"
    try_next = True


class ProviderFailed(ProviderError):
    """The upstream answered 5xx, or refused our own credentials (401, 403)."""

    code = "provider_failed"
    retry_word = "failed"
    try_next = True


class ProviderBadReply(ProviderError):
    """The upstream answered 200 with something that is not a chat completion."""

    code = "provider_bad_reply"
    retry_word = "bad_reply"
    try_next = True


class ProviderRejected(ProviderError):
    """The upstream says that the request itself is wrong (400, 413, 422); its status and error are passed on."""

    status = 400
    type = "invalid_request_error"
    code = "provider_rejected"

    @property
    def http_status(self) -> int:
        """The upstream's own status."""
        return self.upstream_status or self.status

    def body(self) -> dict[str, Any]:
        """The provider's own error object where it has the OpenAI shape, else ours."""
        error = (self.upstream_body or {}).get("error")
        if isinstance(error, dict) and isinstance(error.get("message"), str):
            return {
                "error": {
                    "message": error["message"],
                    "type": error.get("type") or self.type,
                    "param": error.get("param"),
                    "code": error.get("code") or self.code,
                }
            }
        return super().body()


class StreamCut(ProviderError):
    """The upstream stream ended before its finish reason; the client has seen a part, so nothing is retried."""

    code = "stream_cut"


class ConfigError(Exception):
    """penstock.yaml or a setting is wrong; the message names the key, the value and what would be right."""


class StartupError(Exception):
    """The process cannot start (port in use, data directory not writable, database newer than the code)."""
