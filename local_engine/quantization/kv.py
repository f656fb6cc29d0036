"""Keys and values in 8 bits, one scale per token and head: half the memory of bfloat16, the same blocks and methods.

Reading unpacks into the model's dtype, so attention itself is unchanged; that copy is what the memory costs in time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.config import KvDtype, ModelConfig
from local_engine.kv_cache import KVPool, zeros
from local_engine.quantization.fp8 import quantize_rows_fp8
from local_engine.quantization.int8 import quantize_rows

STORED: dict[KvDtype, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
SCALE = torch.float32


def token_bytes(config: ModelConfig, kv_dtype: KvDtype, dtype: torch.dtype) -> int:
    """Bytes that one token's keys and values take over all layers."""
    if kv_dtype == "auto":
        return config.cache_elements_per_token * dtype.itemsize
    return config.cache_elements_per_token // config.head_dim * (config.head_dim + SCALE.itemsize)


def make_pool(
    config: ModelConfig, blocks: int, block_size: int, kv_dtype: KvDtype, dtype: torch.dtype, device: torch.device
) -> KVPool:
    """A pool that gives keys and values in `dtype` and keeps them as `kv_dtype` says."""
    if kv_dtype == "auto":
        return KVPool(config, blocks, block_size, dtype, device)
    return QuantizedKVPool(config, blocks, block_size, STORED[kv_dtype], dtype, device)


class QuantizedKVPool(KVPool):
    """`tensor` int8 or float8_e4m3fn as in `KVPool`, and `scales` float32 [layers, 2, blocks * block_size, kv_heads].

    value = tensor * scale. Keys and values are given out as copies in `dtype`.
    """

    def __init__(
        self,
        config: ModelConfig,
        blocks: int,
        block_size: int,
        stored: torch.dtype,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(config, blocks, block_size, stored, device)
        self.dtype = dtype
        self.scales = zeros(self.tensor.shape[:-1], SCALE, device)
        # Bytes are copied and picked as such: index_copy_ and index_select do not know float8 everywhere.
        self._bytes = self.tensor.view(torch.int8)
        self._quantize = quantize_rows if stored == torch.int8 else quantize_rows_fp8

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """As `KVPool.write`, rounded to 8 bits."""
        for side, new in enumerate((keys, values)):
            stored, scale = self._quantize(new.reshape(-1, self.head_dim))
            rows = stored.view(torch.int8).view(-1, self.heads, self.head_dim)
            self._bytes[layer, side].index_copy_(0, slots, rows)
            self.scales[layer, side].index_copy_(0, slots, scale.view(-1, self.heads))

    def view(self, layer: int, first: int, tokens: int) -> tuple[Tensor, Tensor]:
        """As `KVPool.view`, but a copy."""
        slots = slice(first, first + tokens)
        both = self._floats(self.tensor[layer, :, slots], self.scales[layer, :, slots]).transpose(1, 2)
        return both[:1], both[1:]

    def gather_rows(self, layer: int, blocks: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """As `KVPool.gather_rows`."""
        by_block = (2, self.blocks, self.block_size, self.heads)
        stored = self._bytes[layer].view(*by_block, self.head_dim).index_select(1, blocks)
        scales = self.scales[layer].view(by_block).index_select(1, blocks)
        both = self._floats(stored.view(self.tensor.dtype), scales)
        keys, values = both.view(2, rows, -1, self.heads, self.head_dim).transpose(2, 3)
        return keys, values

    def _floats(self, stored: Tensor, scales: Tensor) -> Tensor:
        """[..., head_dim] times [...]."""
        return stored.to(self.dtype) * scales.to(self.dtype)[..., None]

    @property
    def nbytes(self) -> int:
        """As `KVPool.nbytes`, scales included."""
        return self.tensor.nbytes + self.scales.nbytes
