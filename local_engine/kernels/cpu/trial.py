"""Try a freshly compiled kernel on a small product: `python -m local_engine.kernels.cpu.trial PATH`; status 0 if it is right.

It runs in a process of its own, without torch, so that an illegal instruction ends that one and nothing else.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_engine.kernels.cpu.library import Library

_ROWS, _COLUMNS, _COUNT = 40, 96, 21


def is_right(library: Library) -> bool:
    """Whether int8 and bfloat16 products by vectors and tiles are what plain arithmetic says, within a hundredth."""
    weights = array("b", [(row * 31 + column * 17) % 255 - 127 for row in range(_ROWS) for column in range(_COLUMNS)])
    scales = array("f", [0.01 + row / 1000 for row in range(_ROWS)])
    # The upper half of a float32 is a bfloat16, and whole numbers below 256 lose nothing by that.
    halves = array("H", array("f", weights).tobytes())[1::2]
    in_bytes = library.pack_int8(_address(weights), _address(scales), _ROWS, _COLUMNS, 1, 2)
    in_halves = library.pack_bf16(_address(halves), _ROWS, _COLUMNS, 1, 2)
    right = _multiplies(library, in_bytes, weights, scales) and _multiplies(library, in_halves, weights, [1.0] * _ROWS)
    library.free_matrix(in_bytes)
    library.free_matrix(in_halves)
    return right


def _multiplies(library: Library, matrix: int, weights: Sequence[int], scales: Sequence[float]) -> bool:
    values = array("f", [((i * 37) % 101 - 50) / 10 for i in range(_COUNT * _COLUMNS)])
    for count in (1, 3, _COUNT):
        out = array("f", bytes(4 * count * _ROWS))
        library.multiply(matrix, _address(values), count, _address(out), 2)
        for i in range(count):
            x = values[i * _COLUMNS : (i + 1) * _COLUMNS]
            for row in range(_ROWS):
                w = weights[row * _COLUMNS : (row + 1) * _COLUMNS]
                exact = scales[row] * sum(a * b for a, b in zip(w, x, strict=True))
                bound = scales[row] * 1e-2 * sum(abs(a * b) for a, b in zip(w, x, strict=True))
                if not abs(out[i * _ROWS + row] - exact) <= bound:
                    return False
    return True


def _address(values: array[Any]) -> int:
    return values.buffer_info()[0]


if __name__ == "__main__":
    sys.exit(not is_right(Library(Path(sys.argv[1]))))
