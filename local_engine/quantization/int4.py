"""Weights as 4 bits in groups of 32 columns, each with its own scale and minimum; what GGUF's Q4_1 is, kept losslessly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from local_engine.errors import CannotQuantize

GROUP = 32
"""Columns that share a scale and a minimum."""


@dataclass(frozen=True, slots=True)
class Int4Rows:
    """w = scale * q + minimum, q in 0..15.

    `packed` uint8 [rows, columns / 2]: the low nibble is the even column. `scale` and `minimum` float16
    [rows, columns / GROUP].
    """

    packed: Tensor
    scale: Tensor
    minimum: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape of the weights they stand for."""
        return torch.Size((self.packed.shape[0], self.packed.shape[1] * 2))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights as floats [rows, columns]."""
        rows, groups = self.scale.shape
        values = torch.stack((self.packed & 15, self.packed >> 4), dim=-1).view(rows, groups, GROUP).to(dtype)
        scale, minimum = self.scale.to(dtype)[..., None], self.minimum.to(dtype)[..., None]
        return torch.addcmul(minimum, values, scale).view(rows, -1)


class Int4Linear(nn.Module):
    """[tokens, columns] to [tokens, rows] by 4-bit weights: buffers `packed`, `scale`, `minimum` as in `Int4Rows`."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        super().__init__()
        check_columns(columns)
        self.rows, self.columns = rows, columns
        self.packed: Tensor
        self.scale: Tensor
        self.minimum: Tensor
        groups = (rows, columns // GROUP)
        self.register_buffer("packed", torch.empty(rows, columns // 2, dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.empty(groups, dtype=torch.float16, device=device))
        self.register_buffer("minimum", torch.empty(groups, dtype=torch.float16, device=device))

    @classmethod
    def from_weight(cls, weight: Tensor) -> Int4Linear:
        """From floats [rows, columns], on their device. Raises CannotQuantize when columns are no multiple of GROUP."""
        module = cls(weight.shape[0], weight.shape[1], weight.device)
        module.put(0, weight)
        return module

    def put(self, first: int, weight: Tensor) -> None:
        """Quantise floats [n, columns] into the rows from `first` on."""
        self.keep(first, quantize_groups(weight.to(self.packed.device)))

    def keep(self, first: int, rows: Int4Rows) -> None:
        """Store n rows that are 4-bit already from `first` on."""
        last = first + rows.packed.shape[0]
        self.packed[first:last], self.scale[first:last], self.minimum[first:last] = (
            rows.packed,
            rows.scale,
            rows.minimum,
        )

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights as floats [rows, columns]."""
        return Int4Rows(self.packed, self.scale, self.minimum).dequantize(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of `x`."""
        return linear(x, self.dequantize(x.dtype))


def check_columns(columns: int) -> None:
    """Raise CannotQuantize for rows that groups do not fill."""
    if columns % GROUP:
        raise CannotQuantize(
            f"a matrix with {columns} columns cannot be int4: {columns} is no multiple of the group of {GROUP}; "
            "use int8 for this model"
        )


def quantize_groups(values: Tensor) -> Int4Rows:
    """The nearest 4-bit values of floats [rows, columns], group by group."""
    rows, columns = values.shape
    check_columns(columns)
    grouped = values.float().view(rows, columns // GROUP, GROUP)
    low, high = grouped.aminmax(dim=-1)
    scale, minimum = ((high - low) / 15).half(), low.half()
    if not (scale.isfinite().all() and minimum.isfinite().all()):
        raise CannotQuantize(
            f"weights up to {values.abs().max().item():g} cannot be int4: scales are float16, at most 65504"
        )
    return pack(nearest(grouped, scale, minimum), scale, minimum)


def nearest(grouped: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """The best q in 0..15, uint8 [rows, groups, GROUP], for given scales and minima [rows, groups]."""
    wide = scale.float()
    inverse = torch.where(wide > 0, 1.0 / wide, 0.0)
    return ((grouped - minimum.float()[..., None]) * inverse[..., None]).round_().clamp_(0, 15).to(torch.uint8)


def pack(values: Tensor, scale: Tensor, minimum: Tensor) -> Int4Rows:
    """Two values of uint8 [rows, groups, GROUP] per byte."""
    pairs = values.view(values.shape[0], -1, 2)
    return Int4Rows(pairs[..., 0] | (pairs[..., 1] << 4), scale, minimum)
