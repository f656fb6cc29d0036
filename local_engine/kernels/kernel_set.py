"""The kernels a step is made of, as one set: Triton's for a GPU, and torch's as the truth beside them on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from local_engine.kernels.activation import silu_mul, silu_mul_reference
from local_engine.kernels.advance import advance, advance_reference
from local_engine.kernels.int4_linear import int4_small_linear, int4_small_linear_reference, unpack_int4
from local_engine.kernels.norm import add_rms_norm, add_rms_norm_reference
from local_engine.kernels.paged_attention import choose_shape, paged_attention
from local_engine.kernels.paged_rows import AttentionFlags, LayerCache, PagedRows, paged_attention_reference
from local_engine.kernels.rope_cache import HeadNorms, keep, keep_reference, rope_cache, rope_cache_reference
from local_engine.kernels.sample import sample, sample_reference
from local_engine.kernels.small_linear import Fused, small_linear, small_linear_reference
from local_engine.layers.linear import Linear
from local_engine.quantization.fp8 import Fp8Linear
from local_engine.quantization.int4 import Int4Linear
from local_engine.quantization.int8 import Int8Linear


class Attention(Protocol):
    """`paged_attention` without its shape."""

    def __call__(self, queries: Tensor, cache: LayerCache, rows: PagedRows, flags: AttentionFlags, out: Tensor) -> None:
        """Write the attention of `rows` to the same rows of `out`."""


class RopeCache(Protocol):
    """`rope_cache.rope_cache`."""

    def __call__(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, slots: Tensor, cache: LayerCache, heads: int,
        norms: HeadNorms | None = None,
    ) -> Tensor:  # fmt: skip
        """Turned queries; keys and values go to the pool."""
        ...


class Advance(Protocol):
    """`advance.advance`."""

    def __call__(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, lengths: Tensor, contexts: Tensor, tables: Tensor,
        limits: Tensor, sampled: Tensor, block_size: int,
    ) -> None:  # fmt: skip
        """Make this step's tensors the next step's."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """`fused_product` takes at most `small_linear.MOST_ROWS` rows; `product` any number. Both know every linear module."""

    attention: Attention
    add_rms_norm: Callable[[Tensor, Tensor | None, Tensor, float], tuple[Tensor, Tensor]]
    silu_mul: Callable[[Tensor], Tensor]
    rope_cache: RopeCache
    keep: Callable[[Tensor, Tensor, Tensor, LayerCache], None]
    fused_product: Callable[[Tensor, nn.Module, Fused], Tensor]
    product: Callable[[Tensor, nn.Module], Tensor]
    sample: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    advance: Advance


def triton_kernels(processors: int) -> Kernels:
    """For a GPU of so many multiprocessors (under the interpreter: any number)."""

    def attention(queries: Tensor, cache: LayerCache, rows: PagedRows, flags: AttentionFlags, out: Tensor) -> None:
        heads, kv_heads, head_dim = queries.shape[1], *cache.keys.shape[1:]
        shape = choose_shape(rows.longest, len(rows.lengths), kv_heads, heads // kv_heads, head_dim, processors)
        paged_attention(queries, cache, rows, flags, out, shape)

    return Kernels(attention, add_rms_norm, silu_mul, rope_cache, keep, _fused_product, _product, sample, advance)


def reference_kernels() -> Kernels:
    """Plain torch, anywhere."""
    return Kernels(
        paged_attention_reference, add_rms_norm_reference, silu_mul_reference, rope_cache_reference, keep_reference,
        _fused_product_reference, _product_reference, sample_reference, advance_reference,
    )  # fmt: skip


def kernels_for(device: torch.device) -> Kernels:
    """Triton's on a GPU, torch's elsewhere."""
    if device.type == "cuda":
        return triton_kernels(torch.cuda.get_device_properties(device).multi_processor_count)
    return reference_kernels()


def _fused_product(x: Tensor, module: nn.Module, fused: Fused) -> Tensor:
    if isinstance(module, Int4Linear):
        return int4_small_linear(x, module.packed, module.scale, module.minimum, fused)
    return small_linear(x, *_weight_of(module), fused)


def _product(x: Tensor, module: nn.Module) -> Tensor:
    if isinstance(module, Int4Linear):
        return linear(x, unpack_int4(module.packed, module.scale, module.minimum, x.dtype))
    return _product_reference(x, module)


def _fused_product_reference(x: Tensor, module: nn.Module, fused: Fused) -> Tensor:
    if isinstance(module, Int4Linear):
        return int4_small_linear_reference(x, module.packed, module.scale, module.minimum, fused)
    return small_linear_reference(x, *_weight_of(module), fused)


def _product_reference(x: Tensor, module: nn.Module) -> Tensor:
    out: Tensor = module(x)
    return out


def _weight_of(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and the scale of its rows."""
    if isinstance(module, Int8Linear | Fp8Linear):
        return module.weight, module.scale
    assert isinstance(module, Linear)
    return module.weight, None
