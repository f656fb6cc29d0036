"""A request inside the engine: what was asked, which tokens are known, how many of them are computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from local_engine.block_manager import BlockTable
from local_engine.errors import EngineError

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What its makers recommend for a model; used for what a request does not name."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when the answer ends. `top_k` 0 and `top_p` 1 mean off; `temperature` 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    ignore_eos: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """One running answer.

    `tokens` are known (prompt, then answer), the first `computed` of them are in the cache. The gap between the two is
    the work left: a long one is prefill, a gap of one is decode. `drafts` are proposals for what comes after the known
    tokens; a step may compute them along. `table` says where its keys and values lie, None while it waits. A lower
    `priority` goes first. Times are seconds on a monotonic clock; after `deadline` the request is ended.
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
    microjoules: int | None = None

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def gap(self) -> int:
        """Known tokens that are not computed yet."""
        return len(self.tokens) - self.computed

    @property
    def longest(self) -> int:
        """Tokens whose keys and values it may need at once; those of the last answer token are never read."""
        return self.prompt_tokens + self.params.max_tokens - 1

    @property
    def answer(self) -> list[int]:
        """The generated token ids."""
        return self.tokens[self.prompt_tokens :]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of logits: the next token of `request` if its known tokens were followed by `drafts`."""

    request: Request
    drafts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """What one step gave one request: whole text (may be empty), tokens counted, and how it ended if it did."""

    request: Request
    text: str
    tokens: int
    finish: FinishReason | None = None
    error: EngineError | None = None
