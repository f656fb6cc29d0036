"""What a model is (`ModelConfig`) and how the engine runs it (`EngineConfig`); frozen, validated where they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from local_engine.energy_sources import CORE_WATTS, GPU_WATTS, WORLD_GRAMS_PER_KWH, EnergySource

Dtype = Literal["bfloat16", "float32"]
DeviceName = Literal["auto", "cpu", "cuda"]
Quantization = Literal["none", "int8", "int4", "fp8"]
QuantizeOption = Literal["auto", "none", "int8", "int4", "fp8"]
CpuKernel = Literal["auto", "off"]
KvDtype = Literal["auto", "int8", "fp8"]
Activation = Literal["silu", "gelu_tanh"]
Speculate = Literal["off", "ngram", "draft", "head", "auto"]

MOST_LAYERS = 4096
"""More than any model has, of experts as well: a damaged file must not make the loader build millions."""
SIZES: Mapping[str, int] = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 24,
    "layers": MOST_LAYERS,
    "heads": 1 << 16,
    "kv_heads": 1 << 16,
    "head_dim": 1 << 16,
}
"""Of a decoder, from 1 to so many."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder, and flags for what its family does otherwise than Llama, whose defaults are Llama's.

    Sizes count elements. A kernel made for Llama looks at the flags it does not know and refuses other values.

    Rotary: `rotary_dim` leading elements of a head turn (None: all). `rope_factors` (rotary_dim / 2 values) divide the
    frequencies, `rope_long_factors` instead where the engine's context exceeds `rope_short_positions`; cosines and
    sines are multiplied by `rope_scale`. Windowed layers turn by `rope_local_theta` where it is given.

    Attention: `windows` has for each layer how many positions it looks back, itself included, None for all; empty when
    no layer is windowed. Scores are scaled by `query_scale` beside 1 / sqrt(head_dim), and capped to +-`attention_softcap`
    by a tanh, logits to +-`logit_softcap`. `qk_norm`: queries and keys are normalised per head before they turn.

    Blocks: `post_norms` normalise what attention and feed-forward add to the stream. `wide_norms`: norm weights are
    float32, multiplied before rounding. Embeddings are scaled by `embedding_scale`. With `experts`, layers not in
    `dense_layers` choose `experts_per_token` of them, each `expert_size` wide, by a softmax over all that is normalised
    over the chosen where `normalize_experts`.
    """

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
    rope_long_factors: tuple[float, ...] | None = None
    rope_short_positions: int | None = None
    rope_scale: float = 1.0
    rope_local_theta: float | None = None
    rotary_dim: int | None = None
    windows: tuple[int | None, ...] = ()
    query_scale: float = 1.0
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    wide_norms: bool = False
    embedding_scale: float = 1.0
    activation: Activation = "silu"
    experts: int = 0
    experts_per_token: int = 0
    expert_size: int = 0
    normalize_experts: bool = True
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, most in SIZES.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be 1 to {most}")
        if not 0 <= self.experts <= MOST_LAYERS:
            raise ValueError(f"experts is {self.experts!r}: it must be 0 to {MOST_LAYERS}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads!r}) must be a multiple of kv_heads ({self.kv_heads!r})")
        if self.turned % 2 or not 0 < self.turned <= self.head_dim:
            raise ValueError(f"{self.turned!r} of {self.head_dim!r} elements of a head turn: it must be an even number")
        for factors in (self.rope_factors, self.rope_long_factors):
            if factors is not None and len(factors) != self.turned // 2:
                raise ValueError(f"{len(factors)} rope factors for {self.turned // 2} frequencies")
        if self.windows and (len(self.windows) != self.layers or not all(w is None or w > 0 for w in self.windows)):
            raise ValueError(
                f"windows are {self.windows!r}: one positive number or None for each of {self.layers} layers"
            )
        if self.experts and not (0 < self.experts_per_token <= self.experts and self.expert_size > 0):
            raise ValueError(
                f"{self.experts_per_token!r} of {self.experts!r} experts of size {self.expert_size!r} cannot be chosen"
            )

    @property
    def cache_elements_per_token(self) -> int:
        """Elements of key and value that one token keeps over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def turned(self) -> int:
        """How many elements of a head turn with the position."""
        return self.head_dim if self.rotary_dim is None else self.rotary_dim

    def window(self, layer: int) -> int | None:
        """How many positions the layer looks back, itself included; None for all."""
        return self.windows[layer] if self.windows else None

    def has_experts(self, layer: int) -> bool:
        """Whether the layer's feed-forward is a mixture of experts."""
        return self.experts > 0 and layer not in self.dense_layers

    def frequency_divisors(self, positions: int) -> tuple[float, ...] | None:
        """Divisors of the rotary frequencies for an engine whose context has `positions` tokens."""
        long = self.rope_short_positions is not None and positions > self.rope_short_positions
        return self.rope_long_factors if long else self.rope_factors


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine runs.

    `max_batch`: requests that run at once. `max_context`: tokens of prompt and answer together. `max_queue`: requests
    that may wait beside the running ones. `step_tokens`: tokens one step may compute; a longer prompt is computed in
    several steps, so that running answers keep flowing. `cache_tokens` or `cache_mib`: size of the cache, None for room
    for `max_batch` full contexts within a share of the free memory. `block_size`: tokens per block of it.
    `prefix_sharing`: whether requests that begin alike share blocks. `default_max_tokens`: length of a chat answer that
    names none; a small model may otherwise ramble to the end of its context. `speculate`: who drafts tokens ahead (`auto`:
    the best there is for the model), `draft_model` the files of a smaller model for `draft`, or of a drafter for `head`,
    `max_drafts` at most so many per request and step; how many it really are is decided by what they bring.
    `quantize`: number format of the matrices, "none" for `dtype` (a directory that was quantised offline keeps its own),
    "auto" for int8 where the native kernel computes, else as "none".
    `kv_dtype`: number format of the cache, "auto" for `dtype`. `cpu_kernel`: whether steps on a CPU may be computed by the
    native kernel instead of torch.
    `energy`: where joules come from; `core_watts` and `gpu_watts`: of a busy core and GPU, for an estimate. `grams_per_kwh`:
    CO2 equivalent of electricity.
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
    quantize: QuantizeOption = "auto"
    kv_dtype: KvDtype = "auto"
    cpu_kernel: CpuKernel = "auto"
    energy: EnergySource = "auto"
    core_watts: float = CORE_WATTS
    gpu_watts: float = GPU_WATTS
    grams_per_kwh: float = WORLD_GRAMS_PER_KWH

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_context", "step_tokens", "block_size", "default_max_tokens", "max_drafts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be at least 1")
        for name in ("core_watts", "gpu_watts", "grams_per_kwh"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be a number, 0 or more")
        if self.max_queue < 0:
            raise ValueError(f"max_queue is {self.max_queue!r}: it must be 0 or more")
        if self.speculate == "draft" and self.draft_model is None:
            raise ValueError("--speculate is 'draft': --draft-model must name the files of the draft model")
        if self.draft_model is not None and self.speculate not in ("draft", "head"):
            raise ValueError(
                f"--draft-model is {str(self.draft_model)!r}, but --speculate is {self.speculate!r}: take 'draft', or "
                "'head' for a drafter"
            )
        if self.cache_tokens is not None and self.cache_mib is not None:
            raise ValueError("give the cache's size as --cache-tokens or as --cache-mib, not both")
        if self.step_tokens < self.max_batch:
            raise ValueError(
                f"--step-tokens ({self.step_tokens!r}) must be at least --max-batch ({self.max_batch!r}): raise the one or "
                "lower the other"
            )
