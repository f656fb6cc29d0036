"""The decoder's step by fused kernels, for families whose layers are plain; `models.decoder.Decoder` is the truth.

Few rows: a layer is seven launches, as norms, gate and residuals go with the products. Many rows: products are cuBLAS's,
and what lies between them is one kernel each. Other families run `Decoder.hidden` over `KernelAttention`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import embedding

from local_engine.config import ModelConfig
from local_engine.kernels.kernel_set import Kernels
from local_engine.kernels.rope_cache import HeadNorms
from local_engine.kernels.small_linear import MOST_ROWS, Fused
from local_engine.layers.kernel_attention import KernelAttention
from local_engine.layers.norm import RmsNorm
from local_engine.models.decoder import Decoder, DecoderLayer


def can_fuse(config: ModelConfig) -> bool:
    """Whether the layers are plain enough: Llama, Mistral, Qwen2 and Qwen3 are; Gemma, Phi-3 and mixtures are not."""
    others = (config.post_norms, config.wide_norms, config.experts, config.rope_local_theta, config.logit_softcap)
    scales = (config.query_scale, config.embedding_scale)
    return not any(others) and scales == (1.0, 1.0) and config.activation == "silu" and config.turned == config.head_dim


class FusedDecoder:
    """`hidden` and `logits` of `decoder`, in a dtype's rounding the same. Holds no weights of its own."""

    def __init__(self, decoder: Decoder, kernels: Kernels) -> None:
        self._decoder, self._kernels = decoder, kernels

    def hidden(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, attention: KernelAttention,
        taps: Sequence[int] = (), tapped: dict[int, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """The stream [tokens, hidden] behind the last layer; `tokens`, `positions` and `slots` [tokens] integers."""
        stream = embedding(tokens, self._decoder.embeddings)
        few = stream.shape[0] <= MOST_ROWS
        delta: Tensor | None = None  # what the layer before has still to add to the stream
        for layer in self._decoder.layers:
            assert isinstance(layer, DecoderLayer)
            if few:
                stream = self._few_rows(layer, stream, positions, slots, attention)
            else:
                stream, delta = self._many_rows(layer, stream, delta, positions, slots, attention)
            if tapped is not None and layer.index in taps:
                tapped[layer.index] = stream if delta is None else stream + delta
        return stream if delta is None else stream + delta

    def logits(self, stream: Tensor) -> Tensor:
        """[n, vocab] in the dtype of the stream, from rows [n, hidden] of `hidden`."""
        norm = self._decoder.norm
        if stream.shape[0] <= MOST_ROWS:
            return self._kernels.fused_product(stream, self._decoder.output, Fused(norm.weight, norm.eps))
        x, _ = self._kernels.add_rms_norm(stream, None, norm.weight, norm.eps)
        return self._kernels.product(x, self._decoder.output)

    def _few_rows(
        self, layer: DecoderLayer, stream: Tensor, positions: Tensor, slots: Tensor, attention: KernelAttention
    ) -> Tensor:
        product = self._kernels.fused_product
        norm = _norm(layer.attention_norm)
        qkv = product(stream, layer.qkv, Fused(norm.weight, norm.eps))
        mixed = self._attend(layer, qkv, positions, slots, attention)
        stream = product(mixed, layer.attention_out, Fused(residual=stream))
        norm = _norm(layer.feed_forward_norm)
        opened = product(stream, layer.gate_up, Fused(norm.weight, norm.eps, gated=True))
        return product(opened, layer.down, Fused(residual=stream))

    def _many_rows(
        self, layer: DecoderLayer, stream: Tensor, delta: Tensor | None, positions: Tensor, slots: Tensor,
        attention: KernelAttention,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        kernels = self._kernels
        norm = _norm(layer.attention_norm)
        x, stream = kernels.add_rms_norm(stream, delta, norm.weight, norm.eps)
        mixed = self._attend(layer, kernels.product(x, layer.qkv), positions, slots, attention)
        norm = _norm(layer.feed_forward_norm)
        x, stream = kernels.add_rms_norm(stream, kernels.product(mixed, layer.attention_out), norm.weight, norm.eps)
        return stream, kernels.product(kernels.silu_mul(kernels.product(x, layer.gate_up)), layer.down)

    def _attend(
        self, layer: DecoderLayer, qkv: Tensor, positions: Tensor, slots: Tensor, attention: KernelAttention
    ) -> Tensor:
        rotary, norms = self._decoder.rotary, None
        if layer.qkv_bias is not None:
            qkv = qkv + layer.qkv_bias
        if layer.config.qk_norm:
            query_norm, key_norm = _norm(layer.query_norm), _norm(layer.key_norm)
            norms = HeadNorms(query_norm.weight, key_norm.weight, query_norm.eps)
        cache = attention.cache(layer.index)
        queries = self._kernels.rope_cache(qkv, rotary.cos, rotary.sin, positions, slots, cache, layer.heads, norms)
        mixed = attention.read(layer.index, queries, layer.window, layer.config.attention_softcap)
        return mixed.view(qkv.shape[0], -1)


def _norm(module: nn.Module) -> RmsNorm:
    assert isinstance(module, RmsNorm)
    return module
