"""An OpenAI-compatible provider that serves real recorded answers and keeps its own count of what it delivered.

    python -m benchmarks.replay_upstream --data DIR [--port 0] [--latency recorded] [--delivered-log FILE]

The prompt is the last user message, word for word; the model is a recorded model's name or a tier (small, medium,
large). An answer comes back whole, whatever `max_tokens` says, because that is what was recorded. A reply counts as
delivered when its last byte (usage included) was written; one whose client left before that is counted apart. The
first line on standard output is a JSON object with the base URL. An unknown prompt or model is OpenAI's 404.
"""

import argparse
import asyncio
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from benchmarks import recorded_answers
from benchmarks.delivered import CREATED, Delivered, Reply
from benchmarks.recorded_answers import TIER_MODELS, RecordedAnswers

MAX_BODY_BYTES = 16 * 2**20


@dataclass
class Replay:
    """The provider. `latency` is seconds per reply, or 'recorded' times `latency_scale` (0 where none was recorded).

    The recordings know no cached and no reasoning tokens. With `split_usage` a quarter of the input is reported as
    cached and a third of the output as reasoning: totals stay, and a gateway's buckets have something to tell apart.
    """

    recorded: RecordedAnswers
    delivered: Delivered
    latency: float | Literal["recorded"] = 0.0
    latency_scale: float = 1.0
    split_usage: bool = False
    served: int = 0

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[errors_like_openai])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/replay/delivered", self.show_delivered)
        return app

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`: the tiers, then every recorded model."""
        names = [*TIER_MODELS, *self.recorded.models]
        data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "replay"} for name in names]
        return web.json_response({"object": "list", "data": data})

    async def show_delivered(self, request: web.Request) -> web.Response:
        """`GET /replay/delivered`: what was delivered, and how many replies have begun and not ended."""
        in_progress = self.served - len(self.delivered.ended)
        return web.json_response({"in_progress": in_progress, **self.delivered.summary()})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`, streamed or not."""
        reply = self._reply_to(await read_body(request))
        sent = await (send_stream if reply.stream else send_whole)(request, reply)
        self.delivered.add(reply, sent.complete)
        return sent.response

    def _reply_to(self, body: dict[str, Any]) -> Reply:
        model = body["model"]
        if model not in TIER_MODELS and model not in self.recorded.models:
            raise RefusalError(
                404, f"The model {model!r} does not exist; GET /v1/models lists them.", "model_not_found"
            )
        prompt = last_user_text(body["messages"])
        answer = self.recorded.find(prompt, model)
        if answer is None:
            message = f"No answer of {model!r} to a prompt that starts {prompt[:80]!r} was recorded."
            raise RefusalError(404, message, "prompt_not_recorded")
        self.served += 1
        recorded_s = (answer.latency_s or 0.0) * self.latency_scale
        return Reply(
            id=f"chatcmpl-replay-{self.served:08d}",
            model=model,
            stream=bool(body.get("stream")),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            answer=answer,
            cached_tokens=answer.input_tokens // 4 if self.split_usage else 0,
            reasoning_tokens=answer.output_tokens // 3 if self.split_usage else 0,
            seconds=recorded_s if self.latency == "recorded" else self.latency,
        )


class RefusalError(Exception):
    """A refusal in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@web.middleware
async def errors_like_openai(request: web.Request, handler: Any) -> web.StreamResponse:
    """Give every refusal, the server's own included, as `{"error": {...}}`."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except RefusalError as error:
        status, message, code = error.status, str(error), error.code
    except web.HTTPException as error:
        status, message, code = error.status, error.reason, "not_found" if error.status == 404 else "invalid_request"
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return web.json_response(body, status=status)


async def read_body(request: web.Request) -> dict[str, Any]:
    """The request's JSON with `model` (text) and `messages` (a list), or a 400."""
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise RefusalError(400, f"The body is not JSON: {error}", "invalid_json") from error
    if not (isinstance(body, dict) and isinstance(body.get("model"), str) and isinstance(body.get("messages"), list)):
        raise RefusalError(400, "The body needs `model` (a string) and `messages` (a list).", "invalid_request")
    if body.get("n") not in (None, 1):
        raise RefusalError(
            400, f"n={body['n']!r}: one answer is recorded per prompt and model; leave n at 1.", "invalid_n"
        )
    return body


def last_user_text(messages: list[Any]) -> str:
    """The text of the last user message, its text parts joined as they are. A 400 when there is none."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            if isinstance(content, list):
                return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    raise RefusalError(400, "`messages` has no user message with text.", "invalid_request")


@dataclass(frozen=True)
class Sent:
    """A response that ended; `complete` when its last byte was written to a client that was still there."""

    response: web.StreamResponse
    complete: bool


async def send_whole(request: web.Request, reply: Reply) -> Sent:
    """One JSON document after the reply's seconds."""
    await asyncio.sleep(reply.seconds)
    message = {"role": "assistant", "content": reply.answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    response = web.json_response(reply.frame("chat.completion", [choice]) | {"usage": reply.usage()})
    complete = connected(request)
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionResetError:
        complete = False
    return Sent(response, complete)


async def send_stream(request: web.Request, reply: Reply) -> Sent:
    """Server-sent events, the reply's seconds spread evenly over them."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    frames = reply.frames()
    started = time.monotonic()
    try:
        await response.prepare(request)
        for place, frame in enumerate(frames, start=1):
            wait = started + reply.seconds * place / len(frames) - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await response.write(b"data: " + json.dumps(frame).encode() + b"\n\n")
        complete = connected(request)
        await response.write_eof(b"data: [DONE]\n\n")
    except ConnectionResetError:
        complete = False
    return Sent(response, complete)


def connected(request: web.Request) -> bool:
    """Whether the client is there; asked right before the last write, because it may leave right after it."""
    return request.transport is not None and not request.transport.is_closing()


async def serve(replay: Replay, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    runner = web.AppRunner(replay.app(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    bound = runner.addresses[0][1]
    print(json.dumps({"host": host, "port": bound, "base_url": f"http://{host}:{bound}/v1"}), flush=True)
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    await stop.wait()
    await runner.cleanup()


def parse_latency(value: str) -> float | Literal["recorded"]:
    """`recorded`, or seconds."""
    return "recorded" if value == "recorded" else float(value)


def main() -> None:
    """Read the command line, load the tables, serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay_upstream", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with prompts, outcomes and responses.parquet")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free port")
    parser.add_argument("--latency", type=parse_latency, default=0.0, help="seconds per reply, or 'recorded'")
    parser.add_argument("--latency-scale", type=float, default=1.0, help="factor on recorded latencies")
    parser.add_argument("--split-usage", action="store_true", help="report some tokens as cached and as reasoning")
    parser.add_argument("--delivered-log", type=Path, help="append one JSON line per reply that ended")
    args = parser.parse_args()
    try:
        recorded = recorded_answers.load(args.data)
    except FileNotFoundError as error:
        parser.error(str(error))
    log = args.delivered_log.open("a", encoding="utf-8") if args.delivered_log else None
    replay = Replay(recorded, Delivered(log), args.latency, args.latency_scale, args.split_usage)
    asyncio.run(serve(replay, args.host, args.port))


if __name__ == "__main__":
    main()
