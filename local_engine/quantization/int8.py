"""Weights as int8 with one scale per row, symmetric; activations stay floats unless they are many (see `Int8Linear`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

FEW_ROWS = 16
"""Up to so many rows of activations torch's int8 product beats unpacking the weights once and multiplying as floats."""


class Int8Linear(nn.Module):
    """[tokens, columns] to [tokens, rows] by `weight` int8 [rows, columns] times `scale` float32 [rows]."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.weight: Tensor
        self.scale: Tensor
        self.register_buffer("weight", torch.empty(rows, columns, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.empty(rows, dtype=torch.float32, device=device))

    @classmethod
    def from_weight(cls, weight: Tensor) -> Int8Linear:
        """From floats [rows, columns], on their device."""
        module = cls(weight.shape[0], weight.shape[1], weight.device)
        module.put(0, weight)
        return module

    def put(self, first: int, weight: Tensor) -> None:
        """Quantise floats [n, columns] into the rows from `first` on."""
        last = first + weight.shape[0]
        self.weight[first:last], self.scale[first:last] = quantize_rows(weight.to(self.weight.device))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights as floats [rows, columns]."""
        return self.weight.to(dtype) * self.scale.to(dtype)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of `x`."""
        # In bfloat16 torch's product reads 16 columns at a time, also behind the last one of a row that is no multiple.
        whole = self.columns % 16 == 0 or x.dtype != torch.bfloat16
        if x.shape[0] <= FEW_ROWS and not x.is_cuda and whole:
            return torch._weight_int8pack_mm(x.contiguous(), self.weight, self.scale.to(x.dtype))
        # Scaling the result instead of the weights saves a pass over them; the int8 values are exact in bfloat16.
        return linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Int8 values and float32 scales [rows] of [rows, columns], rounded to nearest; the largest of a row becomes 127 or 126.

    A scale is the next bfloat16 above: so it is the same number in every dtype a product may want it in. Rounded to
    nearest there it would move all of its row by up to 0.2 %, which costs more than the coarser grid.
    """
    wide = values.float()
    scale = round_up_to_bfloat16(wide.abs().amax(dim=1) / 127.0)
    inverse = torch.where(scale > 0, 1.0 / scale, 0.0)  # a row of zeros stays zeros
    return (wide * inverse[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def round_up_to_bfloat16(positive: Tensor) -> Tensor:
    """The smallest bfloat16 that is no less, as float32: the lower 16 bits of the float32 must become zeros."""
    return ((positive.contiguous().view(torch.int32) + 0xFFFF) & -0x10000).view(torch.float32)
