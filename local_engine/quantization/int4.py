"""Weights as 4 bits in groups of 32 columns, each with its own scale and minimum; what GGUF's Q4_1 is, kept losslessly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from local_engine.errors import CannotQuantize

GROUP = 32
"""Columns that share a scale and a minimum."""

FEW_ROWS = 32
"""Up to so many rows of activations torch's 4-bit product beats unpacking the weights once and multiplying as floats."""

_RANGES = (1.0, 0.95)

_AT_ONCE = 1 << 22  # weights

_LANES = 16  # rows that torch's 4-bit product takes at once


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
        values = torch.stack((self.packed & 15, self.packed >> 4), dim=-1).view(rows, groups, GROUP).float()
        scale, minimum = self.scale.float()[..., None], self.minimum.float()[..., None]
        # Rounded once at the end: float16 scales rounded to bfloat16 would move whole groups.
        return torch.addcmul(minimum, values, scale).view(rows, -1).to(dtype)


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
        self._for_torch: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_weight(cls, weight: Tensor) -> Int4Linear:
        """From floats [rows, columns], on their device. Raises CannotQuantize when columns are no multiple of GROUP."""
        module = cls(weight.shape[0], weight.shape[1], weight.device)
        module.put(0, weight)
        return module

    def put(self, first: int, weight: Tensor) -> None:
        """Quantise floats [n, columns] into the rows from `first` on, a part at a time: fitting takes several copies."""
        step = max(1, _AT_ONCE // self.columns)
        for start in range(0, weight.shape[0], step):
            self.keep(first + start, quantize_groups(weight[start : start + step].to(self.packed.device)))

    def keep(self, first: int, rows: Int4Rows) -> None:
        """Store n rows that are 4-bit already from `first` on."""
        self._for_torch = None
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
        few = x.shape[0] <= FEW_ROWS and not x.is_cuda
        if few and x.dtype == torch.bfloat16 and self.rows % _LANES == 0:  # float32 is no faster there
            values, scales = self._repacked()
            return torch._weight_int4pack_mm_for_cpu(x.contiguous(), values, GROUP, scales)
        return linear(x, self.dequantize(x.dtype))

    def _repacked(self) -> tuple[Tensor, Tensor]:
        """The weights once more in the order torch's product reads, made when it is first needed.

        It computes (q - 8) * scale + zero in bfloat16, for which scales are rounded: a little less exact.
        """
        if self._for_torch is None:
            values = torch.stack((self.packed & 15, self.packed >> 4), dim=-1).view(self.rows, -1).to(torch.int32)
            scale = self.scale.float()
            scales = torch.stack((scale, self.minimum.float() + 8 * scale), dim=-1).transpose(0, 1).contiguous()
            self._for_torch = torch._convert_weight_to_int4pack_for_cpu(values, 1), scales.bfloat16()
        return self._for_torch


def check_columns(columns: int) -> None:
    """Raise CannotQuantize for rows that groups do not fill."""
    if columns % GROUP:
        raise CannotQuantize(
            f"a matrix with {columns} columns cannot be int4: {columns} is no multiple of the group of {GROUP}; "
            "use int8 for this model"
        )


def quantize_groups(values: Tensor) -> Int4Rows:
    """4-bit values of floats [rows, columns], group by group, with the scale and minimum of least squared error tried.

    The first are those of the group's range, which bring back exactly what was 4-bit before. The others are fitted to the
    values that ranges of `_RANGES` of it give (least squares): a seventh less squared error on weights as models have them.
    """
    rows, columns = values.shape
    check_columns(columns)
    grouped = values.float().view(rows, columns // GROUP, GROUP)
    low, high = grouped.aminmax(dim=-1)
    scale, minimum = ((high - low) / 15).half(), low.half()
    if not (scale.isfinite().all() and minimum.isfinite().all()):
        raise CannotQuantize(
            f"weights up to {values.abs().max().item():g} cannot be int4: scales are float16, at most 65504"
        )
    error = _squared_error(grouped, scale, minimum)
    for share in _RANGES:
        unused = (high - low) * (1 - share) / 2
        fitted = _fit(grouped, (high - low) * share / 15, low + unused)
        tried = _squared_error(grouped, *fitted)
        better = tried < error
        error = torch.where(better, tried, error)
        scale, minimum = torch.where(better, fitted[0], scale), torch.where(better, fitted[1], minimum)
    return pack(nearest(grouped, scale, minimum), scale, minimum)


def _fit(grouped: Tensor, scale: Tensor, minimum: Tensor) -> tuple[Tensor, Tensor]:
    """The float16 scale and minimum [rows, groups] that suit best the values which the given ones lead to."""
    taken = nearest(grouped, scale, minimum).float()
    middle, target = taken.mean(-1), grouped.mean(-1)
    spread = taken.square().mean(-1) - middle.square()
    slope = ((taken * grouped).mean(-1) - middle * target) / spread.clamp_min(1e-6)
    return slope.half(), (target - slope * middle).half()


def _squared_error(grouped: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """Of each group, [rows, groups]; NaN where a number is beyond float16."""
    kept = torch.addcmul(minimum.float()[..., None], nearest(grouped, scale, minimum).float(), scale.float()[..., None])
    return (kept - grouped).square_().sum(-1)


def nearest(grouped: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """The best q in 0..15, uint8 [rows, groups, GROUP], for given scales and minima [rows, groups]."""
    wide = scale.float()
    inverse = torch.where(wide > 0, 1.0 / wide, 0.0)
    return ((grouped - minimum.float()[..., None]) * inverse[..., None]).round_().clamp_(0, 15).to(torch.uint8)


def pack(values: Tensor, scale: Tensor, minimum: Tensor) -> Int4Rows:
    """Two values of uint8 [rows, groups, GROUP] per byte."""
    pairs = values.view(values.shape[0], -1, 2)
    return Int4Rows(pairs[..., 0] | (pairs[..., 1] << 4), scale, minimum)
