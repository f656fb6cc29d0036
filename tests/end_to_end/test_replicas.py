"""Two real engine processes behind one model of a gateway: conversations stay where they are cached, system prompts are shared,
and one may be killed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from gateway.providers.replicas import CALLS_PER_ENGINE
from tests.local_engine.serve_process import ServeProcess, serving
from tests.local_engine.tiny_models import write_hub_directory
from tests.running import KEY, Gateway, gateway

FREE: Any = {"input": 1, "output": 1}
TURNS = 4


@dataclass(frozen=True)
class Pair:
    """A gateway with the model `tiny` behind both engines."""

    gateway: Gateway
    engines: list[ServeProcess]
    urls: list[str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The last test kills an engine of it."""
    tmp_path = tmp_path_factory.mktemp("replicas")
    model = write_hub_directory(tmp_path / "model", seed=7, max_position_embeddings=4096)
    with ExitStack() as stack:
        arguments = ("--model", str(model), "--served-name", "tiny", "--port", "0", "--dtype", "float32")
        engines = [stack.enter_context(serving(*arguments, "--max-batch", "2")) for _ in range(2)]
        urls = [engine.wait_until_serving() + "/v1" for engine in engines]
        models = [{"name": "tiny", "tier": "economy", "engine": urls, "price": FREE, "retries": {"max": 0}}]
        config = {"models": models, "keys": [{"key": KEY, "name": "test"}]}
        yield Pair(stack.enter_context(gateway(tmp_path / "gateway", config)), engines, urls)


def conversation(number: int, turns: int) -> list[dict[str, str]]:
    """The same beginning however many turns it has."""
    talk = [{"role": "user", "content": f"{number} gates and {number * 7} turbines " * 4}]
    for turn in range(1, turns):
        talk += [{"role": "assistant", "content": "Water. " * 6}, {"role": "user", "content": f"And turn {turn}?"}]
    return talk


def test_conversations_stay_where_they_are_cached_and_energy_is_in_every_book(pair: Pair) -> None:
    turns = [(number, turn) for turn in range(1, TURNS + 1) for number in range(6)]
    with openai.OpenAI(base_url=pair.gateway.base_url, api_key=KEY, max_retries=0) as client:
        sticky, joules = 0, 0.0
        for number, turn in turns:
            raw = client.chat.completions.with_raw_response.create(
                model="tiny", messages=conversation(number, turn), max_tokens=2
            )
            usage = raw.parse().usage
            sticky += usage.prompt_tokens_details.cached_tokens
            said = usage.model_dump()["energy"]["joules"]
            joules += said
            assert float(raw.headers["x-penstock-energy-joules"]) == pytest.approx(said, abs=1e-6)
    alternating = 0
    for place, (number, turn) in enumerate(turns):
        body = {"model": "tiny", "messages": conversation(number, turn), "max_tokens": 2, "cache_salt": "by turns"}
        # Six conversations over two engines would always meet the same one; every second round starts at the other.
        url = pair.urls[(place + turn) % 2]
        usage = httpx.post(f"{url}/chat/completions", json=body).json()["usage"]
        alternating += usage["prompt_tokens_details"]["cached_tokens"]
    assert sticky > 1.5 * alternating, (sticky, alternating)
    used = pair.gateway.json("usage", "--group-by", "model")["total"]
    assert float(used["energy_joules"]) == pytest.approx(joules, abs=1e-3)
    assert float(used["co2e_grams"]) > 0
    assert used["energy_estimated"] is True
    assert pair.gateway.command("ledger", "verify").returncode == 0
    metrics = httpx.get(pair.gateway.url + "/metrics").text
    assert 'penstock_energy_joules_total{model="tiny"}' in metrics


def test_a_shared_system_prompt_is_read_once_while_few_ask_for_it_and_later_once_by_each_engine(pair: Pair) -> None:
    rules = {"role": "system", "content": "The gate decides how much water reaches the turbine. " * 45}
    cold = []
    with openai.OpenAI(base_url=pair.gateway.base_url, api_key=KEY, max_retries=0) as client:
        for number in range(3 * CALLS_PER_ENGINE):
            talk: Any = [rules, {"role": "user", "content": f"{number} drops?"}]
            usage = client.chat.completions.create(model="tiny", messages=talk, max_tokens=2).usage
            if usage.prompt_tokens_details.cached_tokens < 0.9 * usage.prompt_tokens:
                cold.append(number)
    assert cold[0] == 0
    assert len(cold) == 2, "each engine reads it once"
    assert cold[1] >= CALLS_PER_ENGINE


def test_no_request_that_had_not_begun_is_lost_when_an_engine_is_killed(pair: Pair) -> None:
    seen: list[tuple[bool, int, bool]] = []  # streamed, pieces, whole
    under_way = threading.Semaphore(0)
    order = random.Random(5)

    def ask(number: int) -> None:
        streamed = number % 2 == 0
        pieces, whole = 0, False
        asked: Any = {"model": "tiny", "messages": conversation(number, 1), "max_tokens": 40,
                      "extra_body": {"ignore_eos": True}}  # fmt: skip
        try:
            with openai.OpenAI(base_url=pair.gateway.base_url, api_key=KEY, max_retries=0, timeout=60) as client:
                if streamed:
                    for chunk in client.chat.completions.create(**asked, stream=True):
                        pieces += 1
                        under_way.release()
                        whole = whole or bool(chunk.choices and chunk.choices[0].finish_reason)
                else:
                    whole = client.chat.completions.create(**asked).choices[0].finish_reason == "length"
        except openai.APIError:
            pass
        seen.append((streamed, pieces, whole))

    numbers = list(range(30))
    order.shuffle(numbers)
    threads = [threading.Thread(target=ask, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for _ in range(60):  # tokens flow, and most requests still wait at their engine
        assert under_way.acquire(timeout=60)
    pair.engines[0].process.kill()
    for thread in threads:
        thread.join(120)
    assert len(seen) == 30
    lost = [each for each in seen if not each[2]]
    assert all(streamed and pieces for streamed, pieces, _ in lost), f"only answers under way may break off: {lost}"
    assert len(lost) <= 2, "the killed engine ran two at a time"
    with openai.OpenAI(base_url=pair.gateway.base_url, api_key=KEY, max_retries=0) as client:
        for number in range(8):
            reply = client.chat.completions.create(model="tiny", messages=conversation(number, 2), max_tokens=2)
            assert reply.usage.completion_tokens >= 1
