"""Which drafted tokens an answer keeps, so that it is distributed as if each token had been drawn one by one.

A draft that was the drafter's only proposal is kept when it is the token that the answer itself chooses there: the
largest logit, or the draw by the number of its generator that this place would have used anyway. A draw gives that very
token with its probability p, and otherwise one of the rest, which is what rejection sampling asks for; and a greedy or a
seeded answer is the same, token for token, with and without drafts. A draft drawn from a distribution q is kept with
probability min(1, p / q), and else replaced by a draw from max(0, p - q) (Leviathan et al. 2023, arXiv 2211.17192; Chen
et al. 2023, arXiv 2302.01318); requests with a seed use the first rule here, too. When all drafts are kept, the row
behind them gives one more token for free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from local_engine.request import Request, Row, Sampled
from local_engine.sampler import Sampler
from local_engine.speculative.drafter import Draft


class Run(NamedTuple):
    """New tokens of one request, at least one: all but the last are accepted ones of its `drafted` drafts."""

    request: Request
    sampled: list[Sampled]
    drafted: int

    @property
    def accepted(self) -> int:
        """Drafts that the answer keeps."""
        return len(self.sampled) - 1


@dataclass(slots=True)
class _Group:
    """The rows of one request, from `first` on: behind its known tokens and behind each of its drafts."""

    rows: list[Row]
    first: int
    sampled: list[Sampled]

    @property
    def request(self) -> Request:
        return self.rows[0].request

    @property
    def drafts(self) -> tuple[int, ...]:
        return self.rows[-1].drafts

    @property
    def open(self) -> bool:
        """Whether all so far was as drafted, so that the next row counts as well."""
        kept = len(self.sampled)
        return kept < len(self.rows) and (not kept or self.sampled[-1].token == self.drafts[kept - 1])


def verify(
    logits: Tensor,
    rows: Sequence[Row],
    sampler: Sampler,
    drafts: Mapping[int, Draft] | None = None,
    likeliest: Sequence[int] | None = None,
) -> list[Run]:
    """The run of each request among `rows`; those of one request follow one another, `logits` [rows, vocab] float32.

    `drafts` by request id; those that are not here, or have no probabilities, count as their drafter's only proposal.
    `likeliest`, where it is known: the place of each row's largest logit.
    """
    if not any(row.drafts for row in rows):
        sampled = sampler.sample(logits, rows, likeliest)
        return [Run(row.request, [each], 0) for row, each in zip(rows, sampled, strict=True)]
    groups: list[_Group] = []
    for place, row in enumerate(rows):
        if row.drafts:
            groups[-1].rows.append(row)
        else:
            groups.append(_Group([row], place, []))
    _choose_greedy([group for group in groups if group.request.params.temperature == 0], logits, sampler, likeliest)
    drawn = [group for group in groups if group.request.params.temperature > 0]
    for group in drawn:
        weights = _weights(group, drafts or {})
        if weights is not None:
            _weigh(group, logits, weights, sampler)
    _draw([group for group in drawn if not group.sampled], logits, sampler)
    return [Run(group.request, group.sampled, len(group.drafts)) for group in groups]


def _choose_greedy(groups: Sequence[_Group], logits: Tensor, sampler: Sampler, likeliest: Sequence[int] | None) -> None:
    """All rows at once: choosing costs little, and uses up no random numbers."""
    rows = [row for group in groups for row in group.rows]
    places = [group.first + at for group in groups for at in range(len(group.rows))]
    known = None if likeliest is None else [likeliest[place] for place in places]
    chosen = iter(sampler.sample(_pick(logits, places), rows, known))
    for group in groups:
        mine = [next(chosen) for _ in group.rows]
        while group.open:
            group.sampled.append(mine[len(group.sampled)])


def _draw(groups: Sequence[_Group], logits: Tensor, sampler: Sampler) -> None:
    """Row by row, as shaping a distribution costs much and those behind the first rejection must draw nothing."""
    going = list(groups)
    while going:
        at = [len(group.sampled) for group in going]
        places = [group.first + place for group, place in zip(going, at, strict=True)]
        rows = [group.rows[place] for group, place in zip(going, at, strict=True)]
        for group, chosen in zip(going, sampler.sample(_pick(logits, places), rows), strict=True):
            group.sampled.append(chosen)
        going = [group for group in going if group.open]


def _weigh(group: _Group, logits: Tensor, weights: Tensor, sampler: Sampler) -> None:
    """Rejection sampling against `weights` [drafts, vocab], what the drafts were drawn from."""
    request = group.request
    while group.open:
        at = len(group.sampled)
        row, logit = group.rows[at], logits[group.first + at : group.first + at + 1]
        if at == len(group.drafts):
            group.sampled += sampler.sample(logit, [row])
            return
        target = sampler.probabilities(logit, [row])[0].double().cpu()
        token = _keep_or_replace(group.drafts[at], target, weights[at].double(), request, sampler)
        group.sampled += sampler.describe(logit, [row], [token])


def _keep_or_replace(token: int, target: Tensor, weights: Tensor, request: Request, sampler: Sampler) -> int:
    """`token`, drawn from `weights` [vocab], or one of what `target` [vocab] has more of: together as from `target`."""
    if sampler.uniform(request) * weights[token] < target[token]:
        return token
    rest = (target - weights).clamp_(min=0).cumsum(0)
    if not rest[-1]:  # equal up to rounding: then nothing was really rejected
        return token
    point = torch.nextafter(rest[-1], torch.zeros_like(rest[-1])).minimum(sampler.uniform(request) * rest[-1])
    return int(torch.searchsorted(rest, point, right=True))


def _weights(group: _Group, drafts: Mapping[int, Draft]) -> Tensor | None:
    """What its drafts were drawn from, if rejection sampling is to be used."""
    if not group.drafts or group.request.params.seed is not None:
        return None
    draft = drafts.get(group.request.id)
    return None if draft is None else draft.probabilities


def _pick(logits: Tensor, places: Sequence[int]) -> Tensor:
    return logits if len(places) == len(logits) else logits[list(places)]
