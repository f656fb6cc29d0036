"""The OpenAI-compatible HTTP server in front of the loop; every refusal is an OpenAI error body, never a closed socket.

A caller that disconnects has its requests aborted; the others do not notice.
"""

from __future__ import annotations

import asyncio
import hmac
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_engine import openai_wire
from local_engine.errors import (
    BodyTooLarge,
    ContextTooLong,
    EngineError,
    InvalidRequest,
    NotReady,
    RequestError,
    Unauthorized,
    UnknownModel,
    UnknownRoute,
)
from local_engine.loop import EngineLoop
from local_engine.openai_reply import Choice, Kind, ReplyForm
from local_engine.request import Request, SamplingDefaults
from local_engine.running_call import CallStream, RunningCall

Status = Literal["loading", "ready", "draining"]
Handler = Callable[[HttpRequest], Awaitable[Response]]
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


@dataclass(slots=True)
class Service:
    """What the routes share. `loop` is None until the model is loaded."""

    model_name: str
    api_key: str | None = None
    max_body_bytes: int = 4 * 1024 * 1024
    status: Status = "loading"
    loop: EngineLoop | None = None
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)

    def ready_loop(self) -> EngineLoop:
        """The loop, or NotReady."""
        if self.loop is None or self.status != "ready":
            raise NotReady(f"the engine is {self.status}: wait until /health answers 200", retry_after=1)
        return self.loop


def create_app(service: Service, lifespan: Lifespan | None = None) -> Starlette:
    """The application: a table of routes, and one handler for errors."""
    routes = Routes(service)
    guarded: list[tuple[str, Handler, str]] = [
        ("/v1/chat/completions", routes.chat, "POST"),
        ("/v1/completions", routes.completions, "POST"),
        ("/v1/models", routes.models, "GET"),
        ("/v1/models/{model:path}", routes.model, "GET"),
        ("/tokenize", routes.tokenize, "POST"),
        ("/metrics", routes.metrics, "GET"),
    ]
    return Starlette(
        routes=[
            Route("/health", routes.health, methods=["GET"]),
            *(Route(path, _with_key(service, handler), methods=[method]) for path, handler, method in guarded),
        ],
        exception_handlers={EngineError: _render_error, HTTPException: _render_http_error, Exception: _render_bug},
        lifespan=lifespan,
    )


class Routes:
    """One method per route."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _: HttpRequest) -> Response:
        """200 while requests are served, 503 before, while draining, and after the loop failed."""
        service = self._service
        ready = service.loop is not None and service.status == "ready"
        status = service.status if not ready else "ok" if service.loop and service.loop.alive else "failed"
        return JSONResponse({"status": status, "model": service.model_name}, 200 if status == "ok" else 503)

    async def models(self, _: HttpRequest) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: HttpRequest) -> Response:
        """The card of the model, 404 for another."""
        self._check_model(request.path_params["model"])
        return JSONResponse(self._card())

    async def metrics(self, _: HttpRequest) -> Response:
        """Prometheus' text format."""
        return Response(self._service.ready_loop().metrics.render(), media_type="text/plain; version=0.0.4")

    async def tokenize(self, request: HttpRequest) -> Response:
        """Token ids of a prompt or of messages."""
        body = openai_wire.parse_body(await self._read_body(request))
        engine = self._service.ready_loop().engine
        if "messages" in body:
            tokens = await asyncio.to_thread(engine.tokenizer.encode_chat, openai_wire.parse_messages(body))
        else:
            prompt = body.get("prompt")
            if not isinstance(prompt, str):
                raise InvalidRequest("give prompt (a string) or messages (a list)", param="prompt")
            tokens = await asyncio.to_thread(engine.tokenizer.encode, openai_wire.valid_unicode(prompt, "prompt"))
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": engine.max_context})

    async def chat(self, request: HttpRequest) -> Response:
        """POST /v1/chat/completions."""
        body = openai_wire.parse_body(await self._read_body(request))
        return await self._answer(request, "chat", openai_wire.parse_chat(body, self._service.sampling))

    async def completions(self, request: HttpRequest) -> Response:
        """POST /v1/completions."""
        body = openai_wire.parse_body(await self._read_body(request))
        return await self._answer(request, "completion", openai_wire.parse_completion(body, self._service.sampling))

    async def _answer(self, request: HttpRequest, kind: Kind, call: openai_wire.Call) -> Response:
        self._check_model(call.model)
        loop = self._service.ready_loop()
        prompt = await asyncio.to_thread(_encode, loop, call)
        requests = _make_requests(loop, call, prompt)
        form = ReplyForm(kind, self._service.model_name, prompt_tokens=len(prompt), meter=loop.engine.energy)
        running = RunningCall(loop, requests)
        headers = {"x-request-id": request.headers.get("x-request-id") or uuid.uuid4().hex}
        if call.stream:
            return CallStream(running, form, call.include_usage, headers)
        try:
            choices = await _or_disconnect(running.collect(), request)
        finally:
            running.abort()
        return JSONResponse(form.whole(choices), headers={**headers, **_energy_header(form, choices)})

    async def _read_body(self, request: HttpRequest) -> bytes:
        limit = self._service.max_body_bytes
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes: send less")
        return bytes(body)

    def _check_model(self, name: str) -> None:
        if name != self._service.model_name:
            raise UnknownModel(f"model {name!r} is not served here; known: {self._service.model_name!r}", param="model")

    def _card(self) -> dict[str, Any]:
        card: dict[str, Any] = {"id": self._service.model_name, "object": "model", "created": 0, "owned_by": "penstock"}
        if self._service.loop is not None:
            card["max_model_len"] = self._service.loop.engine.max_context
        return card


def _encode(loop: EngineLoop, call: openai_wire.Call) -> list[int]:
    tokenizer = loop.engine.tokenizer
    if call.messages is not None:
        return tokenizer.encode_chat(call.messages)
    if isinstance(call.prompt, str):
        return tokenizer.encode(call.prompt)
    assert call.prompt is not None
    vocabulary = loop.engine.model_config.vocab_size
    for token in call.prompt:
        if not 0 <= token < vocabulary:
            raise InvalidRequest(f"prompt holds token id {token!r}, expected 0 to {vocabulary - 1}", param="prompt")
    return call.prompt


def _make_requests(loop: EngineLoop, call: openai_wire.Call, prompt: list[int]) -> list[Request]:
    """One request per choice, or ContextTooLong with the numbers."""
    limit = loop.engine.max_context
    room = limit - len(prompt)
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    most = loop.engine.config.max_batch + loop.engine.config.max_queue
    if call.choices > most:
        raise InvalidRequest(f"n is {call.choices!r}, this server takes at most {most} requests at once", param="n")
    if room < (call.max_tokens or 1):
        asked = f" and max_tokens asks for {call.max_tokens}" if call.max_tokens else ""
        raise ContextTooLong(
            f"the prompt has {len(prompt)} tokens{asked}, the context holds {limit}: shorten the prompt or the answer",
            param="messages" if call.messages is not None else "prompt",
        )
    max_tokens = min(room, loop.engine.config.default_max_tokens) if call.max_tokens is None else call.max_tokens
    return [
        loop.engine.new_request(
            prompt,
            call.sampling(max_tokens, choice),
            cache_salt=call.cache_salt,
            priority=call.priority,
            seconds=call.deadline_seconds,
        )
        for choice in range(call.choices)
    ]


def _energy_header(form: ReplyForm, choices: list[Choice]) -> dict[str, str]:
    energy = form.energy(choices)
    return {} if energy is None else {"x-penstock-energy-joules": f"{energy['joules']:.6f}"}


async def _or_disconnect(answer: Awaitable[list[Choice]], request: HttpRequest) -> list[Choice]:
    """The answer, unless the caller goes away first."""
    work = asyncio.ensure_future(answer)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise RequestError("the caller disconnected")  # nobody reads this reply
    finally:
        work.cancel()
        watch.cancel()


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _with_key(service: Service, handler: Handler) -> Handler:
    """Refuse a request without the configured key before its body is read."""
    if service.api_key is None:
        return handler
    expected = f"Bearer {service.api_key}".encode()

    async def checked(request: HttpRequest) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode("latin-1"), expected):
            raise Unauthorized("the API key is missing or wrong: send 'Authorization: Bearer KEY'")
        return await handler(request)

    return checked


async def _render_error(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse(error.body(), error.status, headers)


async def _render_http_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = UnknownRoute(f"{request.method} {request.url.path} is not served here ({error.detail})").body()
    return JSONResponse(body, error.status_code, error.headers)


async def _render_bug(_: HttpRequest, error: Exception) -> Response:
    return JSONResponse(EngineError(f"the engine failed: {type(error).__name__}").body(), 500)
