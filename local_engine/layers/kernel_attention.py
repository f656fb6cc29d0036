"""Attention of one step by kernels over the block pool: requests are told apart by tensors, not by Python."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from local_engine.kernels.kernel_set import Kernels
from local_engine.kernels.paged_rows import AttentionFlags, LayerCache, PagedRows
from local_engine.kv_cache import KVPool


class KernelAttention:
    """One step's attention for the decoder. `slots` [tokens] say where the new tokens are kept, -1 nowhere.

    `groups` are the requests, those with few new tokens apart from those with many: each group is one launch.
    """

    def __init__(self, pool: KVPool, slots: Tensor, groups: Sequence[PagedRows], kernels: Kernels) -> None:
        self._pool, self._slots, self._groups, self._kernels = pool, slots, groups, kernels

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor,
        window: int | None = None, softcap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """As `PagedAttention.attend`; rows that no group names are left undefined."""
        self._kernels.keep(keys, values, self._slots, self.cache(layer))
        return self.read(layer, queries, window, softcap)

    def read(self, layer: int, queries: Tensor, window: int | None = None, softcap: float | None = None) -> Tensor:
        """The same when the step's keys and values of this layer are in the pool already."""
        queries = queries.contiguous()
        out = torch.empty_like(queries)
        flags = AttentionFlags(queries.shape[2] ** -0.5, softcap, window)
        cache = self.cache(layer)
        for rows in self._groups:
            self._kernels.attention(queries, cache, rows, flags, out)
        return out

    def cache(self, layer: int) -> LayerCache:
        """The pool's part of a layer."""
        keys, values = self._pool.tensor[layer]
        scales = getattr(self._pool, "scales", None)  # of a pool in 8 bits
        return LayerCache(keys, values) if scales is None else LayerCache(keys, values, *scales[layer])
