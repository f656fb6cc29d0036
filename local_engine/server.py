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
from typing import Any, Literal, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_engine.embedding import EmbeddingJob
from local_engine.engine import Engine
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
from local_engine.openai_logprobs import LogprobText
from local_engine.openai_reply import Choice, Kind, ReplyForm, embedding_reply
from local_engine.prepare import Preparer, make_requests
from local_engine.request import SamplingDefaults
from local_engine.running_call import CallStream, RunningCall
from local_engine.wire.chat import ChatCall, parse_chat
from local_engine.wire.completion import CompletionCall, EmbeddingCall, parse_completion, parse_embedding, parse_tokens
from local_engine.wire.fields import parse_body, valid_unicode
from local_engine.wire.messages import parse_messages

T = TypeVar("T")
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
    _preparer: Preparer | None = None

    def ready_loop(self) -> EngineLoop:
        """The loop, or NotReady."""
        if self.loop is None or self.status != "ready":
            raise NotReady(f"the engine is {self.status}: wait until /health answers 200", retry_after=1)
        return self.loop

    def preparer(self, loop: EngineLoop) -> Preparer:
        """What makes requests for the loop's engine out of calls."""
        if self._preparer is None:
            self._preparer = Preparer(loop.engine)
        return self._preparer


def create_app(service: Service, lifespan: Lifespan | None = None) -> Starlette:
    """The application: a table of routes, and one handler for errors."""
    routes = Routes(service)
    guarded: list[tuple[str, Handler, str]] = [
        ("/v1/chat/completions", routes.chat, "POST"),
        ("/v1/completions", routes.completions, "POST"),
        ("/v1/models", routes.models, "GET"),
        ("/v1/models/{model:path}", routes.model, "GET"),
        ("/v1/embeddings", routes.embeddings, "POST"),
        ("/tokenize", routes.tokenize, "POST"),
        ("/detokenize", routes.detokenize, "POST"),
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
        body = parse_body(await self._read_body(request))
        engine = self._service.ready_loop().engine
        if "messages" in body:
            tokens = await asyncio.to_thread(engine.tokenizer.encode_chat, parse_messages(body))
        else:
            prompt = body.get("prompt")
            if not isinstance(prompt, str):
                raise InvalidRequest("give prompt (a string) or messages (a list)", param="prompt")
            tokens = await asyncio.to_thread(engine.tokenizer.encode, valid_unicode(prompt, "prompt"))
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": engine.max_context})

    async def detokenize(self, request: HttpRequest) -> Response:
        """The text of token ids, without control tokens."""
        loop = self._service.ready_loop()
        tokens = self._service.preparer(loop).encode(parse_tokens(parse_body(await self._read_body(request))), "tokens")
        return JSONResponse({"prompt": await asyncio.to_thread(loop.engine.tokenizer.decode, tokens)})

    async def chat(self, request: HttpRequest) -> Response:
        """POST /v1/chat/completions."""
        body = parse_body(await self._read_body(request))
        return await self._answer(request, "chat", parse_chat(body, self._service.sampling))

    async def completions(self, request: HttpRequest) -> Response:
        """POST /v1/completions."""
        body = parse_body(await self._read_body(request))
        return await self._answer(request, "completion", parse_completion(body, self._service.sampling))

    async def embeddings(self, request: HttpRequest) -> Response:
        """POST /v1/embeddings."""
        call = parse_embedding(parse_body(await self._read_body(request)))
        self._check_model(call.model)
        loop = self._service.ready_loop()
        inputs = await asyncio.to_thread(_encode_inputs, self._service.preparer(loop), loop.engine, call)
        job = EmbeddingJob(inputs)
        spent = await _or_disconnect(asyncio.wrap_future(loop.submit_job(job.steps(loop.engine))), request)
        energy, tokens = loop.engine.energy.report(spent), sum(map(len, inputs))
        return JSONResponse(embedding_reply(call, job.vectors, self._service.model_name, tokens, energy))

    async def _answer(self, request: HttpRequest, kind: Kind, asked: ChatCall | CompletionCall) -> Response:
        call = asked.call
        self._check_model(call.model)
        loop = self._service.ready_loop()
        prepared = await self._service.preparer(loop).prepare(asked)
        requests = make_requests(loop.engine, call, prepared, "messages" if kind == "chat" else "prompt")
        form = ReplyForm(
            kind,
            self._service.model_name,
            prompt_tokens=len(prepared.prompt),
            meter=loop.engine.energy,
            logprobs=None if call.logprobs is None else LogprobText(loop.engine.tokenizer),
            echo=prepared.echo,
        )
        running = RunningCall(loop, requests, [prepared.reader() for _ in requests])
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


def _encode_inputs(preparer: Preparer, engine: Engine, call: EmbeddingCall) -> list[list[int]]:
    """Token ids of what is to be embedded; each must fit the context, and `dimensions` the model."""
    hidden = engine.model_config.hidden_size
    if call.dimensions is not None and call.dimensions > hidden:
        raise InvalidRequest(f"dimensions is {call.dimensions}, the model has {hidden}", param="dimensions")
    inputs = [preparer.encode(each, "input") for each in call.inputs]
    longest = max(map(len, inputs))
    if longest >= engine.max_context or min(map(len, inputs)) == 0:
        raise ContextTooLong(
            f"an input has {longest} tokens, 1 to {engine.max_context - 1} are taken: shorten it", param="input"
        )
    return inputs


def _energy_header(form: ReplyForm, choices: list[Choice]) -> dict[str, str]:
    energy = form.energy(choices)
    return {} if energy is None else {"x-penstock-energy-joules": f"{energy['joules']:.6f}"}


async def _or_disconnect(answer: Awaitable[T], request: HttpRequest) -> T:
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
