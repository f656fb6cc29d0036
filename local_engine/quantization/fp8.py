"""Weights as float8 (e4m3) with one scale per row, for GPUs that multiply it; elsewhere they are unpacked first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

LARGEST = 448.0
"""The largest number float8_e4m3fn holds."""


class Fp8Linear(nn.Module):
    """[tokens, columns] to [tokens, rows] by `weight` float8_e4m3fn [rows, columns] times `scale` float32 [rows]."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.weight: Tensor
        self.scale: Tensor
        self.register_buffer("weight", torch.empty(rows, columns, dtype=torch.float8_e4m3fn, device=device))
        self.register_buffer("scale", torch.empty(rows, dtype=torch.float32, device=device))

    @classmethod
    def from_weight(cls, weight: Tensor) -> Fp8Linear:
        """From floats [rows, columns], on their device."""
        module = cls(weight.shape[0], weight.shape[1], weight.device)
        module.put(0, weight)
        return module

    def put(self, first: int, weight: Tensor) -> None:
        """Quantise floats [n, columns] into the rows from `first` on."""
        last = first + weight.shape[0]
        self.weight[first:last], self.scale[first:last] = quantize_rows_fp8(weight.to(self.weight.device))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights as floats [rows, columns]."""
        return self.weight.to(dtype) * self.scale.to(dtype)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of `x`."""
        if x.is_cuda and self.rows % 16 == 0 and self.columns % 16 == 0:
            return self._scaled_product(x)
        return linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)

    def _scaled_product(self, x: Tensor) -> Tensor:
        """Activations become float8 as well, each token with its own scale; the GPU's unit wants multiples of 16."""
        values, scale = quantize_rows_fp8(x)
        product = torch._scaled_mm(
            values, self.weight.t(), scale_a=scale[:, None], scale_b=self.scale[None], out_dtype=torch.bfloat16
        )
        return product.to(x.dtype)


def quantize_rows_fp8(values: Tensor) -> tuple[Tensor, Tensor]:
    """Float8 values and float32 scales [rows] of [rows, columns]; the largest of a row becomes 448."""
    wide = values.float()
    scale = wide.abs().amax(dim=1) / LARGEST
    inverse = torch.where(scale > 0, 1.0 / scale, 0.0)
    # Clamped because a rounding error beyond the largest number would become NaN, not the largest number.
    return (wide * inverse[:, None]).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale
