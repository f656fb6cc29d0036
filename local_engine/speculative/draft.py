"""A second, smaller model drafts: it answers a few tokens ahead, the target checks them in one step.

It runs on its own blocks, a bounded number of them, and is kept in step by comparing tokens: what it has computed of
drafts that were rejected is forgotten, what it has not seen is caught up with, a bounded part per call. A request for
which no blocks are left is answered without drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from local_engine.block_manager import BlockManager
from local_engine.errors import DraftModelUnfit
from local_engine.model_runner import ModelRunner
from local_engine.request import Request, SamplingParams
from local_engine.scheduler import Chunk
from local_engine.speculative.drafter import NO_DRAFT, Draft, Seen
from local_engine.tokenizer import Tokenizer

_CATCH_UP = 512  # tokens per call, over all requests
_WORTH_CATCHING_UP = 16  # unseen tokens per token still to come: beyond, the answer ends before it pays
_CANDIDATES = 64  # likeliest tokens a draft is drawn from: cutting the rest is cheap and changes no answer


@dataclass(slots=True)
class _Shadow:
    """What the draft model knows of a request: `request` is its own, `confirmed` tokens of it are known to be right."""

    request: Request
    confirmed: int = 0
    drawn: list[int] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    hope: float = 1.0
    wanted: int = 0


class ModelDrafter:
    """Drafts with a small decoder of the target's vocabulary; greedy requests greedily, others by drawing."""

    taps: tuple[int, ...] = ()
    costly = True
    kind = "draft"

    def __init__(self, runner: ModelRunner, max_context: int) -> None:
        self._runner = runner
        self._max_context = max_context
        self._blocks = BlockManager(runner.pool.blocks, runner.pool.block_size, share=False)
        self._shadows: dict[int, _Shadow] = {}  # least recently used first
        self._generator = torch.Generator()
        self._generator.seed()

    def propose(self, requests: Sequence[Request], wanted: Sequence[int], least: float = 0.0) -> list[Draft]:
        """Drafts of up to `wanted` tokens; none for those the draft model is still catching up with."""
        shadows = [self._follow(request, count) for request, count in zip(requests, wanted, strict=True)]
        active = [shadow for shadow in shadows if shadow is not None and shadow.request.table is not None]
        budget = _CATCH_UP
        while active:
            chunks = []
            for shadow in active:
                own = shadow.request
                length = min(own.gap, budget if own.gap > 1 else 1)
                if length:
                    budget -= length - 1
                    chunks.append(Chunk(own, own.computed, length))
            active = self._compute(chunks, active, least)
        return [NO_DRAFT if shadow is None else _finished(shadow) for shadow in shadows]

    def observe(self, seen: Sequence[Seen]) -> None:
        """Needs nothing of the target but its tokens."""

    def forget(self, request: Request) -> None:
        """Give back what is held for the request."""
        shadow = self._shadows.pop(request.id, None)
        if shadow is not None and shadow.request.table is not None:
            self._blocks.release(shadow.request.table)
            shadow.request.table = None

    def check_integrity(self) -> None:
        """Raise AssertionError when blocks are lost."""
        tables = [shadow.request.table for shadow in self._shadows.values()]
        self._blocks.check_integrity([table for table in tables if table is not None])

    @property
    def followed(self) -> int:
        """Requests the draft model holds blocks for."""
        return len(self._shadows)

    def _follow(self, request: Request, wanted: int) -> _Shadow | None:
        """The request's shadow with the same tokens and room for drafts; None when it cannot or should not be followed."""
        if len(request.tokens) + wanted > self._max_context:
            return None
        shadow = self._shadows.pop(request.id, None)
        if shadow is None:
            unseen, left = len(request.tokens), request.params.max_tokens - request.answered
            if unseen > _CATCH_UP and unseen > _WORTH_CATCHING_UP * left:
                return None
            own = Request(request.id, list(request.tokens[: request.prompt_tokens]), request.params)
            own.table = self._blocks.begin([], None)
            shadow = _Shadow(own)
        self._shadows[request.id] = shadow  # now the most recently used
        own = shadow.request
        same = shadow.confirmed
        most = min(len(own.tokens), len(request.tokens))
        while same < most and own.tokens[same] == request.tokens[same]:
            same += 1
        own.tokens[same:] = request.tokens[same:]
        own.computed = min(own.computed, same, len(own.tokens) - 1)
        shadow.confirmed = len(own.tokens)
        shadow.drawn, shadow.weights, shadow.chances, shadow.hope, shadow.wanted = [], [], [], 1.0, wanted
        return shadow if self._make_room(shadow) else None

    def _make_room(self, shadow: _Shadow) -> bool:
        """Blocks for all its tokens and drafts, if need be those of the request that was drafted for longest ago."""
        table = shadow.request.table
        assert table is not None
        while not self._blocks.grow(table, len(shadow.request.tokens) + shadow.wanted):
            oldest = next(iter(self._shadows.values()))
            if oldest is shadow:
                self.forget(shadow.request)
                return False
            self.forget(oldest.request)
        return True

    def _compute(self, chunks: Sequence[Chunk], active: Sequence[_Shadow], least: float) -> list[_Shadow]:
        """One step of the draft model; returns those that go on drafting."""
        if not chunks:
            return []
        by_id = {shadow.request.id: shadow for shadow in active}
        computed = self._runner.run(chunks)
        for chunk in chunks:
            chunk.request.computed = chunk.start + chunk.length
        if not computed.rows:
            return []
        best = computed.logits.max(-1)
        normaliser = computed.logits.logsumexp(-1)
        confidence = [max(0.0, chance) for chance in (best.values - normaliser).exp().tolist()]  # NaN is none
        greedy: list[int] = best.indices.tolist()
        going = []
        for at, row in enumerate(computed.rows):
            shadow = by_id[row.request.id]
            if draws(row.request.params):
                weights = proposal_weights(computed.logits[at].cpu(), row.request.params.temperature)
                token = int(torch.multinomial(weights, 1, generator=self._generator))
                shadow.weights.append(weights)
            else:
                token = greedy[at]
                shadow.chances.append(confidence[at])
                shadow.hope *= confidence[at]
            shadow.drawn.append(token)
            row.request.tokens.append(token)
            if len(shadow.drawn) < shadow.wanted and shadow.hope > least:
                going.append(shadow)
        return going


def draws(params: SamplingParams) -> bool:
    """Whether to draw drafts: a greedy or a seeded answer can use only the likeliest token (see `verify`)."""
    return params.temperature > 0 and params.seed is None


def proposal_weights(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities [vocab] float32 a draft is drawn from, at the request's temperature, its likeliest tokens only."""
    kept, indices = logits.topk(min(_CANDIDATES, logits.numel()))
    return torch.zeros_like(logits).scatter(0, indices, (kept / temperature).softmax(0))


def check_vocabulary(target: Tokenizer, target_size: int, draft: Tokenizer, draft_size: int) -> None:
    """Raise DraftModelUnfit unless both models mean the same by every token id."""
    if target_size != draft_size:
        raise DraftModelUnfit(
            f"the draft model has {draft_size!r} tokens, the model {target_size!r}: take a draft model of the same family"
        )
    ours, theirs = target.vocabulary, draft.vocabulary
    if ours != theirs:
        token = min(name for name, _ in ours.items() ^ theirs.items())
        raise DraftModelUnfit(
            f"the draft model has another vocabulary: {token!r} is {theirs.get(token)!r} there and {ours.get(token)!r} in "
            "the model; take a draft model of the same family"
        )


def _finished(shadow: _Shadow) -> Draft:
    if not shadow.drawn:
        return NO_DRAFT
    weights = torch.stack(shadow.weights) if shadow.weights else None
    return Draft(tuple(shadow.drawn), weights, "draft", tuple(shadow.chances) or None)
