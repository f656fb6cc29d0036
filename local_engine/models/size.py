"""How much memory a model's weights take in each format; one that does not fit is refused before a byte of it is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import nn

from local_engine.config import ModelConfig, Quantization
from local_engine.errors import CannotQuantize, ModelTooLarge
from local_engine.models.load import empty_decoder

_GIB = 1 << 30
_OFFERED: tuple[Quantization, ...] = ("int8", "int4")


def weight_bytes(config: ModelConfig, dtype: torch.dtype, quantize: Quantization) -> int:
    """Bytes of all weights once loaded. Raises CannotQuantize when a matrix does not suit the format."""
    total = 0
    kinds = Counter(config.has_experts(layer) for layer in range(config.layers))
    for number, (experts, count) in enumerate(kinds.items()):
        # One layer of each kind says it for all.
        single = replace(config, layers=1, windows=(), dense_layers=() if experts else (0,))
        decoder = empty_decoder(single, 1, dtype, torch.device("meta"), quantize)
        layer = _bytes(decoder.layers)
        total += count * layer + (_bytes(decoder) - layer if number == 0 else 0)
    return total


def _bytes(module: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}  # tied ones once
    return sum(tensor.nbytes for tensor in tensors.values())


def check_fits(config: ModelConfig, dtype: torch.dtype, quantize: Quantization, free: int) -> int:
    """The bytes the weights will take of `free` ones. Raises ModelTooLarge, with the numbers and what would fit."""
    needed = weight_bytes(config, dtype, quantize) + _in_passing(config)
    if needed <= free:
        return needed
    sizes = {other: _size(config, dtype, other) for other in _OFFERED if other != quantize}
    fitting = [f"--quantize {name} ({size / _GIB:.1f} GiB)" for name, size in sizes.items() if size and size <= free]
    others = ", ".join(f"{name} {size / _GIB:.1f} GiB" for name, size in sizes.items() if size)
    advice = f"it would fit with {' or '.join(fitting)}" if fitting else f"no quantisation would fit either ({others})"
    name = str(dtype).removeprefix("torch.") if quantize == "none" else quantize
    raise ModelTooLarge(
        f"the model needs {needed / _GIB:.1f} GiB for its weights in {name}, {free / _GIB:.1f} GiB of memory are free: "
        f"{advice}; or free memory, or take a smaller model"
    )


def _size(config: ModelConfig, dtype: torch.dtype, quantize: Quantization) -> int | None:
    try:
        return weight_bytes(config, dtype, quantize) + _in_passing(config)
    except CannotQuantize:
        return None


def _in_passing(config: ModelConfig) -> int:
    """What the largest tensor takes in float32 while it is converted; GGUF has all experts of a layer in one."""
    return (
        4 * config.hidden_size * max(config.vocab_size, config.intermediate_size, config.experts * config.expert_size)
    )
