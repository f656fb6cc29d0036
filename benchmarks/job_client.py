"""The client side of the main job: the official openai client, eight requests at a time, half of them streamed."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai

from benchmarks.recorded_answers import Prompt

CONCURRENCY = 8
TIMEOUT_S = 120.0
# What a client sees of a gateway that is killed: a refused or broken connection, in a stream also the transport's own.
BROKEN = (openai.APIConnectionError, openai.APITimeoutError, httpx2.TransportError)


@dataclass(frozen=True)
class Finished:
    """One reply that reached the client whole. `cost_usd` is the header's text, None where a stream had not one."""

    prompt: Prompt
    streamed: bool
    request_id: str
    reply_id: str
    tier: str
    model: str
    text: str
    input_tokens: int
    output_tokens: int
    cost_usd: str | None
    seconds: float


@dataclass
class Arm:
    """One pass over the prompts with one `model` and one key; `min_quality` None leaves the floor to the policy."""

    name: str
    model: str
    min_quality: float | None = None
    finished: list[Finished] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Request ids of replies that broke off, empty where no header had arrived; each prompt was asked again."""


@dataclass(frozen=True)
class Signals:
    """Between the clients and whoever kills the gateway: `serving` is clear while it is down, and nobody asks then;
    `progress` gets the number of finished replies each time it grows.
    """

    serving: asyncio.Event
    progress: asyncio.Queue[int]


async def run_arm(arm: Arm, prompts: list[Prompt], base_url: str, key: str, signals: Signals) -> None:
    """Ask every prompt until each has one whole reply; one that breaks off is asked again. Another failure ends the job."""
    waiting = list(enumerate(prompts))[::-1]

    async def worker(client: openai.AsyncOpenAI) -> None:
        while waiting:
            place, prompt = waiting.pop()
            await signals.serving.wait()
            try:
                arm.finished.append(await ask(client, arm, prompt, streamed=place % 2 == 1))
            except BROKEN:
                waiting.append((place, prompt))
                await asyncio.sleep(0.05)
            else:
                signals.progress.put_nowait(len(arm.finished))

    async with (
        openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CONCURRENCY):
            group.create_task(worker(client))


async def ask(client: openai.AsyncOpenAI, arm: Arm, prompt: Prompt, streamed: bool) -> Finished:
    """One request. Raises one of BROKEN when the reply broke off, openai.APIStatusError when it was refused."""
    started = time.monotonic()
    messages: list[Any] = [{"role": "user", "content": prompt.text}]
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    if arm.min_quality is not None:
        more["extra_body"] = {"penstock": {"min_quality": arm.min_quality}}
    headers: Mapping[str, str] = {}
    text, reply_id, usage = "", "", None
    try:
        raw = await client.chat.completions.with_raw_response.create(model=arm.model, messages=messages, **more)
        headers = raw.headers
        if streamed:
            async for chunk in raw.parse():
                reply_id, usage = chunk.id, chunk.usage or usage
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
        else:
            reply = raw.parse()
            text, reply_id, usage = reply.choices[0].message.content or "", reply.id, reply.usage
    except BROKEN:
        arm.broken.append(headers.get("x-penstock-request-id", ""))
        raise
    if usage is None:
        raise RuntimeError(f"reply {reply_id!r} came without usage")
    return Finished(
        prompt=prompt,
        streamed=streamed,
        request_id=headers.get("x-penstock-request-id", ""),
        reply_id=reply_id,
        tier=headers.get("x-penstock-tier", ""),
        model=headers.get("x-penstock-model", ""),
        text=text,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cost_usd=headers.get("x-penstock-cost-usd"),
        seconds=time.monotonic() - started,
    )
