"""Compile every Triton kernel for an H200 without having one: the compiler ships with Triton, only running needs the GPU.

`python -m tests.local_engine.compile_kernels [--registers]` calls the kernels as steps would, compiles what is called
instead of running it, and prints one JSON line per kernel: its shared memory, and on demand registers and spills. A kernel
that does not compile is an error: what the interpreter forgives (types, shapes of tiles) is found here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from local_engine.kernels.activation import silu_mul
from local_engine.kernels.advance import advance
from local_engine.kernels.int4_linear import int4_small_linear, unpack_int4
from local_engine.kernels.norm import add_rms_norm
from local_engine.kernels.paged_attention import choose_shape, paged_attention
from local_engine.kernels.paged_rows import AttentionFlags, LayerCache, PagedRows
from local_engine.kernels.rope_cache import HeadNorms, keep, rope_cache
from local_engine.kernels.sample import sample
from local_engine.kernels.small_linear import Fused, small_linear

H200 = GPUTarget("cuda", 90, 32)


class NoGpu:
    """Enough of a driver to compile for `H200`."""

    def get_current_target(self) -> GPUTarget:
        return H200

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def only_compiling() -> Iterator[list[tuple[str, Any]]]:
    """Inside, a launch compiles and adds its kernel to the list; nothing runs."""
    compiled: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        compiled.append((self.__name__, kernel))
        return kernel

    triton.runtime.driver.set_active(NoGpu())
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = run


def call_all(dtype: torch.dtype = torch.bfloat16) -> None:
    """Each kernel in the shapes and variants that steps use; tensors are small, as nothing is computed."""
    for kept in (dtype, torch.int8, torch.float8_e4m3fn):
        attend(32, 8, 128, 1, 1, kept, dtype, AttentionFlags(0.1))
    attend(32, 8, 128, 8, 1, dtype, dtype, AttentionFlags(0.1))
    attend(32, 8, 128, 512, 1, dtype, dtype, AttentionFlags(0.1))
    attend(16, 8, 128, 1, 256, dtype, dtype, AttentionFlags(0.1))
    attend(8, 4, 256, 512, 4, dtype, dtype, AttentionFlags(0.1, softcap=50.0, window=4096))
    attend(4, 2, 64, 1, 4, torch.float32, torch.float32, AttentionFlags(0.1))
    x = torch.zeros(1, 4096, dtype=dtype)
    weight = torch.zeros(8192, 4096, dtype=dtype)
    scale, halves = torch.zeros(8192), torch.zeros(8192, 128, dtype=torch.float16)
    norm = torch.zeros(4096, dtype=dtype)
    for count in (1, 8):
        rows = x.expand(count, -1).contiguous()
        for fused in (Fused(norm, 1e-5, gated=True), Fused(residual=torch.zeros(count, 8192, dtype=dtype))):
            small_linear(rows, weight, None, fused)
            small_linear(rows, weight.to(torch.int8), scale, fused)
            small_linear(rows, weight.to(torch.float8_e4m3fn), scale, fused)
            int4_small_linear(rows, torch.zeros(8192, 2048, dtype=torch.uint8), halves, halves, fused)
    unpack_int4(torch.zeros(64, 2048, dtype=torch.uint8), halves, halves, dtype)
    add_rms_norm(x, x.clone(), norm, 1e-5)
    add_rms_norm(x, None, norm, 1e-5)
    silu_mul(torch.zeros(2, 28672, dtype=dtype))
    move(dtype)
    numbers = torch.zeros(4, dtype=torch.int32)
    sample(torch.zeros(4, 128256), numbers, numbers, torch.zeros(4))
    advance(*(numbers.clone() for _ in range(5)), torch.zeros(4, 8, dtype=torch.int32), numbers, numbers.long(), 16)


def attend(
    heads: int, kv_heads: int, head_dim: int, longest: int, requests: int, kept: torch.dtype, dtype: torch.dtype,
    flags: AttentionFlags,
) -> None:  # fmt: skip
    query = torch.zeros(longest, heads, head_dim, dtype=dtype)
    numbers = torch.zeros(requests, dtype=torch.int32)
    rows = PagedRows(numbers, numbers, numbers, torch.zeros(requests, 64, dtype=torch.int32), longest, 16)
    shape = choose_shape(longest, requests, kv_heads, heads // kv_heads, head_dim, 132)
    paged_attention(query, cache_of(kept, kv_heads, head_dim), rows, flags, torch.zeros_like(query), shape)


def cache_of(kept: torch.dtype, kv_heads: int, head_dim: int) -> LayerCache:
    keys, values = (torch.zeros(16, kv_heads, head_dim).to(kept) for _ in range(2))
    if kept.itemsize > 1:
        return LayerCache(keys, values)
    return LayerCache(keys, values, torch.zeros(16, kv_heads), torch.zeros(16, kv_heads))


def move(dtype: torch.dtype) -> None:
    numbers = torch.zeros(2, dtype=torch.int32)
    table = torch.zeros(64, 64)
    for kept in (dtype, torch.int8, torch.float8_e4m3fn):
        for norms in (None, HeadNorms(torch.zeros(128, dtype=dtype), torch.zeros(128, dtype=dtype), 1e-6)):
            qkv = torch.zeros(2, 48 * 128, dtype=dtype)
            rope_cache(qkv, table, table, numbers, numbers, cache_of(kept, 8, 128), 32, norms)
        key = torch.zeros(2, 8, 128, dtype=dtype)
        keep(key, key.clone(), numbers, cache_of(kept, 8, 128))


def resources(kernel: Any) -> dict[str, int]:
    """Registers per thread and bytes spilled, as the assembler says."""
    found: dict[str, int] = {}
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(kernel.asm["ptx"])
        file.flush()
        ran = subprocess.run(
            [str(assembler), "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    for name, pattern in (("registers", r"Used (\d+) registers"), ("spilled", r"(\d+) bytes spill stores")):
        matched = re.search(pattern, ran.stderr)
        found[name] = int(matched.group(1)) if matched else -1
    return found


def main(arguments: list[str]) -> int:
    """Compile all."""
    with only_compiling() as compiled:
        call_all()
    seen: set[int] = set()
    for name, kernel in compiled:
        if id(kernel) not in seen:
            seen.add(id(kernel))
            found = {"kernel": name, "shared": int(kernel.metadata.shared), "warps": int(kernel.metadata.num_warps)}
            print(json.dumps(found | (resources(kernel) if "--registers" in arguments else {})))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
