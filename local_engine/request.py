"""A request inside the engine: what was asked, which tokens are known, how many of them are computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from local_engine.block_manager import BlockTable
from local_engine.errors import EngineError
from local_engine.structured.guide import Guide

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What its makers recommend for a model; used for what a request does not name."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when the answer ends.

    `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 mean off; `temperature` 0 is greedy. `logit_bias` adds to the
    logits of tokens. `logprobs` None: none are wanted; a number: of the chosen token and of so many likeliest ones. `markup`:
    the text shows the tokens that mark thoughts and tool calls.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    ignore_eos: bool = False
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    markup: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """One running answer.

    `tokens` are known (prompt, then answer), the first `computed` of them are in the cache. The gap between the two is
    the work left: a long one is prefill, a gap of one is decode. `drafts` are proposals for what comes after the known
    tokens; a step may compute them along. `table` says where its keys and values lie, None while it waits. A lower
    `priority` goes first. Times are seconds on a monotonic clock; after `deadline` the request is ended. `guide` says which
    tokens may come next.
    `microjoules` is its part of the energy of its steps so far, None while nobody knows.
    """

    id: int
    tokens: list[int]
    params: SamplingParams
    prompt_tokens: int = field(init=False)
    cache_salt: str | None = None
    priority: int = 0
    deadline: float | None = None
    arrived: float = 0.0
    computed: int = 0
    drafts: list[int] = field(default_factory=list)
    table: BlockTable | None = None
    cached_tokens: int = 0
    preemptions: int = 0
    scheduled: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    guide: Guide | None = None
    microjoules: int | None = None

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def gap(self) -> int:
        """Known tokens that are not computed yet."""
        return len(self.tokens) - self.computed

    @property
    def answered(self) -> int:
        """Length of the answer so far, in tokens."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def longest(self) -> int:
        """Tokens whose keys and values it may need at once; those of the last answer token are never read."""
        return self.prompt_tokens + self.params.max_tokens - 1

    @property
    def answer(self) -> list[int]:
        """The generated token ids."""
        return self.tokens[self.prompt_tokens :]


class Row(NamedTuple):
    """A row of logits: the next token of `request` if its known tokens were followed by `drafts`."""

    request: Request
    drafts: tuple[int, ...] = ()


class Logprobs(NamedTuple):
    """Natural log probability of a token under the model's own distribution, and of the likeliest tokens there."""

    token: int
    value: float
    top: tuple[tuple[int, float], ...] = ()


class Sampled(NamedTuple):
    """The token chosen for a row, and its log probabilities if the request wants them."""

    token: int
    logprobs: Logprobs | None = None


class Output(NamedTuple):
    """What one step gave one request: whole text (may be empty), tokens counted, and how it ended if it did.

    `accepted_drafts` of the tokens were proposed before the step; `rejected_drafts` were proposed and are not among them.
    """

    request: Request
    text: str
    tokens: int
    finish: FinishReason | None = None
    error: EngineError | None = None
    accepted_drafts: int = 0
    rejected_drafts: int = 0
    logprobs: tuple[Logprobs, ...] = ()
    reasoning_tokens: int = 0
