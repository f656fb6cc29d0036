"""A linear layer whose weights the native kernel has repacked; the weights exist once, and torch code can still call it."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from local_engine.kernels.cpu.library import Library


class PackedLinear(nn.Module):
    """[tokens, columns] to [tokens, rows], in the dtype of the input; `matrix` is its address in the kernel."""

    def __init__(self, library: Library, matrix: int, rows: int, columns: int) -> None:
        super().__init__()
        self.matrix, self.rows, self.columns = matrix, rows, columns
        self.library = library
        weakref.finalize(self, library.free_matrix, matrix)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self.library.matrix_bytes(self.matrix)

    @property
    def weight(self) -> Tensor:
        """The weights in bfloat16 [rows, columns], unpacked again at every call: products with single columns."""
        rows: Tensor = self(torch.eye(self.columns))
        return rows.T.contiguous().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of `x`."""
        wide = x.float().contiguous()
        out = torch.empty(wide.shape[0], self.rows)
        self.library.multiply(self.matrix, wide.data_ptr(), wide.shape[0], out.data_ptr(), torch.get_num_threads())
        return out.to(x.dtype)


def can_pack(linear: nn.Module) -> bool:
    """Whether the module is a linear layer in one of the kernel's three formats."""
    tensors = dict(linear.named_parameters()) | dict(linear.named_buffers())
    if any(not tensor.is_contiguous() or tensor.device.type != "cpu" for tensor in tensors.values()):
        return False
    kinds = {name: tensor.dtype for name, tensor in tensors.items()}
    if kinds == {"packed": torch.uint8, "scale": torch.float16, "minimum": torch.float16}:
        return tensors["packed"].shape[1] * 2 == tensors["scale"].shape[1] * 32
    return kinds in ({"weight": torch.bfloat16}, {"weight": torch.int8, "scale": torch.float32})


def pack(library: Library, linear: nn.Module, parts: int = 1) -> PackedLinear:
    """The same layer repacked; `parts` equal parts of its rows alternate in memory (2 for gate and up).

    `can_pack` must hold. Raises MemoryError.
    """
    tensors = dict(linear.named_parameters()) | dict(linear.named_buffers())
    threads = torch.get_num_threads()
    if "packed" in tensors:
        rows, columns = tensors["packed"].shape[0], tensors["packed"].shape[1] * 2
        nibbles, scale, minimum = (tensors[name].data_ptr() for name in ("packed", "scale", "minimum"))
        matrix = library.pack_int4(nibbles, scale, minimum, rows, columns, parts, threads)
    else:
        weight = tensors["weight"]
        rows, columns = weight.shape
        if weight.dtype == torch.int8:
            scale = tensors["scale"].data_ptr()
            matrix = library.pack_int8(weight.data_ptr(), scale, rows, columns, parts, threads)
        else:
            matrix = library.pack_bf16(weight.data_ptr(), rows, columns, parts, threads)
    return PackedLinear(library, matrix, rows, columns)
