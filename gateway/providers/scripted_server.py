"""A scripted upstream as a real HTTP server, so that the fast path is tested over sockets; not for production.

    python -m gateway.providers.scripted_server --port 0 --script FILE_OR_JSON

The first line on standard output is {"port": N}. The script is one script for every model, or {"models": {name: script},
"default": script}; without a default an unknown model is OpenAI's 404. `GET /scripted/calls` tells what was delivered: a
reply counts once its last byte was written, one that the script or the client broke off counts as broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from aiohttp import web

from gateway.errors import ConfigError
from gateway.providers.script import Script, read_script
from gateway.providers.script_plan import Begin, Break, Delivered, Plan, Send, Wait, plan

MAX_BODY_BYTES = 64 * 2**20


@dataclass(slots=True)
class Tally:
    """What one model was asked and what it delivered, tokens as OpenAI counts them."""

    calls: int = 0
    completed: int = 0
    refused: int = 0
    broken: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0

    def add(self, delivered: Delivered) -> None:
        """One more complete reply."""
        self.completed += 1
        self.input_tokens += delivered.input
        self.output_tokens += delivered.output
        self.reasoning_tokens += delivered.reasoning
        self.cached_tokens += delivered.cached


@dataclass
class ScriptedServer:
    """The application and its counts."""

    scripts: Mapping[str, Script]
    default: Script | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/scripted/calls", self.calls)
        return app

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "scripted"} for name in self.scripts]
        return web.json_response({"object": "list", "data": data})

    async def calls(self, request: web.Request) -> web.Response:
        """`GET /scripted/calls`."""
        return web.json_response({"models": {name: asdict(tally) for name, tally in self.tallies.items()}})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`: play the model's script."""
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            return _error(400, "the body is not a JSON object", "invalid_json")
        model = str(body.get("model"))
        script = self.scripts.get(model, self.default)
        if script is None:
            return _error(404, f"the model {model!r} does not exist", "model_not_found")
        tally = self.tallies.setdefault(model, Tally())
        tally.calls += 1
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        return await self._play(request, plan(script, tally.calls, body, key), tally)

    async def _play(self, request: web.Request, made: Plan, tally: Tally) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        over = False
        try:
            for action in made.actions:
                match action:
                    case Wait(seconds):
                        await (asyncio.Event().wait() if seconds == float("inf") else asyncio.sleep(seconds))
                    case Begin():
                        response = await _begin(request, action)
                    case Send(data, repeat) if response is not None:
                        for _ in range(repeat):
                            await response.write(data)
                    case Break():
                        assert request.transport is not None
                        request.transport.close()
                        return response or web.Response()
            assert response is not None
            await response.write_eof()
            over = True
            if made.delivered is not None:
                tally.add(made.delivered)
            return response
        except ConnectionError:  # the client left, which the tally tells
            return response or web.Response()
        finally:
            if response is not None and response.status != 200:
                tally.refused += 1
            elif not over or made.delivered is None:
                tally.broken += 1


async def _begin(request: web.Request, begin: Begin) -> web.StreamResponse:
    response = web.StreamResponse(status=begin.status, headers={**begin.headers, "content-type": begin.content_type})
    if begin.length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = begin.length
    await response.prepare(request)
    return response


def _error(status: int, message: str, code: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


def read_server_script(text: str) -> ScriptedServer:
    """The server for a script given as JSON or as the path of a YAML or JSON file. Raises ConfigError."""
    where = "script"
    if not text.lstrip().startswith("{"):
        where = text
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read the script {where!r}: {error.strerror}.") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML or JSON: {error}") from error
    if isinstance(document, dict) and "models" in document and document.keys() <= {"models", "default"}:
        if not isinstance(document["models"], dict):
            raise ConfigError(f"{where}: `models` is {document['models']!r}: give a mapping of names to scripts.")
        scripts = {str(name): read_script(one, f"{where}: {name}") for name, one in document["models"].items()}
        default = read_script(document["default"], f"{where}: default") if "default" in document else None
        return ScriptedServer(scripts, default)
    return ScriptedServer({}, read_script(document, where))


@asynccontextmanager
async def serving(server: ScriptedServer, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve inside the running loop while the block runs; gives the port."""
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        address: Any = runner.addresses[0]
        yield address[1]
    finally:
        await runner.cleanup()


async def serve(server: ScriptedServer, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(server, host, port) as taken:
        print(json.dumps({"port": taken}), flush=True)
        await stop.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripted_server", description="A scripted OpenAI-compatible upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--script", default="{}", help="a JSON object, or the path of a YAML or JSON file")
    arguments = parser.parse_args()
    try:
        server = read_server_script(arguments.script)
    except ConfigError as error:
        parser.error(str(error))
    asyncio.run(serve(server, arguments.host, arguments.port))


if __name__ == "__main__":
    main()
