"""A process for tests: native steps under a limit of the address space end in MemoryError, and the next ones are right.

Argument `thread`: the limit leaves no room for a second thread; `step`: none for what a thread needs within a step.
To be run with MALLOC_ARENA_MAX=1, or glibc serves threads from address space it reserved before.
Exit status 0 when all went so; 77 where there is no native kernel.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from local_engine.kernels.cpu.build import NoKernel
from local_engine.kernels.cpu.library import open_library
from local_engine.native_step import NativeStep, Piece
from tests.local_engine.native_models import new_pool, random_decoder, shape

_LONG_BY_TILES = {True: 1 << 18, False: 1 << 19}  # tokens of a context for which a thread takes 48 or 9 MiB


def used_address_space() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def fails_for_memory(call: Callable[[], object], room: int) -> bool:
    """Whether the call raises MemoryError with `room` more bytes of address space; the limit is lifted again."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used_address_space() + room, before[1]))
    try:
        call()
    except MemoryError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return False


def main(where: str) -> int:
    """As the file says."""
    try:
        library = open_library()
    except NoKernel:
        return 77
    torch.set_num_threads(1)
    long = _LONG_BY_TILES[library.tiles]
    config = shape(layers=1, max_positions=long)
    decoder = random_decoder(config, "int8", positions=long)
    native = NativeStep(decoder, new_pool(config), library)

    def short(threads: int) -> torch.Tensor:
        torch.set_num_threads(threads)
        return native.run([Piece([1, 2, 3], 0, [1])], [2])[0]

    expected = short(1)
    if where == "thread":
        failed = fails_for_memory(lambda: short(2), 1 << 20)
    else:
        blocks = [0] * (long // 16)  # one block, again and again: what is computed does not matter

        def step(context: int) -> None:
            native.run([Piece([1], context - 1, blocks)], [0])

        torch.set_num_threads(2)
        step(long // 2 + 1)  # the list of places has room for a context of `long` now, the threads do not
        failed = fails_for_memory(lambda: step(long), 1 << 20)
    return 0 if failed and torch.equal(short(2), expected) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
