"""The compiled kernel's functions and structs as Python sees them; `model.h` and `library.cpp` say what they mean."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_void_p
from pathlib import Path

from local_engine.kernels.cpu.build import NoKernel, build, processor_features, target_for

_VERSION = 4


class LayerParts(ctypes.Structure):
    """Matrices and norm weights of one layer."""

    _fields_ = [(name, c_void_p) for name in
                ("qkv", "attention_out", "gate_up", "down", "attention_norm", "feed_forward_norm")]  # fmt: skip


class ModelParts(ctypes.Structure):
    """A decoder and its pool."""

    _fields_ = [
        *[(name, c_int32) for name in
          ("layers", "hidden", "inner", "heads", "kv_heads", "head_dim", "block_size", "tiles")],
        ("slots", c_int64),
        ("eps", c_float),
        *[(name, c_void_p) for name in ("embeddings", "cos", "sin", "norm", "output")],
        ("each_layer", POINTER(LayerParts)),
        ("pool", c_void_p),
    ]  # fmt: skip


class StepParts(ctypes.Structure):
    """One step."""

    _fields_ = [
        *[(name, c_int32) for name in ("rows", "requests", "wanted", "taps", "threads")],
        *[(name, c_void_p) for name in (
            "tokens", "first_row", "start", "table_offset", "tables", "wanted_rows", "tapped_layers",
            "stream", "tapped", "logits", "likeliest")],
    ]  # fmt: skip


class HeadParts(ctypes.Structure):
    """A draft head."""

    _fields_ = [
        *[(name, c_int32) for name in ("hidden", "width", "drafted", "tiles")],
        ("eps", c_float),
        *[(name, c_void_p) for name in (
            "fuse", "token_in", "state_in", "gate_up", "down", "output",
            "fuse_norm", "token_norm", "state_norm", "block_norm", "norm", "embeddings", "parts")],
    ]  # fmt: skip


class Library:
    """The functions; `tiles` tells whether AMX is used."""

    def __init__(self, path: Path, tiles: bool = True) -> None:
        try:
            self._dll = ctypes.CDLL(str(path))
            found = int(self._dll.penstock_version())
        except (OSError, AttributeError) as error:
            raise NoKernel(f"the kernel {path.name!r} cannot be loaded: {error}") from error
        if found != _VERSION:
            raise NoKernel(f"the kernel {path.name!r} has version {found!r}, not {_VERSION!r}")
        _declare(self._dll)
        self.tiles = tiles and bool(self._dll.penstock_tiles())

    def pack_bf16(self, weights: int, rows: int, columns: int, parts: int, threads: int) -> int:
        """A matrix from the address of bfloat16 [rows, columns]. Raises MemoryError, as the next two."""
        return self._matrix(self._dll.penstock_pack_bf16(weights, rows, columns, parts, threads))

    def pack_int8(self, weights: int, scales: int, rows: int, columns: int, parts: int, threads: int) -> int:
        """From int8 [rows, columns] and float32 [rows]."""
        return self._matrix(self._dll.penstock_pack_int8(weights, scales, rows, columns, parts, threads))

    def pack_int4(
        self, nibbles: int, scales: int, minima: int, rows: int, columns: int, parts: int, threads: int
    ) -> int:
        """From uint8 [rows, columns / 2] and two float16 [rows, columns / 32]."""
        return self._matrix(self._dll.penstock_pack_int4(nibbles, scales, minima, rows, columns, parts, threads))

    def free_matrix(self, matrix: int) -> None:
        """Give its memory back."""
        self._dll.penstock_free_matrix(matrix)

    def matrix_bytes(self, matrix: int) -> int:
        """Bytes of its packed weights."""
        return int(self._dll.penstock_matrix_bytes(matrix))

    def multiply(self, matrix: int, rows: int, count: int, out: int, threads: int) -> None:
        """float32 [count, columns] times the matrix into float32 [count, rows]."""
        if self._dll.penstock_multiply(matrix, rows, count, out, self.tiles, threads):
            raise MemoryError("no memory for a product")

    def make_model(self, parts: ModelParts) -> int:
        """A model; what `parts` points to must outlive it."""
        return self._matrix(self._dll.penstock_make_model(ctypes.byref(parts)))

    def free_model(self, model: int) -> None:
        """Give its memory back; matrices are not its own."""
        self._dll.penstock_free_model(model)

    def step(self, model: int, parts: StepParts) -> None:
        """Compute one step; other Python threads run meanwhile."""
        if self._dll.penstock_step(model, ctypes.byref(parts)):
            raise MemoryError(f"no memory for a step of {parts.rows} tokens")

    def make_head(self, parts: HeadParts) -> int:
        """A draft head; what `parts` points to must outlive it."""
        return self._matrix(self._dll.penstock_make_head(ctypes.byref(parts)))

    def free_head(self, head: int) -> None:
        """Give its memory back; matrices are not its own."""
        self._dll.penstock_free_head(head)

    def draft(
        self, head: int, streams: int, tokens: int, places: int, chances: int, count: int, depth: int, threads: int,
        least: float,
    ) -> None:  # fmt: skip
        """Chains of places int32 [count, depth] and their float32 chances from bfloat16 [count, hidden] and int32 [count].

        Behind the end of a chain, where the product of its chances is below `least`, chances stay as they were.
        """
        if self._dll.penstock_draft(head, streams, tokens, places, chances, count, depth, threads, least):
            raise MemoryError(f"no memory for {count} drafts")

    @staticmethod
    def _matrix(address: int | None) -> int:
        if not address:
            raise MemoryError("no memory for packed weights")
        return address


def _declare(dll: ctypes.CDLL) -> None:
    signatures: dict[str, tuple[object, int, int]] = {  # result, addresses, numbers
        "penstock_tiles": (c_int, 0, 0),
        "penstock_pack_bf16": (c_void_p, 1, 4),
        "penstock_pack_int8": (c_void_p, 2, 4),
        "penstock_pack_int4": (c_void_p, 3, 4),
        "penstock_free_matrix": (None, 1, 0),
        "penstock_matrix_bytes": (c_int64, 1, 0),
        "penstock_make_model": (c_void_p, 1, 0),
        "penstock_free_model": (None, 1, 0),
        "penstock_step": (c_int, 2, 0),
        "penstock_make_head": (c_void_p, 1, 0),
        "penstock_free_head": (None, 1, 0),
    }
    for name, (result, addresses, numbers) in signatures.items():
        function = getattr(dll, name)
        function.restype = result
        function.argtypes = [*[c_void_p] * addresses, *[c_int] * numbers]
    dll.penstock_multiply.argtypes = [c_void_p, c_void_p, c_int, c_void_p, c_int, c_int]
    dll.penstock_multiply.restype = c_int
    dll.penstock_draft.argtypes = [*[c_void_p] * 5, *[c_int] * 3, c_float]
    dll.penstock_draft.restype = c_int


def open_library(folder: Path | None = None, *, tiles: bool = True) -> Library:
    """The kernel for this machine, compiled if need be; without AMX where `tiles` is False. Raises NoKernel."""
    target = target_for(processor_features(), tiles)
    return Library(build(target, folder), tiles)
