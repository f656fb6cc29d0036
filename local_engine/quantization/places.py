"""Quantised modules in place of a decoder's `Linear`s, filled row by row as tensors come, so that never more than one
tensor of the model is in memory in full precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from local_engine.layers.linear import Linear
from local_engine.quantization.fp8 import Fp8Linear
from local_engine.quantization.int4 import Int4Linear, Int4Rows
from local_engine.quantization.int8 import Int8Linear

Format = Literal["int8", "int4", "fp8"]
QuantizedLinear = Int8Linear | Int4Linear | Fp8Linear

LAYERS: Mapping[Format, type[QuantizedLinear]] = {"int8": Int8Linear, "int4": Int4Linear, "fp8": Fp8Linear}
OUTPUT: Mapping[Format, type[QuantizedLinear]] = {"int8": Int8Linear, "int4": Int8Linear, "fp8": Fp8Linear}
"""What becomes of the last matrix. It chooses among tens of thousands of tokens and stays int8 where layers are int4
(benchmarks/engine_quality.py)."""


class Place(Protocol):
    """Where a tensor of a model file goes: a parameter, rows of one, or rows of a quantised matrix."""

    @property
    def shape(self) -> torch.Size:
        """What the tensor must have."""
        ...

    def copy_(self, values: Tensor, /) -> object:
        """Take the tensor, converting or quantising it."""
        ...


class QuantizedRows:
    """`rows` rows of a quantised matrix from `first` on."""

    def __init__(self, module: QuantizedLinear, first: int, rows: int) -> None:
        self._module = module
        self._first = first
        self.shape = torch.Size((rows, module.columns))

    def copy_(self, values: Tensor) -> None:
        """Quantise floats of this shape."""
        self._module.put(self._first, values)

    def keep(self, values: Int4Rows) -> None:
        """Take values that are 4-bit already, as they are where the matrix is int4."""
        if isinstance(self._module, Int4Linear):
            self._module.keep(self._first, values)
        else:
            self.copy_(values.dequantize())


def quantize_linears(module: nn.Module, quantize: Format) -> None:
    """Put an empty quantised module in place of every `Linear` inside `module`. Raises CannotQuantize."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear):
                rows, columns = child.weight.shape
                setattr(parent, name, LAYERS[quantize](rows, columns, child.weight.device))


def split_rows(module: nn.Module, sizes: Sequence[int]) -> list[Place]:
    """The places of matrices that were joined by rows into `module`, plain or quantised."""
    if isinstance(module, Linear):
        return list(torch.split(module.weight, list(sizes)))
    assert isinstance(module, Int8Linear | Int4Linear | Fp8Linear)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [QuantizedRows(module, start, rows) for start, rows in zip(starts, sizes, strict=True)]


def whole(module: nn.Module) -> Place:
    """The place of a matrix that stands alone."""
    if isinstance(module, Linear):
        return module.weight
    assert isinstance(module, Int8Linear | Int4Linear | Fp8Linear)
    return QuantizedRows(module, 0, module.rows)
