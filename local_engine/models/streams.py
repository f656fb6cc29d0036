"""A text through a decoder without a cache: what measuring and training need, windows of it at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.layers.attention import attend, window_mask
from local_engine.models.decoder import Decoder


class WholeWindow:
    """Attention among the tokens of one call only; gradients flow."""

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """As `StepAttention.attend`."""
        new = len(queries)
        mask = None if window is None or new <= window else window_mask(new, new, window, queries.device)
        return attend(queries, keys.transpose(0, 1)[None], values.transpose(0, 1)[None], mask, softcap)


def run_window(decoder: Decoder, tokens: Tensor) -> Tensor:
    """The stream [tokens, hidden] behind the last layer, for tokens [n] int64 that nothing comes before."""
    return decoder.hidden(tokens, torch.arange(len(tokens), device=tokens.device), WholeWindow())
