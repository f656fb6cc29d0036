"""The fast path to any OpenAI-compatible server: external providers, self-hosted engines, the bundled engine.

Every failure is a ProviderError; no error and no repr shows our key at the provider. Nothing is repeated here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from yarl import URL

from gateway.catalog import Model
from gateway.errors import ProviderBadReply, ProviderError, ProviderTimeout
from gateway.providers.base import Call, Completion
from gateway.providers.deadlines import Deadline
from gateway.providers.http import (
    FOREIGN,
    MAX_REPLY_BYTES,
    HttpClient,
    error_in_reply,
    quoted,
    read_at_most,
    refusal,
    translated,
    who,
)
from gateway.providers.relay import HttpSource, RelayedStream
from gateway.providers.stream import SseReader

SENT_IN_ONE_GO = 2**20
"""Bytes of a request; a larger one (it holds images) is written in pieces, so that others get their turn in between."""
NO_CEILING = 1e9
"""aiohttp rounds deadlines above 5 s up to whole seconds; ours are kept as configured."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What every call to one model has in common, made once."""

    url: URL
    headers: dict[str, str] = field(repr=False)
    timeout: aiohttp.ClientTimeout


class OpenAICompatible:
    """Implements gateway.providers.base.Provider. `base_url` overrides the models' own (the bundled engine has none)."""

    def __init__(self, client: HttpClient, *, base_url: str | None = None) -> None:
        self._client = client
        self._base_url = base_url
        self._endpoints: dict[int, Endpoint] = {}

    async def complete(self, call: Call) -> Completion:
        """One plain chat completion."""
        model = call.model
        response: aiohttp.ClientResponse | None = None
        try:
            with Deadline(self._client.watch, model.deadlines.total):
                response = await self._post(call, plain_body(call))
                if not 200 <= response.status < 300:
                    raise await refusal(response, model)
                body = await read_at_most(response, MAX_REPLY_BYTES)
        except FOREIGN as error:
            raise self._translated(error, model, f"{model.deadlines.total:g} s (`deadlines.total`)") from error
        finally:
            if response is not None:
                response.close()  # nothing left to close once the body was read to its end
        if body is None:
            raise ProviderBadReply(f"{who(model)} sent a reply larger than {MAX_REPLY_BYTES} bytes.")
        return read_completion(body, model)

    async def stream(self, call: Call, *, include_usage: bool) -> RelayedStream:
        """One streamed chat completion; returns once the first event is here."""
        model = call.model
        seconds = min(model.deadlines.first_token, model.deadlines.total)
        response: aiohttp.ClientResponse | None = None
        try:
            with Deadline(self._client.watch, seconds) as deadline:
                response = await self._post(call, stream_body(call))
                if not 200 <= response.status < 300:
                    raise await refusal(response, model)
                if response.content_type in ("application/json", "text/html"):
                    raise await self._not_a_stream(response, model)
                reader = SseReader(keep_usage=include_usage)
                stream = RelayedStream(HttpSource(response), model, reader, self._client.watch, deadline.started)
                await stream.first()
                return stream
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, FOREIGN):
                name = "first_token" if seconds == model.deadlines.first_token else "total"
                raise self._translated(error, model, f"{seconds:g} s (`deadlines.{name}`)") from error
            raise

    async def close(self) -> None:
        """Nothing of its own: the client is shared and closed by its owner."""

    async def _post(self, call: Call, body: dict[str, Any]) -> aiohttp.ClientResponse:
        endpoint = self._endpoints.get(call.model.index) or self._make_endpoint(call.model)
        data = orjson.dumps(body)
        return await self._client.session.post(
            endpoint.url,
            data=data if len(data) <= SENT_IN_ONE_GO else io.BytesIO(data),
            headers={**endpoint.headers, "x-request-id": call.request_id},
            timeout=endpoint.timeout,
            allow_redirects=False,
        )

    def _make_endpoint(self, model: Model) -> Endpoint:
        base_url = self._base_url or model.base_url
        if base_url is None:
            raise RuntimeError(f"model {model.name!r} has no base URL")
        url = URL(base_url)
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            # Compressed streams are buffered on the way, and replies are relayed as they come.
            "accept-encoding": "identity",
        }
        if model.api_key is not None:
            headers["authorization"] = f"Bearer {model.api_key.strip()}"  # keys read from files end in a newline
        elif url.user is not None:
            headers["authorization"] = aiohttp.encode_basic_auth(url.user, url.password or "")
        endpoint = Endpoint(
            url=url.with_user(None) / "chat" / "completions",
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=model.deadlines.connect, ceil_threshold=NO_CEILING),
        )
        self._endpoints[model.index] = endpoint
        return endpoint

    def _translated(self, error: Exception, model: Model, deadline: str) -> ProviderError:
        if type(error) is TimeoutError:  # ours; aiohttp's own are subclasses and say what was waited for
            return ProviderTimeout(f"{who(model)} did not answer within {deadline}.")
        return translated(error, model)

    async def _not_a_stream(self, response: aiohttp.ClientResponse, model: Model) -> ProviderError:
        payload = _json_or_none(await read_at_most(response, MAX_REPLY_BYTES))
        if isinstance(payload, dict) and isinstance(payload.get("error"), dict):
            return error_in_reply(payload["error"], model)
        return ProviderBadReply(f"{who(model)} answered {response.content_type!r} where a stream was asked for.")


def plain_body(call: Call) -> dict[str, Any]:
    """The upstream's request: the client's with the upstream's name of the model. The caller's dict is left alone."""
    body = {**call.body, "model": call.model.upstream_model}
    if body.pop("stream", None) is not None:
        body.pop("stream_options", None)
    return body


def stream_body(call: Call) -> dict[str, Any]:
    """As `plain_body`, asking for a stream that reports its usage, whether the client wants to see it or not."""
    options = call.body.get("stream_options")
    return {
        **call.body,
        "model": call.model.upstream_model,
        "stream": True,
        "stream_options": {**(options if isinstance(options, dict) else {}), "include_usage": True},
    }


def read_completion(body: bytes, model: Model) -> Completion:
    """A whole reply, checked to be a chat completion. Raises ProviderBadReply, or what an error object in it means."""
    payload = _json_or_none(body)
    if not isinstance(payload, dict):
        raise ProviderBadReply(f"{who(model)} answered 200 with what is not a JSON object: {quoted(body, model)}")
    choices = payload.get("choices")
    if isinstance(payload.get("error"), dict) and not choices:
        raise error_in_reply(payload["error"], model)
    if not isinstance(choices, list) or not choices or not all(_has_message(choice) for choice in choices):
        raise ProviderBadReply(f"{who(model)} answered 200 with what is not a chat completion: {quoted(body, model)}")
    usage = payload.get("usage")
    return Completion(body, payload, usage if isinstance(usage, dict) else None)


def _has_message(choice: object) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("message"), dict)


def _json_or_none(body: bytes | None) -> Any:
    try:
        return orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return None
