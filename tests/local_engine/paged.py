"""Compute whole prompts through the block pool, step by step as the scheduler would, and give the logits of every token."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from local_engine.kv_cache import KVPool
from local_engine.layers.paged_attention import PagedAttention, make_answers, make_span
from local_engine.models.decoder import Decoder

BLOCK = 16


def paged_logits(decoder: Decoder, requests: list[list[int]], steps: list[int], *, together: bool) -> list[Tensor]:
    """Logits [tokens, vocab] of each request, all computed side by side, `steps` tokens of each at a time.

    With `together` blocks lie apart and steps of one token are attended in one call; otherwise blocks lie in a row and
    each request is attended alone.
    """
    device = torch.device("cpu")
    blocks = -(-max(map(len, requests)) // BLOCK)
    pool = KVPool(decoder.config, blocks * len(requests), BLOCK, decoder.embeddings.dtype, device)
    numbers = torch.arange(blocks * len(requests))
    tables = numbers.view(-1, len(requests)).T if together else numbers.view(len(requests), -1)
    done: list[list[Tensor]] = [[] for _ in requests]
    for start, end in itertools.pairwise(itertools.accumulate(steps, initial=0)):
        positions = torch.arange(start, end).repeat(len(requests))
        tokens = torch.tensor([request[start:end] for request in requests]).flatten()
        slots = torch.cat([table[torch.arange(start, end) // BLOCK] * BLOCK for table in tables]) + positions % BLOCK
        lists = [table.tolist() for table in tables]
        count = end - start
        spans, answers = [], None
        if together and count == 1:
            answers = make_answers(lists, [end] * len(lists), BLOCK, decoder.embeddings.dtype, device)
        else:
            for number, table in enumerate(lists):
                first = number * count
                spans.append(make_span(first, first + count, end, table, not together, BLOCK, device))
        with torch.inference_mode():
            logits = decoder(tokens, positions, PagedAttention(pool, slots, spans, answers), None)
        for rows, mine in zip(logits.split(count), done, strict=True):
            mine.append(rows)
    return [torch.cat(rows) for rows in done]
