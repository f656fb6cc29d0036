"""The one HTTP client of all upstreams, and the one table in which foreign errors become ours.

Nothing is ever sent twice by this file: aiohttp repeats only idempotent methods on a connection that died, and a POST is
not one. Whatever an upstream says is cleaned of our own key before it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.catalog import Model
from gateway.errors import (
    ProviderBadReply,
    ProviderError,
    ProviderFailed,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
)
from gateway.providers.deadlines import Watch

MAX_REPLY_BYTES = 64 * 2**20
"""Most bytes of a plain reply."""
MAX_ERROR_BYTES = 64 * 2**10
"""What is read of an error reply; the rest is dropped with the connection."""
SHORTEST_SECRET = 8
KEEP_ALIVE_SECONDS = 15.0
"""How long an idle connection is kept. One that the server has closed meanwhile is noticed and not used again."""

ERRORS: tuple[tuple[type[Exception], type[ProviderError], str], ...] = (
    (aiohttp.ConnectionTimeoutError, ProviderUnreachable, "no connection within {deadlines.connect:g} s"),
    (aiohttp.ClientConnectorCertificateError, ProviderUnreachable, "its TLS certificate is not trusted"),
    (aiohttp.ClientSSLError, ProviderUnreachable, "the TLS handshake failed"),
    (aiohttp.ClientConnectorDNSError, ProviderUnreachable, "its host name cannot be resolved"),
    (aiohttp.ClientConnectorError, ProviderUnreachable, "the connection was refused or failed"),
    (
        aiohttp.ServerDisconnectedError,
        ProviderFailed,
        "it closed the connection unanswered and may have seen the request",
    ),
    (aiohttp.ClientPayloadError, ProviderFailed, "the reply broke off"),
    (aiohttp.ClientResponseError, ProviderBadReply, "the reply is not HTTP"),
    (aiohttp.ClientConnectionError, ProviderFailed, "the connection broke"),
    (aiohttp.ClientError, ProviderFailed, "the call failed"),
    (TimeoutError, ProviderTimeout, "no answer within its deadline"),
    (OSError, ProviderFailed, "the connection broke"),
)
"""Foreign error, ours, what to say. The first row that fits counts, so the specific ones come first."""

FOREIGN = (aiohttp.ClientError, OSError)
"""What the rows above cover: TimeoutError is an OSError."""


class HttpClient:
    """A keep-alive connection pool shared by all providers. Made anywhere, opened inside the running loop."""

    def __init__(self, *, max_connections: int, user_agent: str) -> None:
        self._max_connections = max_connections
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self.watch = Watch()

    async def open(self) -> None:
        """Create the pool; calling it again does nothing."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=KEEP_ALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": self._user_agent},
                timeout=aiohttp.ClientTimeout(total=None),
                raise_for_status=False,
            )

    async def close(self) -> None:
        """Close all connections; calling it again does nothing."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool. Using it before `open` is a programming error."""
        if self._session is None:
            raise RuntimeError("the HTTP client is not open: call `await open()` inside the running loop first")
        return self._session


def who(model: Model) -> str:
    """How messages name an upstream. Hosts stay out of them: clients need not know our network."""
    if model.provider == "bundled":
        return f"the bundled engine (model {model.name!r})"
    return f"the {'self-hosted engine' if model.provider == 'engine' else 'provider'} of model {model.name!r}"


def translated(error: Exception, model: Model) -> ProviderError:
    """Our error for a foreign one, by the table. Raise it `from` the foreign one, so that the log has the details."""
    if isinstance(error, aiohttp.ClientResponseError):
        # aiohttp keeps the request's headers in this one, our key among them, and shows them in its repr.
        error.request_info = error.request_info._replace(headers=CIMultiDictProxy(CIMultiDict()))
        error.args = (error.status, error.message)
    for foreign, ours, saying in ERRORS:
        if isinstance(error, foreign):
            return ours(f"{who(model)} failed: {saying.format(deadlines=model.deadlines)}.")
    raise error


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The whole body, or None when it is larger than `limit` bytes."""
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > limit:
            return None
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def refusal(response: aiohttp.ClientResponse, model: Model) -> ProviderError:
    """Our error for a reply whose status is not 2xx."""
    pieces: list[bytes] = []
    size = 0
    while size < MAX_ERROR_BYTES and (piece := await response.content.readany()):
        pieces.append(piece)
        size += len(piece)
    return error_for_status(response.status, b"".join(pieces), response.headers, model)


def error_for_status(
    status: int, body: bytes, headers: Mapping[str, str], model: Model, *, how: str | None = None
) -> ProviderError:
    """Our error for an upstream's error reply. `headers` must be looked up in lower case or case-blind."""
    # Blotted out twice: before texts are cut short, and again where JSON had escaped a character of the key.
    said = _without_key(_error_object(without_key(body.decode(errors="replace"), model)), model)
    message = str(said.get("message") or "")[:1000]
    answered = f"{who(model)} {how or f'answered {status}'}"
    quote = f": {message}" if message else "."
    if status == 429:
        return ProviderRateLimited(
            f"{answered}; this is the provider's limit, not one of Penstock's{quote}",
            upstream_status=status,
            upstream_body={"error": said},
            headers={name: headers[name] for name in ("retry-after", "retry-after-ms") if name in headers},
        )
    if status in (401, 403):
        # The provider's text is not passed on: it may show a part of our key.
        return ProviderFailed(
            f"{who(model)} refused Penstock's own credentials ({status}); check `api_key` of this model in penstock.yaml.",
            upstream_status=status,
        )
    if status == 404:
        # The caller named a model that this gateway has; that the upstream lacks it is the configuration's fault.
        return ProviderFailed(
            f"{answered}; check `model` and `base_url` of this model in penstock.yaml{quote}", upstream_status=status
        )
    if status in (400, 413, 422):
        return ProviderRejected(f"{answered}{quote}", upstream_status=status, upstream_body={"error": said})
    if status in (408, 504):
        return ProviderTimeout(f"{answered}, a timeout of its own{quote}", upstream_status=status)
    if 300 <= status < 400:
        return ProviderFailed(
            f"{answered}, a redirect, which is not followed; check `base_url` of this model in penstock.yaml.",
            upstream_status=status,
        )
    return ProviderFailed(f"{answered}{quote}", upstream_status=status)


def error_in_reply(error: dict[str, Any], model: Model) -> ProviderError:
    """Our error for an error object that came with status 200: its own code when it is a status, else 502."""
    code = error.get("code")
    status = int(code) if isinstance(code, int | str) and str(code).isdecimal() and 400 <= int(code) < 600 else 502
    how = "sent an error in a reply that began as a success"
    return error_for_status(status, orjson.dumps({"error": error}), {}, model, how=how)


def without_key(text: str, model: Model) -> str:
    """`text` with our key at the provider blotted out. A placeholder such as "EMPTY" is no secret and may be a word."""
    key = (model.api_key or "").strip()
    return text.replace(key, "[key]") if len(key) >= SHORTEST_SECRET else text


def quoted(data: bytes, model: Model) -> str:
    """The start of what an upstream sent, for a message. Our key is blotted out before the text is cut short."""
    return repr(without_key(data[:4096].decode(errors="replace"), model)[:80])


def _error_object(body: str) -> dict[str, Any]:
    """The error in the shapes servers use: OpenAI's, a flat one, FastAPI's `detail`, or plain text."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.strip()
        return {"message": text[:500]} if text and not text.startswith("<") else {}
    if not isinstance(payload, dict):
        return {"message": str(payload)[:500]}
    error = payload.get("error")
    if isinstance(error, dict):
        return error
    message = error or payload.get("message") or payload.get("detail")
    if message is None:
        return {}
    kept = {key: payload[key] for key in ("type", "param", "code") if key in payload}
    return {"message": message if isinstance(message, str) else orjson.dumps(message).decode()[:500], **kept}


def _without_key(value: Any, model: Model) -> Any:
    if isinstance(value, str):
        return without_key(value, model)
    if isinstance(value, dict):
        return {_without_key(key, model): _without_key(item, model) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_key(item, model) for item in value]
    return value
