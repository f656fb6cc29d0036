"""4-bit weights chosen for what a text asks of them: each column's rounding error is taken up by the columns after it.

GPTQ (Frantar et al. 2022, arXiv 2210.17323): of all weights on the grid those are sought that change the products with the
text's activations least, not those nearest to the original ones. Columns that the text uses most go first; scales and
minima are those of the groups before anything was moved, so that any order is possible and files hold nothing new.
"""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.quantization.int4 import GROUP, Int4Rows, nearest, pack

_DAMPING = 0.01  # of the mean of the diagonal, added to it: what the text hardly uses shall not be moved far
_BLOCK = 128  # columns whose errors reach the later ones together
_SHARES = (1.0, 0.97, 0.94, 0.9, 0.86, 0.82, 0.78)  # of a group's range that are tried
_SIDES = (0.0, 0.5, 1.0)  # of what is cut off, the part that is cut off below


def choose_groups(weight: Tensor, products: Tensor) -> Int4Rows:
    """4-bit values of floats [rows, columns], for activations x whose x^T x, summed over a text, is `products`
    [columns, columns] float32.
    """
    rows, columns = weight.shape
    weight = weight.float()
    products = products.clone()
    unused = products.diagonal() == 0
    products[unused, unused] = 1.0
    scale, minimum = _grid(weight, products.diagonal())
    order = products.diagonal().argsort(descending=True, stable=True)
    values = torch.empty(rows, columns, dtype=torch.uint8, device=weight.device)
    values[:, order] = _round_in_order(
        weight[:, order],
        scale.float().repeat_interleave(GROUP, dim=1)[:, order],
        minimum.float().repeat_interleave(GROUP, dim=1)[:, order],
        _propagation(products[order][:, order]),
    )
    return pack(values.view(rows, -1, GROUP), scale, minimum)


def _grid(weight: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and minimum [rows, groups] float16 of least squared error, columns weighed by `importance` [columns]."""
    grouped = weight.view(weight.shape[0], -1, GROUP)
    weights = importance.view(1, -1, GROUP)
    low, high = grouped.aminmax(dim=-1)
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for share in _SHARES:
        for side in _SIDES if share < 1 else (0.0,):
            scale = ((high - low) * share / 15).half()
            minimum = (low + (high - low) * (1 - share) * side).half()
            values = nearest(grouped, scale, minimum).float()
            kept = torch.addcmul(minimum.float()[..., None], values, scale.float()[..., None])
            error = ((kept - grouped).square_() * weights).sum(-1)
            if best is None:
                best = error, scale, minimum
            else:
                better = error < best[0]
                pairs = zip((error, scale, minimum), best, strict=True)
                best = tuple(torch.where(better, new, old) for new, old in pairs)  # type: ignore[assignment]
    assert best is not None
    return best[1], best[2]


def _propagation(products: Tensor) -> Tensor:
    """How a column's error is spread over the later ones: the upper Cholesky factor of the inverse, float32."""
    damped = products.double()
    damped.diagonal().add_(_DAMPING * damped.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    spread: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return spread


def _round_in_order(weight: Tensor, scale: Tensor, minimum: Tensor, spread: Tensor) -> Tensor:
    """The values 0..15, uint8 [rows, columns]; `weight` is used up."""
    columns = weight.shape[1]
    inverse = torch.where(scale > 0, 1.0 / scale, 0.0)
    values = torch.empty_like(weight, dtype=torch.uint8)
    for first in range(0, columns, _BLOCK):
        last = min(first + _BLOCK, columns)
        errors = torch.empty(weight.shape[0], last - first, device=weight.device)
        for column in range(first, last):
            wanted, low, step = weight[:, column], minimum[:, column], scale[:, column]
            chosen = ((wanted - low) * inverse[:, column]).round_().clamp_(0, 15)
            values[:, column] = chosen.to(torch.uint8)
            error = (wanted - torch.addcmul(low, chosen, step)) / spread[column, column]
            weight[:, column + 1 : last] -= error[:, None] * spread[column, column + 1 : last]
            errors[:, column - first] = error
        weight[:, last:] -= errors @ spread[first:last, last:]
    return values
