"""Read a GGUF file: metadata, and tensors dequantised on demand; a truncated or malformed file raises CorruptModelFile.

The header is parsed here rather than by the gguf package's reader, which takes seconds for a vocabulary of 49,152
tokens; the formats' block layouts and their dequantisation are that package's.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from local_engine.errors import CorruptModelFile

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_READABLE_VERSIONS = (2, 3)
READABLE_TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M",
    "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: `shape` in torch order (rows first), `offset` and `nbytes` in bytes from the file's start."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    nbytes: int


class GgufFile:
    """`metadata` by key and `tensors` by name; `read` gives one tensor as float32."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            try:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # an empty file cannot be mapped
                raise CorruptModelFile(f"{str(path)!r} is empty: fetch the model again") from error
        self._at = 0
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, StoredTensor] = {}
        try:
            self._read_header()
        except (struct.error, IndexError, OverflowError) as error:
            raise self._corrupt(f"its header breaks off at byte {self._at} of {len(self._data)}") from error
        except (UnicodeDecodeError, RecursionError) as error:
            raise self._corrupt(f"its header is malformed at byte {self._at} ({error})") from error

    def read(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The tensor as float32 in torch order, finite throughout; KeyError when there is none of that name."""
        stored = self.tensors[name]
        rows = self.read_raw(name)
        if stored.kind == GGMLQuantizationType.F32:
            values = rows.view(np.float32)
        else:
            with np.errstate(all="ignore"):  # of damaged blocks, which are refused below
                values = np.asarray(dequantize(rows, stored.kind), dtype=np.float32).reshape(stored.shape)
        if not np.isfinite(values).all():
            raise self._corrupt(f"tensor {name!r} holds NaN or infinity, so its bytes are damaged")
        return values

    def read_raw(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The tensor's bytes as they are stored, row by row; not to be written to."""
        stored = self.tensors[name]
        raw = np.frombuffer(self._data, dtype=np.uint8, count=stored.nbytes, offset=stored.offset)
        return raw.reshape(*stored.shape[:-1], -1)

    def _corrupt(self, why: str) -> CorruptModelFile:
        return CorruptModelFile(f"{str(self.path)!r} is not a usable GGUF file: {why}; fetch the model again")

    def _unreadable(self, tensor: str, kind: str) -> CorruptModelFile:
        return CorruptModelFile(
            f"tensor {tensor!r} in {str(self.path)!r} is stored in type {kind}, which cannot be read; known: "
            f"{', '.join(READABLE_TYPES)}. Take the model in one of these"
        )

    def _read_header(self) -> None:
        if self._data[:4] != b"GGUF":
            raise self._corrupt(f"it starts with {self._data[:4]!r} instead of b'GGUF'")
        self._at = 4
        version = self._scalar("I")
        if version not in _READABLE_VERSIONS:
            raise self._corrupt(f"its version is {version!r}, known are {_READABLE_VERSIONS!r} (little endian)")
        tensor_count, pair_count = self._scalar("Q"), self._scalar("Q")
        for _ in range(pair_count):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("I"))
        entries = [(self._string(), self._shape(), self._scalar("I"), self._scalar("Q")) for _ in range(tensor_count)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._corrupt(f"general.alignment is {alignment!r}")
        start = math.ceil(self._at / alignment) * alignment
        for name, shape, kind, offset in entries:
            self.tensors[name] = self._place(name, shape, kind, start + offset)

    def _place(self, name: str, shape: tuple[int, ...], kind_number: int, offset: int) -> StoredTensor:
        try:
            kind = GGMLQuantizationType(kind_number)
        except ValueError:
            raise self._unreadable(name, str(kind_number)) from None
        if kind.name not in READABLE_TYPES:
            raise self._unreadable(name, f"{kind_number} ({kind.name})")
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if 0 in shape:
            raise self._corrupt(f"tensor {name!r} has the empty shape {list(shape)!r}")
        if shape[-1] % block:
            raise self._corrupt(f"tensor {name!r} has rows of {shape[-1]} values, no multiple of {block} ({kind.name})")
        nbytes = math.prod(shape) // block * block_bytes
        if offset + nbytes > len(self._data):
            missing = offset + nbytes - len(self._data)
            raise self._corrupt(f"tensor {name!r} ends {missing} bytes after the end of the file")
        return StoredTensor(shape, kind, offset, nbytes)

    def _shape(self) -> tuple[int, ...]:
        axes = self._scalar("I")
        if not 1 <= axes <= 4:
            raise self._corrupt(f"a tensor has {axes!r} axes")
        return tuple(reversed([self._scalar("Q") for _ in range(axes)]))

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        end = self._at + length
        if end > len(self._data):
            raise IndexError(f"a string of {length} bytes does not fit")
        text = self._data[self._at : end].decode("utf-8")
        self._at = end
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind != _ARRAY:
            raise self._corrupt(f"metadata type {kind!r} at byte {self._at} is unknown")
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner in _SCALARS:
            layout = f"<{count}{_SCALARS[inner]}"
            values = list(struct.unpack_from(layout, self._data, self._at))
            self._at += struct.calcsize(layout)
            return values
        return [self._value(inner) for _ in range(count)]
