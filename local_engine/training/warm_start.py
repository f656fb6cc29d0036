"""First weights of a head by least squares: seconds instead of the first hundreds of training steps.

Training has to find out that the state behind a token is, to a first approximation, a linear function of the state before
it and of the token. That function is known in closed form: a ridge regression of the target's next normalised stream
on both; and another of what it leaves open on the random features that the gated layer begins with.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu

from local_engine.layers.norm import RmsNorm
from local_engine.speculative.head_model import DraftHead, GatedBlock
from local_engine.training.outputs import Window

_RIDGE = 0.003  # of the mean square of a feature
_ROWS = 2048
_FIRMNESS = 0.5  # guesses are less certain than the target: its norm's weight is taken as far


class _LeastSquares:
    """Sums that determine the best linear map from rows of features to rows of results."""

    def __init__(self, features: int, results: int) -> None:
        self.square, self.mixed, self.rows = torch.zeros(features, features), torch.zeros(features, results), 0

    def add(self, features: Tensor, results: Tensor) -> None:
        """[n, features] and [n, results] float32."""
        self.square += features.t() @ features
        self.mixed += features.t() @ results
        self.rows += len(features)

    def solve(self) -> Tensor:
        """[results, features], as a linear layer keeps it."""
        ridge = _RIDGE * float(self.square.diagonal().mean())
        regular = self.square + ridge * torch.eye(len(self.square))
        solved: Tensor = torch.linalg.solve(regular, self.mixed)
        return solved.t().contiguous()


@torch.no_grad()
def warm_start(head: DraftHead, texts: Iterable[Window], target_norm: RmsNorm) -> None:
    """Replace the random first weights, except those of the gated layer's inputs, by what explains the texts best."""
    size, taps = head.config.hidden, len(head.config.taps)
    kept = [text.of_answer() for text in texts]
    fuse = weight_of(head.fuse)
    fuse.zero_()
    fuse[:, (taps - 1) * size :] = torch.eye(size)
    linear, rest = _LeastSquares(2 * size, size), _LeastSquares(head.config.width, size)
    for before, token, after in _pairs(kept, size):
        linear.add(torch.cat(_inputs(head, before, token), dim=-1), _normal(after, target_norm.eps))
    solved = linear.solve()
    weight_of(head.state_in).copy_(solved[:, :size])
    weight_of(head.token_in).copy_(solved[:, size:])
    block = head.blocks[0]
    assert isinstance(block, GatedBlock)
    for before, token, after in _pairs(kept, size):
        state = torch.cat(_inputs(head, before, token), dim=-1) @ solved.t()
        gate, up = block.gate_up(block.norm(state)).chunk(2, dim=-1)
        rest.add(silu(gate) * up, _normal(after, target_norm.eps) - state)
    weight_of(block.down).copy_(rest.solve())
    head.norm.weight.copy_(target_norm.weight * _FIRMNESS)


def weight_of(linear: nn.Module) -> Tensor:
    """The weight of a layer that is not quantised."""
    weight = linear.get_parameter("weight")
    return weight.detach()


def _pairs(texts: list[Window], hidden: int) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    """(stream, next token, next stream) of neighbouring tokens, about _ROWS at a time."""
    held: list[tuple[Tensor, Tensor, Tensor]] = []
    count = 0
    for index, text in enumerate(texts):
        streams = text.streams.float()
        held.append((streams[:-1], text.tokens[1:-1], streams[1:, -hidden:]))
        count += len(streams) - 1
        if count >= _ROWS or index == len(texts) - 1:
            before, token, after = zip(*held, strict=True)
            yield torch.cat(before), torch.cat(token), torch.cat(after)
            held, count = [], 0


def _inputs(head: DraftHead, streams: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    state: Tensor = head.state_norm(head.start(streams))
    token: Tensor = head.token_norm(embedding(tokens, head.embeddings).to(state.dtype))
    return state, token


def _normal(streams: Tensor, eps: float) -> Tensor:
    """Rows at unit root mean square."""
    return streams * torch.rsqrt(streams.square().mean(-1, keepdim=True) + eps)
