"""Log probabilities of chosen tokens and of their likeliest rivals, from the model's own logits: before bias, cuts, grammar."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from local_engine.request import Logprobs


def logprobs_of(logits: Tensor, tokens: Sequence[int], wanted: Sequence[int | None]) -> list[Logprobs | None]:
    """For rows [rows, vocab] and the token chosen in each: its natural log probability and the `wanted` likeliest, or None."""
    places = [place for place, count in enumerate(wanted) if count is not None]
    found: list[Logprobs | None] = [None] * len(tokens)
    if not places:
        return found
    table = torch.log_softmax(logits[places].float(), -1)
    chosen = torch.tensor([tokens[place] for place in places], device=table.device)
    values = table.gather(-1, chosen[:, None])[:, 0].tolist()
    most = max([1, *(count for count in wanted if count is not None)])
    best = table.topk(min(most, table.shape[-1]))
    top_values, top_ids = best.values.tolist(), best.indices.tolist()
    for row, place in enumerate(places):
        count = wanted[place] or 0
        top = tuple(zip(top_ids[row][:count], top_values[row][:count], strict=True))
        found[place] = Logprobs(tokens[place], values[row], top)
    return found
