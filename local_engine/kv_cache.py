"""Keys and values of the running requests, one growing buffer per slot.

Memory follows use: a buffer starts small and doubles, so the cost per token stays constant and a short chat never pays
for the longest context. A slot is taken when a request starts and given back in the step after it ends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.config import ModelConfig

FIRST_CAPACITY = 256  # tokens


class SlotCache:
    """The keys and values of one request: buffer [layers, 2, kv_heads, capacity, head_dim]."""

    def __init__(self, config: ModelConfig, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = (config.layers, 2, config.kv_heads, config.head_dim)
        self._dtype, self._device = dtype, device
        self.capacity = 0
        self._buffer: Tensor = torch.empty(0, dtype=dtype, device=device)
        self._layers: list[tuple[Tensor, Tensor]] = []
        self.reserve(capacity)

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` positions in all; what is cached stays."""
        if tokens <= self.capacity:
            return
        capacity = max(tokens, FIRST_CAPACITY, 2 * self.capacity)
        layers, pair, kv_heads, head_dim = self._shape
        buffer = torch.empty(layers, pair, kv_heads, capacity, head_dim, dtype=self._dtype, device=self._device)
        if self.capacity:
            buffer[:, :, :, : self.capacity] = self._buffer
        self._buffer, self.capacity = buffer, capacity
        self._layers = [(layer[0], layer[1]) for layer in buffer]  # views, so that a step does not index five axes

    def extend(self, layer: int, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write the new [n, kv_heads, head_dim] at `start`; return everything up to their end."""
        end = start + keys.shape[0]
        cached_keys, cached_values = self._layers[layer]
        cached_keys[:, start:end] = keys.transpose(0, 1)
        cached_values[:, start:end] = values.transpose(0, 1)
        return cached_keys[:, :end], cached_values[:, :end]

    @property
    def nbytes(self) -> int:
        """Bytes this slot holds."""
        return self._buffer.nbytes


class KVCache:
    """The slots in use. `take` and `give_back` pair up; `slots` is what an idle engine must find empty."""

    def __init__(self, config: ModelConfig, max_context: int, dtype: torch.dtype, device: torch.device) -> None:
        self._config, self._dtype, self._device = config, dtype, device
        self._max_context = max_context
        self.slots: dict[int, SlotCache] = {}

    def slot(self, slot: int, tokens: int) -> SlotCache:
        """The cache of `slot` with room for `tokens` positions, made when it is new."""
        if tokens > self._max_context:
            raise AssertionError(f"slot {slot!r} asks for {tokens!r} positions of at most {self._max_context!r}")
        cache = self.slots.get(slot)
        if cache is None:
            cache = self.slots[slot] = SlotCache(self._config, tokens, self._dtype, self._device)
        cache.reserve(tokens)
        return cache

    def give_back(self, slot: int) -> None:
        """Free the slot's memory; a slot never used is fine."""
        self.slots.pop(slot, None)

    @property
    def nbytes(self) -> int:
        """Bytes held over all slots."""
        return sum(cache.nbytes for cache in self.slots.values())
