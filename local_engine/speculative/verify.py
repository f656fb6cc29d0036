"""Which drafted tokens an answer keeps, so that it is distributed as if each token had been drawn one by one.

Greedy answers keep the drafts that equal the largest logit, up to the first that does not. For drawn answers there are
two rules. A draft that was the drafter's only proposal is kept when the answer's own draw, with the number of its
generator that this place would have used anyway, gives that very token: this accepts it with its probability p and
otherwise leaves a draw from the rest, which is what rejection sampling asks for, and a seeded answer is the same token
for token with and without drafts. A draft drawn from a distribution q is kept with probability min(1, p / q), and else
replaced by a draw from max(0, p - q) (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318);
requests with a seed use the first rule here, too. When all are kept the row behind them gives one more token for free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from local_engine.request import Request, Row
from local_engine.sampler import Sampled, Sampler
from local_engine.speculative.drafter import Draft


@dataclass(frozen=True, slots=True)
class Run:
    """New tokens of one request, at least one: all but the last are accepted ones of its `drafted` drafts."""

    request: Request
    sampled: list[Sampled]
    drafted: int

    @property
    def accepted(self) -> int:
        """Drafts that the answer keeps."""
        return len(self.sampled) - 1


def verify(logits: Tensor, rows: Sequence[Row], drafts: Mapping[int, Draft], sampler: Sampler) -> list[Run]:
    """The run of each request among `rows`; those of one request follow one another, `logits` [rows, vocab] float32.

    `drafts` by request id; those that are not here, or were drawn greedily, count as their drafter's only proposal.
    """
    if not any(row.drafts for row in rows):
        return [Run(row.request, [each], 0) for row, each in zip(rows, sampler.sample(logits, rows), strict=True)]
    best: list[int] = logits.argmax(-1).tolist()
    runs: list[tuple[Request, int, int]] = []
    kept_rows: list[int] = []
    kept_tokens: list[int] = []
    first = 0
    for _, group in groupby(rows, key=lambda row: row.request.id):
        mine = list(group)
        last = first + len(mine)
        request, proposed = mine[-1].request, mine[-1].drafts
        if sampler.is_plain_greedy(request):
            tokens = _matching(best[first:last], proposed)
        else:
            tokens = _drawn(logits[first:last], mine, drafts.get(request.id), sampler)
        kept_rows += range(first, first + len(tokens))
        kept_tokens += tokens
        runs.append((request, len(tokens), len(proposed)))
        first = last
    described = iter(sampler.describe(logits[kept_rows], [rows[at] for at in kept_rows], kept_tokens))
    return [Run(request, [next(described) for _ in range(count)], drafted) for request, count, drafted in runs]


def _matching(best: Sequence[int], proposed: Sequence[int]) -> list[int]:
    """The tokens up to the first that was not proposed, that one included."""
    kept = 0
    while kept < len(proposed) and best[kept] == proposed[kept]:
        kept += 1
    return list(best[: kept + 1])


def _drawn(logits: Tensor, rows: Sequence[Row], draft: Draft | None, sampler: Sampler) -> list[int]:
    """Row by row, as shaping a distribution costs much and those behind the first rejection are not needed."""
    request, proposed = rows[-1].request, rows[-1].drafts
    weighed = draft is not None and draft.probabilities is not None and request.params.seed is None
    tokens: list[int] = []
    for at, row in enumerate(rows):
        target = sampler.probabilities(logits[at : at + 1], [row])[0]
        if at == len(proposed):
            tokens.append(sampler.draw(target, request))
        elif weighed and draft is not None and draft.probabilities is not None:
            tokens.append(_keep_or_replace(proposed[at], target, draft.probabilities[at], sampler, request))
        else:
            tokens.append(sampler.draw(target, request))
        if at < len(proposed) and tokens[-1] != proposed[at]:
            break
    return tokens


def _keep_or_replace(token: int, target: Tensor, proposal: Tensor, sampler: Sampler, request: Request) -> int:
    """`token`, drawn from `proposal` [vocab], or one from what `target` [vocab] has more of: together as from `target`."""
    target = target.double()
    proposal = proposal.double()
    chance = torch.rand((), dtype=torch.float64, generator=sampler.generator(request))
    if chance * proposal[token] < target[token]:
        return token
    rest = (target - proposal).clamp_(min=0)
    if not rest.any():  # equal up to rounding: then nothing can really be rejected
        return token
    return sampler.draw((rest / rest.sum()).float(), request)
