"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RmsNorm(nn.Module):
    """Scales each row of [..., size] to unit root mean square, then by a learned weight [size].

    `wide`: the weight is float32 and multiplies before the result is rounded (Gemma), not after.
    """

    def __init__(self, size: int, eps: float, dtype: torch.dtype, device: torch.device, wide: bool = False) -> None:
        super().__init__()
        dtype = torch.float32 if wide else dtype
        self.weight = nn.Parameter(torch.empty(size, dtype=dtype, device=device), requires_grad=False)
        self.eps = eps
        self.wide = wide

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] to the same shape and dtype; the mean is taken in float32."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        if self.wide:
            return (wide * scale * self.weight).to(x.dtype)
        return (wide * scale).to(x.dtype) * self.weight
