"""One decoder for the llama family: what differs between models is a flag in `ModelConfig`, never a subclass.

A step gets the new tokens of several requests laid end to end, so the large matrix products are shared and only
attention looks at one request at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu

from local_engine.config import ModelConfig
from local_engine.layers.linear import Linear
from local_engine.layers.norm import RmsNorm
from local_engine.layers.rope import RotaryTable, rotate


class StepAttention(Protocol):
    """Keeps a step's new keys and values and attends; knows which rows are whose and where their past lies."""

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[tokens, heads, head_dim] for queries [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim]."""
        ...


class DecoderLayer(nn.Module):
    """Attention and gated feed-forward, each behind a norm and added to the stream [tokens, hidden]."""

    def __init__(self, config: ModelConfig, index: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.index = index
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        q_rows, kv_rows = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.attention_norm = RmsNorm(config.hidden_size, config.norm_eps, dtype, device)
        # Query, key and value in one matrix, gate and up in another: one product instead of three and two.
        self.qkv = Linear(q_rows + 2 * kv_rows, config.hidden_size, dtype, device)
        self.attention_out = Linear(config.hidden_size, q_rows, dtype, device)
        self.feed_forward_norm = RmsNorm(config.hidden_size, config.norm_eps, dtype, device)
        self.gate_up = Linear(2 * config.intermediate_size, config.hidden_size, dtype, device)
        self.down = Linear(config.hidden_size, config.intermediate_size, dtype, device)

    def forward(self, stream: Tensor, cos: Tensor, sin: Tensor, attention: StepAttention) -> Tensor:
        """[tokens, hidden] in and out."""
        stream = stream + self._attention(self.attention_norm(stream), cos, sin, attention)
        gate, up = self.gate_up(self.feed_forward_norm(stream)).chunk(2, dim=-1)
        mixed: Tensor = self.down(silu(gate) * up)
        return stream + mixed

    def _attention(self, x: Tensor, cos: Tensor, sin: Tensor, attention: StepAttention) -> Tensor:
        turned = self.heads + self.kv_heads
        qkv = self.qkv(x).view(x.shape[0], turned + self.kv_heads, self.head_dim)
        queries, keys = rotate(qkv[:, :turned], cos, sin).tensor_split((self.heads,), dim=1)
        mixed = attention.attend(self.index, queries, keys, qkv[:, turned:])
        out: Tensor = self.attention_out(mixed.reshape(x.shape[0], -1))
        return out


class Decoder(nn.Module):
    """Token ids to logits. Parameters are uninitialised until `models.load` fills them."""

    def __init__(self, config: ModelConfig, positions: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Parameter(
            torch.empty(config.vocab_size, config.hidden_size, dtype=dtype, device=device), requires_grad=False
        )
        self.layers = nn.ModuleList(DecoderLayer(config, index, dtype, device) for index in range(config.layers))
        self.norm = RmsNorm(config.hidden_size, config.norm_eps, dtype, device)
        self.output = Linear(
            config.vocab_size, config.hidden_size, dtype, device, self.embeddings if config.tied_embeddings else None
        )
        self.rotary = RotaryTable(config.head_dim, positions, config.rope_theta, config.rope_factors, device)

    def forward(self, tokens: Tensor, positions: Tensor, attention: StepAttention, rows: Tensor | None) -> Tensor:
        """Logits of the batch.

        `tokens` and `positions` [tokens] int64, the requests' tokens end to end. `rows` [n] picks the rows whose
        logits are wanted (None: all). Returns [n, vocab] float32.
        """
        stream = self.hidden(tokens, positions, attention)
        return self.logits(stream if rows is None else stream[rows])

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        attention: StepAttention,
        taps: Sequence[int] = (),
        tapped: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """The stream [tokens, hidden] behind the last layer, before the last norm; those behind `taps` go to `tapped`."""
        stream = embedding(tokens, self.embeddings)
        cos, sin = self.rotary.rows(positions)
        for index, layer in enumerate(self.layers):
            stream = layer(stream, cos, sin, attention)
            if tapped is not None and index in taps:
                tapped[index] = stream
        return stream

    def logits(self, stream: Tensor) -> Tensor:
        """[n, vocab] float32 from rows [n, hidden] of `hidden`."""
        logits: Tensor = self.output(self.norm(stream))
        return logits.float()
