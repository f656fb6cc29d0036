"""A product with a weight matrix; quantised weights are other modules with the same `forward`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Linear(nn.Module):
    """[tokens, columns] to [tokens, rows] by `weight` [rows, columns], which may be shared with another module."""

    def __init__(
        self, rows: int, columns: int, dtype: torch.dtype, device: torch.device, weight: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        if weight is None:
            weight = nn.Parameter(torch.empty(rows, columns, dtype=dtype, device=device), requires_grad=False)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of the weight."""
        return linear(x, self.weight)
