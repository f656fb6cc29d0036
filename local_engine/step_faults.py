"""What can go wrong while a step is computed, in words for those who waited for it; the engine goes on with the others."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from local_engine.errors import StepFailed, StepOutOfMemory

_FEW_ROWS = 4
_CPU_ALLOCATOR = "DefaultCPUAllocator"
"""How torch says that memory is short on a CPU: in the text of a RuntimeError."""


class BrokenLogits(ArithmeticError):
    """The model computed something that is no number; sampling from it would give garbage, or end a GPU's context."""


def check_logits(logits: Tensor, likeliest: Sequence[int] | None = None) -> None:
    """Raise BrokenLogits unless every row [vocab] of `logits` is of finite numbers.

    `likeliest` has a negative place for each row that is not, where the step has looked. Else one pass: any other number
    makes the sum one.
    """
    if likeliest is not None:
        if min(likeliest, default=0) < 0:
            raise broken_logits()
        return
    if not logits.shape[0]:
        return
    # On a CPU torch wakes a second thread for this, which for a few rows takes longer than the sum.
    alone = logits.device.type == "cpu" and logits.shape[0] <= _FEW_ROWS
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(logits.numpy().sum() if alone else logits.sum())
    if not math.isfinite(total):
        raise broken_logits()


def broken_logits() -> BrokenLogits:
    """What to say of logits that are no numbers."""
    return BrokenLogits(
        "the model's output holds NaN or infinity: its weights are damaged or its number format is too narrow for them "
        "(try --dtype float32)"
    )


def step_failure(error: Exception) -> StepFailed:
    """What the requests of a failed step are told. After running out of memory, what torch keeps unused is given back."""
    if not _is_out_of_memory(error):
        return StepFailed(f"the step computing this request failed: {type(error).__name__}: {error}")
    traceback.clear_frames(error.__traceback__)  # the step's tensors live as long as its frames
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return StepOutOfMemory(
        "the step computing this request needed more memory than is free: send it again, or start the engine with a "
        "smaller --cache-tokens, --step-tokens or --max-batch",
        retry_after=1,
    )


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_ALLOCATOR in str(error)
