"""One signed POST, as Standard Webhooks 1.0 has it; whatever is not an answer of 2xx within the deadline is a failure.

Redirects are not followed, and no failure names the address, which may hold a secret.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from gateway.catalog_outlets import Endpoint
from gateway.jobs.outbox.not_taken import NotTaken


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 of `id.timestamp.body` in base64, after its version (pure)."""
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


class Poster:
    """Posts to one receiver within a deadline, seconds; use it as an async context, so that its connections are closed."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._client = httpx.AsyncClient(timeout=deadline, trust_env=False)

    async def __aenter__(self) -> Poster:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def post(self, endpoint: Endpoint, message_id: str, content_type: str, body: bytes, now: float) -> None:
        """Post a body once, signed with the moment `now`. Raises NotTaken."""
        headers = {
            "content-type": content_type,
            "user-agent": "penstock",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": signature(endpoint.key, message_id, int(now), body),
        }
        try:
            async with asyncio.timeout(self._deadline):
                request = self._client.build_request("POST", endpoint.url, content=body, headers=headers)
                # The answer's body is not read: it says nothing that is acted on, and may be endless.
                reply = await self._client.send(request, stream=True)
                await reply.aclose()
        except TimeoutError:
            raise NotTaken(f"no answer within {self._deadline:g} s", no_answer=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NotTaken(f"no answer ({type(error).__name__})", no_answer=True) from None
        if not reply.is_success:
            status, wait = reply.status_code, _seconds(reply.headers.get("retry-after"), now)
            busy = status == 429 or status >= 500
            raise NotTaken(f"answered {status}", no_answer=busy, final=status == 410, retry_after=wait)


def _seconds(retry_after: str | None, now: float) -> float | None:
    """Seconds of a `retry-after`, which is a number or a date; None when it is neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after.strip()[:9])
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return max(0.0, (at - datetime.fromtimestamp(now, UTC)).total_seconds())
