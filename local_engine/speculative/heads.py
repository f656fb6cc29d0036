"""Drafts with a trained head: a chain of tokens from the newest stream of the target, for all requests together.

What is kept per request is one row, the target's stream at its last computed token. Whatever happened to a request, whether
some drafts were refused, it was preempted, or its prompt was found in the cache: the step that computed that token brought
the row along. Without it, or when it is not the newest, a request gets no draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from local_engine.request import Request, SamplingParams
from local_engine.speculative.drafter import NO_DRAFT, Draft, Seen
from local_engine.speculative.head_model import DraftHead
from local_engine.speculative.native_head import native_head


@dataclass(slots=True, eq=False)
class _Chain:
    """A request's draft in the making; `generator` None is greedy."""

    request: Request
    wanted: int
    generator: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    hope: float = (
        1.0  # by the head's own lights, that all so far is right; drawn tokens must not decide how many are drawn
    )


class HeadDrafter:
    """`Drafter` by a `DraftHead`: its most likely tokens for greedy and seeded requests, tokens drawn for others."""

    costly = True
    kind = "head"

    def __init__(self, head: DraftHead) -> None:
        self.head = head
        self._native = native_head(head)
        self.taps = head.config.taps
        self._newest: dict[int, Seen] = {}

    def observe(self, seen: Sequence[Seen]) -> None:
        """Keep each request's newest row."""
        for each in seen:
            self._newest[each.request.id] = each

    def forget(self, request: Request) -> None:
        """Drop the request's row."""
        self._newest.pop(request.id, None)

    @property
    def owners(self) -> set[int]:
        """Ids of the requests whose row is kept."""
        return set(self._newest)

    @torch.inference_mode()
    def propose(self, requests: Sequence[Request], wanted: Sequence[int], least: float = 0.0) -> list[Draft]:
        """As `Drafter.propose`."""
        chains, streams = [], []
        for request, count in zip(requests, wanted, strict=True):
            newest = self._newest.get(request.id)
            if count > 0 and newest is not None and newest.position == len(request.tokens) - 2:
                chains.append(_Chain(request, count, _generator(request)))
                streams.append(newest.stream)
        if chains:
            self._draft(chains, torch.stack(streams), least)
        drafts = {chain.request.id: chain for chain in chains}
        return [self._draft_of(drafts[request.id]) if request.id in drafts else NO_DRAFT for request in requests]

    def _draft(self, chains: list[_Chain], streams: Tensor, least: float) -> None:
        if self._native is not None and all(chain.generator is None for chain in chains):
            last = [chain.request.tokens[-1] for chain in chains]
            depth = max(chain.wanted for chain in chains)
            drafted = self._native.draft(streams, last, depth, least)
            for chain, (tokens, chances) in zip(chains, drafted, strict=True):
                chain.tokens, chain.chances = tokens[: chain.wanted], chances[: chain.wanted]
            return
        newest = torch.tensor([chain.request.tokens[-1] for chain in chains], device=streams.device)
        state = self.head.advance(self.head.start(streams), newest)
        while True:
            places = self._choose(chains, self.head.logits(state))
            going = [at for at, chain in enumerate(chains) if len(chain.tokens) < chain.wanted and chain.hope >= least]
            if not going:
                return
            if len(going) < len(chains):
                kept = torch.tensor(going, device=state.device)
                chains, state, places = [chains[index] for index in going], state[kept], places[kept]
            state = self.head.advance_drafted(state, places)

    def _choose(self, chains: list[_Chain], logits: Tensor) -> Tensor:
        """Add a token to every chain; returns their places [n] in the drafted vocabulary."""
        best = logits.max(-1)
        places = best.indices
        sure = [
            max(0.0, chance) for chance in (best.values.float() - logits.float().logsumexp(-1)).exp().tolist()
        ]  # NaN is none
        for index, chain in enumerate(chains):
            if chain.generator is None:
                chain.chances.append(sure[index])
                chain.hope *= sure[index]
            else:
                shares = drafted_shares(logits[index].float().cpu(), chain.request.params)
                places[index] = torch.multinomial(shares, 1, generator=chain.generator)[0]
                chain.rows.append(shares)
        for chain, token in zip(chains, self.head.vocabulary[places].tolist(), strict=True):
            chain.tokens.append(token)
        return places

    def _draft_of(self, chain: _Chain) -> Draft:
        probabilities = None
        if chain.rows:
            probabilities = torch.zeros(len(chain.rows), self.head.embeddings.shape[0])
            probabilities[:, self.head.vocabulary.cpu()] = torch.stack(chain.rows)
        return Draft(tuple(chain.tokens), probabilities, self.kind, tuple(chain.chances) or None)


def drafted_shares(logits: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities [drafted] as the request's own temperature and cuts shape them; penalties are the verifier's business."""
    logits = logits / params.temperature
    if 0 < params.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
    shares = logits.softmax(0)
    if params.top_p < 1:
        ordered, order = shares.sort(descending=True, stable=True)
        kept = ordered.cumsum(0) - ordered < max(params.top_p, 1e-6)
        shares = torch.zeros_like(shares).scatter(0, order, ordered.where(kept, 0.0))
        shares = shares / shares.sum()
    return shares


def _generator(request: Request) -> torch.Generator | None:
    """None where the verifier only asks whether the token is the one: then the most likely one is the best guess."""
    if request.params.temperature == 0 or request.params.seed is not None:
        return None
    generator = torch.Generator()
    generator.seed()
    return generator
