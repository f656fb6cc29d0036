"""The most a request can cost, known before it is sent: an upper bound of its tokens at the dearest rate they can get (pure).

Text: no tokenizer makes more tokens than the text has UTF-8 bytes (byte-level vocabularies fall back to single bytes), so
bytes are the bound, plus a constant per message part for what chat templates add. Images, audio and files come with a
constant rule each, because their tokens do not follow from their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.catalog import Model
from gateway.money import amount_for
from gateway.types import PriceList
from gateway.value import value

TOKENS_PER_REQUEST = 64
TOKENS_PER_PART = 8
TOKENS_PER_IMAGE = 3_000
CHARACTERS_PER_AUDIO_TOKEN = 100
"""Base64 text of input audio: 16 kbit/s speech at 25 tokens a second is about 107 characters per token."""

MAX_AMOUNT = 2**63 - 1
"""What a 64-bit column holds, 9.2 million USD; no request costs that much."""

_PROMPT_KEYS = ("messages", "prompt", "input", "instructions", "tools", "functions", "response_format", "text")


@value
class Estimate:
    """Upper bounds of one request: tokens in, tokens out (reasoning included), pico-USD (at most MAX_AMOUNT)."""

    input_tokens: int
    output_tokens: int
    amount: int

    @property
    def tokens(self) -> int:
        """What a tokens-per-minute limit is asked for."""
        return self.input_tokens + self.output_tokens


@value
class OutputAsked:
    """What a request says of its replies: limits of tokens (any number of them), how many choices, and whether as audio."""

    limits: tuple[int, ...]
    choices: int
    audio: bool


@dataclass(slots=True)
class PromptSize:
    """Upper bounds of a prompt's tokens by kind. Text is in bytes, which no tokenizer exceeds."""

    text: int = TOKENS_PER_REQUEST
    images: int = 0
    audio: int = 0


def measure_prompt(body: Mapping[str, Any]) -> PromptSize:
    """The size of a request's prompt, tools and schema included; linear in its length, so measure once per request."""
    return _measure([body[key] for key in _PROMPT_KEYS if key in body])


def read_output(body: Mapping[str, Any]) -> OutputAsked:
    """What the request says of its replies; the same for every model, so read it once."""
    modalities = body.get("modalities")
    audio = isinstance(modalities, list) and "audio" in modalities
    return OutputAsked(tuple(_output_limits(body)), choices_of(body), audio)


def worst_case(
    body: Mapping[str, Any],
    model: Model,
    price: PriceList,
    prompt: PromptSize | None = None,
    *,
    asked: OutputAsked | None = None,
    strict: bool = False,
    likely: int | None = None,
) -> Estimate:
    """Bound one call of `body` to `model`; `prompt` is its measure and `asked` what it says of replies, when known before.

    `max_completion_tokens` or `max_tokens` (times `n`) bounds the output, else `model.max_output`; a known context bounds
    both. A GPU-time price is held for the model's total deadline. `strict` says that the bound is to be kept even by an
    upstream that goes on as long as it is allowed to: without a limit that can be sent to it (see `limit_to_send`) the
    output is bounded by the context alone. `likely` is how long a reply probably is, when that is enough for the caller.
    """
    prompt = prompt or measure_prompt(body)
    asked = asked or read_output(body)
    limits = asked.limits
    # With two limits nobody knows which one the upstream reads, so the larger one counts.
    output = max(limits) if limits else model.max_output
    if not limits and strict and model.context is not None and limit_to_send(body, model, prompt) is None:
        output = model.context
    if likely is not None:
        output = min(output, likely)
    text = prompt.text
    if model.context is not None:
        text = min(text, model.context)
        output = min(output, model.context)
    output *= asked.choices
    rates, written = price.rates, price.dearest_output
    if asked.audio:
        written = max(written, rates["audio_output"])
    amount = amount_for(text, price.dearest_input) + amount_for(output, written)
    if prompt.images or prompt.audio:
        amount += amount_for(prompt.images, rates["image_input"]) + amount_for(prompt.audio, rates["audio_input"])
    if rates["gpu_seconds"]:
        amount += amount_for(int(model.deadlines.total * 1e6), rates["gpu_seconds"])
    return Estimate(text + prompt.images + prompt.audio, output, min(amount, MAX_AMOUNT))


def limit_to_send(body: Mapping[str, Any], model: Model, prompt: PromptSize) -> tuple[str, int] | None:
    """The field and value that make an upstream keep to `model.max_output`, for a request that names no limit itself.

    OpenAI's API calls it `max_completion_tokens` and its newer models refuse the older name; other servers all know
    `max_tokens`. Servers refuse a limit that does not fit beside the prompt, so near the end of the context (by the
    cautious count of two bytes per token) none is sent, and the context is the bound.
    """
    if _output_limits(body):
        return None
    if model.context is not None and prompt.text // 2 + prompt.images + prompt.audio + model.max_output > model.context:
        return None
    return ("max_completion_tokens" if model.provider == "openai" else "max_tokens"), model.max_output


def choices_of(body: Mapping[str, Any]) -> int:
    """How many replies a request asks for."""
    return max(_positive(body, "n", "best_of"), default=1)


def _output_limits(body: Mapping[str, Any]) -> list[int]:
    return _positive(body, "max_completion_tokens", "max_output_tokens", "max_tokens")


def _positive(body: Mapping[str, Any], *names: str) -> list[int]:
    """The values of these keys that are positive whole numbers; others count as not given."""
    return [given for name in names if isinstance(given := body.get(name), int) and given > 0 and given is not True]


def _measure(parts: list[Any]) -> PromptSize:
    """Walk the prompt without recursion (clients choose its depth): every text and every key counts its bytes."""
    prompt = PromptSize()
    waiting = parts
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            prompt.text += len(part) if part.isascii() else len(part.encode("utf-8", "replace"))
        elif isinstance(part, dict):
            prompt.text += TOKENS_PER_PART
            if not _media(part, prompt):
                prompt.text += sum(map(len, part)) if all(map(str.isascii, part)) else len("".join(part).encode())
                waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
        elif part is not None:
            prompt.text += TOKENS_PER_PART
    return prompt


def _media(part: dict[str, Any], prompt: PromptSize) -> bool:
    kind = part.get("type")
    if kind in ("image_url", "input_image", "image"):
        prompt.images += TOKENS_PER_IMAGE
        return True
    if kind == "input_audio":
        audio = part.get("input_audio")
        data = audio.get("data") if isinstance(audio, dict) else None
        prompt.audio += len(data) // CHARACTERS_PER_AUDIO_TOKEN + 1 if isinstance(data, str) else TOKENS_PER_IMAGE
        return True
    return False
