"""How many blocks the cache gets; one that does not fit this machine's memory is refused before it is taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from local_engine.config import EngineConfig, ModelConfig
from local_engine.errors import CacheDoesNotFit
from local_engine.quantization.kv import token_bytes

_MIB = 1 << 20
_CPU_SHARE = 0.25  # of the free memory, when no size is asked for: the gateway and the database live there as well
_GPU_SHARE = 0.85
_UNKNOWN = 1 << 62  # no Linux: nothing is known, so nothing is refused


@dataclass(frozen=True, slots=True)
class CacheSize:
    """`blocks` blocks of `block_size` tokens, `nbytes` bytes together."""

    blocks: int
    block_size: int
    nbytes: int

    @property
    def tokens(self) -> int:
        """Tokens that fit at once."""
        return self.blocks * self.block_size


def plan_cache(
    config: EngineConfig,
    model: ModelConfig,
    max_context: int,
    dtype: torch.dtype,
    device: torch.device,
    reserved: int = 0,
) -> CacheSize:
    """The size that was asked for; else room for `max_batch` full contexts, within a share of the free memory.

    `reserved` bytes of it are not free: the weights that are to be read.

    Raises CacheDoesNotFit, with the numbers.
    """
    per_token = token_bytes(model, config.kv_dtype, dtype)
    block_bytes = config.block_size * per_token
    free = max(0, free_memory(device) - reserved)
    if config.cache_tokens is not None:
        blocks, asked = config.cache_tokens // config.block_size, f"--cache-tokens {config.cache_tokens}"
    elif config.cache_mib is not None:
        blocks, asked = config.cache_mib * _MIB // block_bytes, f"--cache-mib {config.cache_mib}"
    else:
        whole = -(-max_context // config.block_size)
        affordable = int(free * (_GPU_SHARE if device.type == "cuda" else _CPU_SHARE)) // block_bytes
        blocks, asked = min(config.max_batch * whole, max(whole, affordable)), f"a context of {max_context} tokens"
    if blocks < 1:
        raise CacheDoesNotFit(
            f"{asked} is less than one block: {config.block_size} tokens take {block_bytes / _MIB:.1f} MiB; ask for more"
        )
    if blocks * block_bytes > free:
        raise CacheDoesNotFit(
            f"{asked} needs a cache of {blocks * block_bytes / _MIB:.0f} MiB ({per_token} bytes per token), "
            f"{free / _MIB:.0f} MiB are free: lower --cache-tokens, --cache-mib or --max-context"
        )
    return CacheSize(blocks, config.block_size, blocks * block_bytes)


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken on the device; on a CPU what the system calls available, within the control group's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = _entry(Path("/proc/meminfo"), "MemAvailable:")
    free = _UNKNOWN if available is None else available * 1024
    limit = _number(Path("/sys/fs/cgroup/memory.max"))
    used = _entry(Path("/sys/fs/cgroup/memory.stat"), "anon")  # what the system can drop by itself is not in use
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _entry(path: Path, name: str) -> int | None:
    """The number behind `name` in a file of lines `name number`."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.split()[0] == name), None)
    except (OSError, ValueError, IndexError):
        return None
