"""Read llama2.c's legacy checkpoint and tokenizer formats: the source of a golden test, too small for the product.

Formats: https://github.com/karpathy/llama2.c (export.py `legacy_export`, tokenizer.py `export`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from local_engine.config import ModelConfig, Quantization
from local_engine.models.weights import halves_from_pairs


class Llama2cWeights:
    """A WeightSource over a legacy checkpoint: float32, each kind of tensor stacked over the layers."""

    stored: Quantization = "none"

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        dim, hidden, layers, heads, kv_heads, vocab, positions = struct.unpack_from("<7i", raw)
        head_dim = dim // heads
        self.config = ModelConfig(
            architecture="llama",
            vocab_size=abs(vocab),
            hidden_size=dim,
            intermediate_size=hidden,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            max_positions=positions,
            rope_theta=10000.0,
            norm_eps=1e-5,
            tied_embeddings=vocab > 0,
        )
        values = torch.from_numpy(np.frombuffer(raw, dtype=np.float32, offset=28).copy())
        kv_rows = kv_heads * head_dim
        self._tensors: dict[str, Tensor] = {}
        at = 0

        def take(*shape: int) -> Tensor:
            nonlocal at
            count = int(np.prod(shape))
            at += count
            return values[at - count : at].view(*shape)

        def take_layers(name: str, *shape: int) -> None:
            for layer, tensor in enumerate(take(layers, *shape)):
                self._tensors[f"model.layers.{layer}.{name}.weight"] = tensor

        self._tensors["model.embed_tokens.weight"] = take(abs(vocab), dim)
        take_layers("input_layernorm", dim)
        take_layers("self_attn.q_proj", dim, dim)
        take_layers("self_attn.k_proj", kv_rows, dim)
        take_layers("self_attn.v_proj", kv_rows, dim)
        take_layers("self_attn.o_proj", dim, dim)
        take_layers("post_attention_layernorm", dim)
        take_layers("mlp.gate_proj", hidden, dim)
        take_layers("mlp.down_proj", dim, hidden)
        take_layers("mlp.up_proj", hidden, dim)
        self._tensors["model.norm.weight"] = take(dim)
        take(2, positions, head_dim // 2)  # rotary tables, computed by the decoder itself
        if vocab < 0:
            self._tensors["lm_head.weight"] = take(-vocab, dim)
        assert at == values.numel(), "the checkpoint has another size than its header says"

    def __len__(self) -> int:
        return len(self._tensors)

    def tensors(self, four_bit: bool = False) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._tensors.items():
            if name.endswith("q_proj.weight"):
                tensor = halves_from_pairs(tensor, self.config.heads)
            elif name.endswith("k_proj.weight"):
                tensor = halves_from_pairs(tensor, self.config.kv_heads)
            yield name, tensor


def read_pieces(path: Path, count: int) -> list[bytes]:
    """The bytes of each token of a tokenizer.bin."""
    raw = path.read_bytes()
    at = 4
    pieces = []
    for _ in range(count):
        _, length = struct.unpack_from("<fi", raw, at)
        piece = raw[at + 8 : at + 8 + length]
        at += 8 + length
        if piece.startswith(b"<0x") and piece.endswith(b">"):
            piece = bytes([int(piece[3:5], 16)])
        pieces.append(piece)
    return pieces
