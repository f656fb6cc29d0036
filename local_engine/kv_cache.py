"""Keys and values of all tokens in one tensor, cut into blocks that requests own or share.

Who owns which block is the block manager's business; here a block is a place. Memory that was never written costs
nothing on a CPU, as the system hands out pages when they are touched.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from local_engine.config import ModelConfig


class KVPool:
    """Tensor [layers, 2, blocks * block_size, kv_heads, head_dim]: slot `b * block_size + i` is token i of block b.

    A token's keys of all heads lie together, so that it is written as one row and a block is copied as one piece; a GPU
    kernel sees the same memory as [blocks, block_size, kv_heads, head_dim] beside a table of block numbers.
    """

    def __init__(
        self, config: ModelConfig, blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.blocks, self.block_size = blocks, block_size
        self.heads, self.head_dim = config.kv_heads, config.head_dim
        shape = (config.layers, 2, blocks * block_size, self.heads, self.head_dim)
        self.dtype = dtype
        self.tensor = zeros(shape, dtype, device)
        # Views made once: a step must not index five axes for every layer and request.
        self._rows = [(layer[0], layer[1]) for layer in self.tensor]
        self._by_head = [(keys.transpose(0, 1)[None], values.transpose(0, 1)[None]) for keys, values in self._rows]
        self._by_block = [(keys.view(blocks, -1), values.view(blocks, -1)) for keys, values in self._rows]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put [tokens, kv_heads, head_dim] at `slots` [tokens] int64."""
        key_rows, value_rows = self._rows[layer]
        key_rows.index_copy_(0, slots, keys)
        value_rows.index_copy_(0, slots, values)

    def view(self, layer: int, first: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of `tokens` slots in a row, [1, kv_heads, tokens, head_dim] each, not copied."""
        keys, values = self._by_head[layer]
        return keys[:, :, first : first + tokens], values[:, :, first : first + tokens]

    def gather(self, layer: int, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """The same for the first `tokens` slots of `blocks` [n] int64, wherever they lie: a copy."""
        keys, values = self.gather_rows(layer, blocks, 1)
        return keys[:, :, :tokens], values[:, :, :tokens]

    def gather_rows(self, layer: int, blocks: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values of `rows` requests with equally many `blocks`, [rows, kv_heads, slots, head_dim] each: a copy."""
        keys, values = self._by_block[layer]
        shape = (rows, -1, self.heads, self.head_dim)
        return (
            keys.index_select(0, blocks).view(shape).transpose(1, 2),
            values.index_select(0, blocks).view(shape).transpose(1, 2),
        )

    @property
    def block_nbytes(self) -> int:
        """Bytes of one block over all layers."""
        return self.nbytes // self.blocks

    @property
    def nbytes(self) -> int:
        """Bytes of the whole pool, touched or not."""
        return self.tensor.nbytes


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros whose pages, on a CPU, the system makes when they are touched; torch.zeros would touch them all."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
