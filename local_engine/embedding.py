"""Embeddings from the loaded decoder: the mean of its last hidden states over a text's tokens, of length 1.

A decoder is trained to write, not to compare texts; this is good for rough likeness, and costs no second model. It is computed
on the engine's thread in slices of one step's budget, between steps, so that running answers keep flowing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from local_engine.engine import Engine
from local_engine.request import Request, SamplingParams
from local_engine.scheduler import Chunk


class EmbeddingJob:
    """`steps` computes `inputs` (token ids, each within the context) slice by slice; `vectors` are there when it has ended."""

    def __init__(self, inputs: Sequence[list[int]]) -> None:
        self._inputs = inputs
        self.vectors: list[Tensor] = []

    def steps(self, engine: Engine) -> Iterator[None]:
        """Compute; pauses after each slice, and while there are no free blocks. Closing it gives its blocks back."""
        for group in _groups(self._inputs, engine):
            requests: list[Request] = []
            try:
                while not requests:
                    requests = _begin(engine, group)
                    if not requests:
                        yield
                sums = [torch.zeros(engine.model_config.hidden_size) for _ in group]
                for start in range(0, max(map(len, group)), engine.config.step_tokens):
                    _add_slice(engine, requests, start, sums)
                    yield
                for total, tokens in zip(sums, group, strict=True):
                    self.vectors.append(torch.nn.functional.normalize(total / len(tokens), dim=0))
            finally:
                for request in requests:
                    _release(engine, request)


def shortened(vector: Tensor, dimensions: int | None) -> Tensor:
    """The first `dimensions` numbers, of length 1 again."""
    return vector if dimensions is None else torch.nn.functional.normalize(vector[:dimensions], dim=0)


def _groups(inputs: Sequence[list[int]], engine: Engine) -> Iterator[list[list[int]]]:
    """Neighbours that fit one slice, and the cache, together; a text longer than a slice stands alone."""
    config, blocks = engine.config, engine.blocks
    group: list[list[int]] = []
    for tokens in inputs:
        grown = [*group, tokens]
        fits = len(grown) <= config.max_batch and sum(map(len, grown)) <= config.step_tokens
        if group and not (fits and sum(blocks.needed(len(each)) for each in grown) <= blocks.blocks):
            yield group
            group = []
        group.append(tokens)
    yield group


def _begin(engine: Engine, group: Sequence[list[int]]) -> list[Request]:
    """Requests with blocks of their own, shared with nobody; empty when there are too few free."""
    requests: list[Request] = []
    for tokens in group:
        request = engine.new_request(tokens, SamplingParams(max_tokens=1))
        request.table = engine.blocks.begin(tokens, f"\0embedding {request.id}", spare=len(engine.scheduler.running))
        if request.table is None:
            for each in requests:
                _release(engine, each)
            return []
        requests.append(request)
    return requests


@torch.inference_mode()
def _add_slice(engine: Engine, requests: Sequence[Request], start: int, sums: Sequence[Tensor]) -> None:
    chunks = [
        Chunk(request, start, min(len(request.tokens) - start, engine.config.step_tokens))
        for request in requests
        if start < len(request.tokens)
    ]
    computed = engine.runner.run(chunks, (engine.model_config.layers - 1,))
    assert computed.streams is not None
    states: Tensor = engine.runner.decoder.norm(computed.streams)
    for chunk in chunks:
        first = computed.firsts[chunk.request.id]
        sums[requests.index(chunk.request)].add_(states[first : first + chunk.length].float().sum(0).cpu())


def _release(engine: Engine, request: Request) -> None:
    if request.table is not None:
        engine.blocks.release(request.table)
        request.table = None
