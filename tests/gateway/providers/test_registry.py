"""Which provider serves which model, and what a missing engine, a wrong script or a wrong order of calls says."""

from __future__ import annotations

import pytest

from gateway.errors import ConfigError, ProviderUnreachable
from gateway.providers.base import Call
from gateway.providers.registry import build_providers
from gateway.providers.script import Script
from gateway.providers.scripted_server import ScriptedServer, serving
from tests.builders import catalog, model

BODY = {"messages": [{"role": "user", "content": "hello"}]}


async def test_external_self_hosted_bundled_and_scripted_models_are_each_asked_where_they_are() -> None:
    server = ScriptedServer(
        {"up": Script(reply="over http"), "own": Script(reply="engine"), "b": Script(reply="bundled")}
    )
    async with serving(server) as port:
        url = f"http://127.0.0.1:{port}/v1"
        made = catalog(
            model("a", provider="openai", base_url=url, model="up"),
            model("own", engine=url),
            model("b", engine="bundled", weights="any"),
            model("s", script={"reply": "in process"}),
        )
        providers = build_providers(made, engine_url=f"{url}/")
        await providers.open()
        await providers.open()
        texts = []
        for entry in made.models:
            completion = await providers.for_model(entry).complete(Call(entry, BODY, "r"))
            texts.append(completion.payload["choices"][0]["message"]["content"])
        await providers.close()
        await providers.close()
    assert texts == ["over http", "engine", "bundled", "in process"]


async def test_without_an_engine_a_bundled_model_says_how_to_start_it() -> None:
    made = catalog(model("b", engine="bundled", weights="any"))
    providers = build_providers(made, engine_url=None)
    provider = providers.for_model(made.models[0])
    for attempt in (
        provider.complete(Call(made.models[0], BODY, "r")),
        provider.stream(Call(made.models[0], BODY, "r"), include_usage=False),
    ):
        with pytest.raises(
            ProviderUnreachable, match="bundled engine, which is not running; start it with `penstock up`"
        ):
            await attempt
    await providers.close()


def test_a_wrong_script_names_the_model() -> None:
    made = catalog(model("ok"), model("bad", script={"replay": "x"}))
    with pytest.raises(ConfigError, match=r"models\.1 \(bad\): script\.replay'; did you mean 'reply'"):
        build_providers(made, engine_url=None)


async def test_a_call_before_open_or_after_close_is_a_programming_error() -> None:
    made = catalog(model("a", provider="openai", base_url="http://127.0.0.1:9/v1"))
    providers = build_providers(made, engine_url=None)
    call = Call(made.models[0], BODY, "r")
    with pytest.raises(RuntimeError, match="not open"):
        await providers.for_model(made.models[0]).complete(call)
    await providers.open()
    await providers.close()
    with pytest.raises(RuntimeError, match="not open"):
        await providers.for_model(made.models[0]).complete(call)


def test_nothing_that_holds_the_key_shows_it() -> None:
    made = catalog(model("a", provider="openai", base_url="http://127.0.0.1:9/v1", api_key="sk-secret-key-1"))
    providers = build_providers(made, engine_url=None)
    provider = providers.for_model(made.models[0])
    endpoint = provider._make_endpoint(made.models[0])  # type: ignore[attr-defined]
    assert "Bearer" in endpoint.headers["authorization"]
    assert "secret" not in f"{endpoint!r} {made.models[0]!r} {made!r} {Call(made.models[0], BODY, 'r')!r}"
