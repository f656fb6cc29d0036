"""What a model is (`ModelConfig`) and how the engine runs it (`EngineConfig`); frozen, validated where they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Dtype = Literal["bfloat16", "float32"]
DeviceName = Literal["auto", "cpu", "cuda"]
Speculate = Literal["off", "ngram", "draft", "head", "auto"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder. Sizes count elements; `rope_factors` (head_dim / 2 values) divide the rotary frequencies."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float
    norm_eps: float
    tied_embeddings: bool
    rope_factors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads!r}) must be a multiple of kv_heads ({self.kv_heads!r})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim!r}: rotary embedding needs an even number")

    @property
    def cache_elements_per_token(self) -> int:
        """Elements of key and value that one token keeps over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine runs.

    `max_batch`: requests that run at once. `max_context`: tokens of prompt and answer together. `max_queue`: requests
    that may wait beside the running ones. `step_tokens`: tokens one step may compute; a longer prompt is computed in
    several steps, so that running answers keep flowing. `cache_tokens` or `cache_mib`: size of the cache, None for room
    for `max_batch` full contexts within a share of the free memory. `block_size`: tokens per block of it.
    `prefix_sharing`: whether requests that begin alike share blocks. `default_max_tokens`: length of a chat answer that
    names none; a small model may otherwise ramble to the end of its context. `speculate`: who drafts tokens ahead (`auto`:
    the best there is for the model), `draft_model` the files of a smaller model for `draft`, `max_drafts` at most so many
    per request and step; how many it really are is decided by what they bring.
    """

    dtype: Dtype = "bfloat16"
    device: DeviceName = "auto"
    max_batch: int = 8
    max_context: int = 8192
    max_queue: int = 64
    step_tokens: int = 512
    cache_tokens: int | None = None
    cache_mib: int | None = None
    block_size: int = 16
    prefix_sharing: bool = True
    default_max_tokens: int = 1024
    speculate: Speculate = "off"
    draft_model: Path | None = None
    max_drafts: int = 7

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_context", "step_tokens", "block_size", "default_max_tokens", "max_drafts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be at least 1")
        if self.max_queue < 0:
            raise ValueError(f"max_queue is {self.max_queue!r}: it must be 0 or more")
        if (self.speculate == "draft") != (self.draft_model is not None):
            raise ValueError(
                f"speculate is {self.speculate!r} and draft_model {self.draft_model!r}: 'draft' needs the path of a draft "
                "model, and nothing else takes one"
            )
        if self.cache_tokens is not None and self.cache_mib is not None:
            raise ValueError("give the cache's size in tokens or in MiB, not both")
        if self.step_tokens < self.max_batch:
            raise ValueError(f"step_tokens ({self.step_tokens!r}) must be at least max_batch ({self.max_batch!r})")
