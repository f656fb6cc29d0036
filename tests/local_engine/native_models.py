"""Small random decoders in the native kernel's formats, and the same numbers in float32 for the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.config import ModelConfig
from local_engine.kv_cache import KVPool
from local_engine.layers.linear import Linear
from local_engine.layers.paged_attention import PagedAttention, make_span
from local_engine.models.decoder import Decoder
from local_engine.quantization.int4 import Int4Linear
from local_engine.quantization.int8 import Int8Linear

CPU = torch.device("cpu")
BLOCK = 16
KINDS = ("bfloat16", "int8", "int4")


def shape(**changes: int | bool) -> ModelConfig:
    values = {
        "architecture": "llama", "vocab_size": 403, "hidden_size": 96, "intermediate_size": 160, "layers": 2,
        "heads": 6, "kv_heads": 2, "head_dim": 16, "max_positions": 256, "rope_theta": 10000.0, "norm_eps": 1e-5,
        "tied_embeddings": False,
    } | changes  # fmt: skip
    return ModelConfig(**values)


def random_decoder(config: ModelConfig, kind: str, positions: int = 256) -> Decoder:
    """In bfloat16, its matrices of the kind."""
    generator = torch.Generator().manual_seed(7)
    decoder = Decoder(config, positions, torch.bfloat16, CPU)
    for name, parameter in decoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(1 + noise / 4 if "norm" in name else noise / parameter.shape[-1] ** 0.5)
    for layer in decoder.layers:
        for name in ("qkv", "attention_out", "gate_up", "down"):
            setattr(layer, name, in_kind(getattr(layer, name), kind))
    decoder.output = in_kind(decoder.output, "int8" if kind == "int4" else kind)
    return decoder.eval()


def in_kind(linear: Linear, kind: str) -> torch.nn.Module:
    if kind == "bfloat16":
        return linear
    return (Int8Linear if kind == "int8" else Int4Linear).from_weight(linear.weight)


def widened(decoder: Decoder) -> Decoder:
    """The same numbers in float32 and plain matrices."""
    wide = Decoder(decoder.config, 256, torch.float32, CPU)
    places = dict(wide.named_parameters())
    for name, parameter in decoder.named_parameters():
        places[name].data.copy_(parameter)
    for (name, place), (_, module) in zip(_linears(wide), _linears(decoder), strict=True):
        assert isinstance(place, Linear), name
        if not isinstance(module, Linear):
            place.weight = torch.nn.Parameter(module.dequantize(torch.float32), requires_grad=False)
    return wide


def _linears(decoder: Decoder) -> list[tuple[str, torch.nn.Module]]:
    found = [("output", decoder.output)]
    for layer in decoder.layers:
        found += [(name, getattr(layer, name)) for name in ("qkv", "attention_out", "gate_up", "down")]
    return found


def new_pool(config: ModelConfig, blocks: int = 32, dtype: torch.dtype = torch.bfloat16) -> KVPool:
    return KVPool(config, blocks, BLOCK, dtype, CPU)


@torch.inference_mode()
def reference_logits(decoder: Decoder, tokens: list[int]) -> Tensor:
    """Of all tokens of one request, by the float32 decoder."""
    pool = new_pool(decoder.config, 16, torch.float32)
    count = len(tokens)
    span = make_span(0, count, count, range(16), True, BLOCK, CPU)
    attention = PagedAttention(pool, torch.arange(count), [span])
    return decoder(torch.tensor(tokens), torch.arange(count), attention, None)
