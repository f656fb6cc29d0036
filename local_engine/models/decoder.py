"""One decoder for all families: what differs between models is a flag in `ModelConfig`, never a subclass.

A step gets the new tokens of several requests laid end to end, so the large matrix products are shared and only
attention looks at one request at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from local_engine.config import ModelConfig
from local_engine.layers.experts import Experts, gated
from local_engine.layers.linear import Linear
from local_engine.layers.norm import RmsNorm
from local_engine.layers.rope import RotaryTable, rotate


class StepAttention(Protocol):
    """Keeps a step's new keys and values and attends; knows which rows are whose and where their past lies."""

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """[tokens, heads, head_dim] for queries [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim].

        A token sees the `window` positions up to its own, None for all; scores are capped to +-`softcap` by a tanh.
        """
        ...


class DecoderLayer(nn.Module):
    """Attention and gated feed-forward, each behind a norm and added to the stream [tokens, hidden]."""

    def __init__(self, config: ModelConfig, index: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.index, self.config = index, config
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.window = config.window(index)
        hidden, q_rows, kv_rows = config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim

        def norm(size: int, wanted: bool = True) -> nn.Module:
            return RmsNorm(size, config.norm_eps, dtype, device, config.wide_norms) if wanted else nn.Identity()

        self.attention_norm = norm(hidden)
        # Query, key and value in one matrix, gate and up in another: one product instead of three and two.
        self.qkv = Linear(q_rows + 2 * kv_rows, hidden, dtype, device)
        self.qkv_bias: nn.Parameter | None = None
        if config.qkv_bias:
            self.qkv_bias = nn.Parameter(torch.empty(q_rows + 2 * kv_rows, dtype=dtype, device=device), False)
        self.query_norm, self.key_norm = norm(self.head_dim, config.qk_norm), norm(self.head_dim, config.qk_norm)
        self.attention_out = Linear(hidden, q_rows, dtype, device)
        self.attention_post_norm = norm(hidden, config.post_norms)
        self.feed_forward_norm = norm(hidden)
        if config.has_experts(index):
            self.experts = Experts(config, dtype, device)
        else:
            self.gate_up = Linear(2 * config.intermediate_size, hidden, dtype, device)
            self.down = Linear(hidden, config.intermediate_size, dtype, device)
        self.feed_forward_post_norm = norm(hidden, config.post_norms)

    def forward(self, stream: Tensor, cos: Tensor, sin: Tensor, attention: StepAttention) -> Tensor:
        """[tokens, hidden] in and out."""
        stream = stream + self.attention_post_norm(self._attention(self.attention_norm(stream), cos, sin, attention))
        mixed: Tensor = self.feed_forward_post_norm(self._feed_forward(self.feed_forward_norm(stream)))
        return stream + mixed

    def _attention(self, x: Tensor, cos: Tensor, sin: Tensor, attention: StepAttention) -> Tensor:
        qkv: Tensor = self.qkv(x)
        if self.qkv_bias is not None:
            qkv = qkv + self.qkv_bias
        heads, turned = self.heads, self.heads + self.kv_heads
        qkv = qkv.view(x.shape[0], turned + self.kv_heads, self.head_dim)
        to_turn = qkv[:, :turned]
        if self.config.qk_norm:
            to_turn = torch.cat((self.query_norm(qkv[:, :heads]), self.key_norm(qkv[:, heads:turned])), dim=1)
        queries, keys = rotate(to_turn, cos, sin).tensor_split((heads,), dim=1)
        if self.config.query_scale != 1.0:
            queries = queries * self.config.query_scale
        softcap = self.config.attention_softcap
        mixed = attention.attend(self.index, queries, keys, qkv[:, turned:], self.window, softcap)
        out: Tensor = self.attention_out(mixed.reshape(x.shape[0], -1))
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        if self.config.has_experts(self.index):
            out: Tensor = self.experts(x)
        else:
            out = self.down(gated(self.gate_up(x), self.config.activation))
        return out


class Decoder(nn.Module):
    """Token ids to logits. Parameters are uninitialised until `models.load` fills them.

    `prepare` is called with each layer as soon as it is made: to put quantised modules in place of its `Linear`s before
    the next one takes memory.
    """

    def __init__(
        self,
        config: ModelConfig,
        positions: int,
        dtype: torch.dtype,
        device: torch.device,
        prepare: Callable[[nn.Module], object] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Parameter(
            torch.empty(config.vocab_size, config.hidden_size, dtype=dtype, device=device), requires_grad=False
        )
        # Rounded as the embeddings are: the models were trained with the rounded factor.
        self.embedding_scale = torch.tensor(config.embedding_scale, dtype=dtype).item()
        self.layers = nn.ModuleList()
        for index in range(config.layers):
            layer = DecoderLayer(config, index, dtype, device)
            if prepare is not None:
                prepare(layer)
            self.layers.append(layer)
        self.norm = RmsNorm(config.hidden_size, config.norm_eps, dtype, device, config.wide_norms)
        self.output: nn.Module = Linear(
            config.vocab_size, config.hidden_size, dtype, device, self.embeddings if config.tied_embeddings else None
        )
        divisors = config.frequency_divisors(positions)
        self.rotary = RotaryTable(
            config.turned, positions, config.rope_theta, divisors, device, scale=config.rope_scale
        )
        self.local_rotary = self.rotary  # of layers with a window
        if config.rope_local_theta is not None:
            self.local_rotary = RotaryTable(config.turned, positions, config.rope_local_theta, None, device)

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
        stream = self.embed(tokens)
        turn = local_turn = self.rotary.rows(positions)
        if self.local_rotary is not self.rotary:
            local_turn = self.local_rotary.rows(positions)
        for index, layer in enumerate(self.layers):
            cos, sin = turn if layer.window is None else local_turn
            stream = layer(stream, cos, sin, attention)
            if tapped is not None and index in taps:
                tapped[index] = stream
        return stream

    def embed(self, tokens: Tensor) -> Tensor:
        """The stream [tokens, hidden] before the first layer."""
        stream = embedding(tokens, self.embeddings)
        return stream if self.embedding_scale == 1.0 else stream * self.embedding_scale

    def logits(self, stream: Tensor) -> Tensor:
        """[n, vocab] float32 from rows [n, hidden] of `hidden`."""
        output: Tensor = self.output(self.norm(stream))
        logits, cap = output.float(), self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)
