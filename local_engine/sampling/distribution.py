"""Temperature, top-k, top-p and min-p, and the draw, for all rows of a step at once.

What a row gets depends on that row alone: rows are only put together with others that take the same path. Cut rows look at
their 128 most likely tokens first, which a cut rarely leaves; those whose cut reaches further look again.
`shape_distribution` is the plain path for one row, the reference of the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.request import SamplingParams

LOOKS = (128, 2048)
"""So many likeliest tokens are looked at, before all of them are."""
_BLOCK = 128
_LEAST_TOP_P = 1e-6  # top_p 0 keeps the most likely token


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that took one path: their places, `weights` [rows, n] not normalised, and the tokens these are for (None: all)."""

    places: list[int]
    weights: Tensor
    ids: Tensor | None


def shape_distribution(logits: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities [vocab] of one row after temperature, top-k, top-p and min-p; not renormalised after the cuts.

    Top-p keeps the smallest set of most likely tokens whose mass reaches `top_p` (Holtzman et al. 2019, arXiv 1904.09751),
    min-p those at least `min_p` times as likely as the most likely one (Nguyen et al. 2024, arXiv 2407.01082).
    """
    if 0 < params.top_k < logits.numel():
        kept, indices = logits.topk(params.top_k)
        logits = torch.full_like(logits, -torch.inf).scatter(0, indices, kept)
    probabilities = (logits / params.temperature).softmax(0)
    if params.top_p < 1:
        ordered, indices = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        probabilities = probabilities.scatter(0, indices, ordered.where(before < max(params.top_p, _LEAST_TOP_P), 0.0))
    return probabilities.where(probabilities >= params.min_p * probabilities.max(), 0.0)


def shape_rows(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Probabilities [rows, vocab] float32, each row summing to 1. `logits` [rows, vocab]; every temperature above 0."""
    shaped = torch.empty_like(logits, dtype=torch.float32)
    for part in _parts(logits, params):
        weights = part.weights / part.weights.sum(-1, keepdim=True)
        if part.ids is not None:
            weights = torch.zeros(len(part.places), logits.shape[-1], device=logits.device).scatter_(
                -1, part.ids, weights
            )
        shaped[part.places] = weights
    return shaped


def draw_rows(logits: Tensor, params: Sequence[SamplingParams], points: Tensor) -> Tensor:
    """One token per row [rows] int64: where its point (float64, 0 to below 1) falls in the row's cumulative distribution."""
    drawn = torch.empty(len(params), dtype=torch.int64, device=logits.device)
    for part in _parts(logits, params):
        weights, ids = part.weights, part.ids
        if ids is not None:  # in the vocabulary's order, as a draw from all probabilities would be
            ids, order = ids.sort(-1)
            weights = weights.gather(-1, order)
        index = _pick(weights, points[part.places])
        drawn[part.places] = index if ids is None else ids.gather(-1, index[:, None])[:, 0]
    return drawn


def draw_from(probabilities: Tensor, point: Tensor) -> int:
    """The token of one row of probabilities [vocab] where the point falls, as `draw_rows` picks it."""
    return int(_pick(probabilities[None], point.to(probabilities.device)[None])[0])


def _pick(weights: Tensor, points: Tensor) -> Tensor:
    """Index [rows] of the first cumulative weight beyond the point, never one of weight 0; `points` are parts of the whole.

    First the block of tokens is found, then the token in it: a running sum over the whole vocabulary costs ten times as much.
    """
    rows, width = weights.shape
    if width <= _BLOCK:
        return _first_beyond(weights.cumsum(-1, dtype=torch.float64), points, share=True)[:, 0]
    if width % _BLOCK:
        weights = torch.nn.functional.pad(weights, (0, _BLOCK - width % _BLOCK))
    blocks = weights.view(rows, -1, _BLOCK)
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    block = _first_beyond(ends, points, share=True)
    before = torch.nn.functional.pad(ends, (1, 0)).gather(-1, block)[:, 0]
    inside = blocks[torch.arange(rows, device=weights.device), block[:, 0]].cumsum(-1, dtype=torch.float64)
    return (block * _BLOCK + _first_beyond(inside, points * ends[:, -1] - before, share=False))[:, 0]


def _first_beyond(cumulative: Tensor, points: Tensor, *, share: bool) -> Tensor:
    """Index [rows, 1] of the first value above the point (a share of the last value, if `share`), whatever was rounded."""
    last = cumulative[:, -1]
    target = torch.minimum(points * last if share else points, torch.nextafter(last, torch.zeros_like(last)))
    return torch.searchsorted(cumulative, target[:, None], right=True)


def _parts(logits: Tensor, params: Sequence[SamplingParams]) -> Iterator[_Part]:
    vocabulary = logits.shape[-1]
    whole = [place for place, each in enumerate(params) if not _is_cut(each, vocabulary)]
    if whole:
        yield _Part(whole, _probabilities(logits, whole, params), None)
    cut = [place for place, each in enumerate(params) if _is_cut(each, vocabulary)]
    probabilities = _probabilities(logits, cut, params) if cut else logits
    for width in (*LOOKS, vocabulary):
        if not cut:
            return
        part, complete = _cut(probabilities, cut, params, width)
        if bool(complete.all()):
            yield part
            return
        done = complete.nonzero()[:, 0]
        if len(done):
            yield _Part([cut[place] for place in done.tolist()], part.weights[done], _ids(part)[done])
        rest = (~complete).nonzero()[:, 0]
        cut, probabilities = [cut[place] for place in rest.tolist()], probabilities[rest]


def _is_cut(params: SamplingParams, vocabulary: int) -> bool:
    return 0 < params.top_k < vocabulary or params.top_p < 1 or params.min_p > 0


def _probabilities(logits: Tensor, places: list[int], params: Sequence[SamplingParams]) -> Tensor:
    rows = logits if len(places) == len(params) else logits[places]
    temperature = _column([params[place].temperature for place in places], rows)
    return torch.softmax(rows / temperature, -1)


def _cut(
    probabilities: Tensor, places: list[int], params: Sequence[SamplingParams], width: int
) -> tuple[_Part, Tensor]:
    """What is left of the `width` most likely tokens, and for which rows [rows] that is all that is left."""
    vocabulary = probabilities.shape[-1]
    width = min(width, vocabulary)
    weights, ids = probabilities.topk(width) if width < vocabulary else probabilities.sort(-1, descending=True)
    top_k = _column([params[place].top_k or vocabulary for place in places], probabilities).clamp(max=vocabulary)
    weights = weights.where(torch.arange(width, device=weights.device) < top_k, 0.0)
    cumulative = weights.cumsum(-1)
    total = cumulative[:, -1:].where(top_k <= width, 1.0)
    reach = _column([max(params[place].top_p, _LEAST_TOP_P) for place in places], probabilities)
    floor = _column([params[place].min_p for place in places], probabilities) * weights[:, :1]
    kept = weights.where((weights >= floor) & ((cumulative - weights < reach * total) | (reach >= 1)), 0.0)
    complete = (top_k <= width) | ((reach < 1) & (cumulative[:, -1:] >= reach)) | (weights[:, -1:] < floor)
    return _Part(places, kept, ids), complete[
        :, 0
    ]  # top_k is at most the vocabulary: with all of it every row is complete


def _ids(part: _Part) -> Tensor:
    assert part.ids is not None
    return part.ids


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
