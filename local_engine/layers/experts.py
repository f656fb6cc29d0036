"""Gated feed-forward, and a mixture of such experts of which each token takes a few (Shazeer et al. 2017, arXiv 1701.06538)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, silu

from local_engine.config import Activation, ModelConfig
from local_engine.layers.linear import Linear


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    """[tokens, size]: the first half of [tokens, 2 * size], through the activation, opens the second."""
    gate, up = gate_up.chunk(2, dim=-1)
    return (silu(gate) if activation == "silu" else gelu(gate, approximate="tanh")) * up


class Expert(nn.Module):
    """One expert: [tokens, hidden] in and out."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.activation = config.activation
        self.gate_up = Linear(2 * config.expert_size, config.hidden_size, dtype, device)
        self.down = Linear(config.hidden_size, config.expert_size, dtype, device)

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, hidden] in and out."""
        out: Tensor = self.down(gated(self.gate_up(x), self.activation))
        return out


class Experts(nn.Module):
    """Each token goes to its `experts_per_token` likeliest experts; what they say is summed by their probabilities."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.chosen, self.normalize = config.experts_per_token, config.normalize_experts
        # Not a `Linear`, which quantisation would replace: a wrong choice costs more than the few bytes of this matrix.
        self.router = nn.Parameter(
            torch.empty(config.experts, config.hidden_size, dtype=dtype, device=device), requires_grad=False
        )
        self.experts = nn.ModuleList(Expert(config, dtype, device) for _ in range(config.experts))

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, hidden] in and out; only experts that some token chose are computed."""
        shares, chosen = linear(x, self.router).float().softmax(-1).topk(self.chosen, dim=-1)
        if self.normalize:
            shares = shares / shares.sum(-1, keepdim=True)
        shares = shares.to(x.dtype)
        out = torch.zeros_like(x)
        for index in sorted(set(chosen.flatten().tolist())):
            tokens, place = (chosen == index).nonzero(as_tuple=True)
            out.index_add_(0, tokens, self.experts[index](x[tokens]) * shares[tokens, place, None])
        return out
