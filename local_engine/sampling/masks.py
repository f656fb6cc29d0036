"""Take the tokens that guides forbid out of the logits, for all guided rows in one go."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from local_engine.request import Row
from local_engine.structured.guide import allowed_after


def allowed_rows(rows: Sequence[Row]) -> dict[int, Tensor]:
    """Bits of what may come next, by place of the row; rows of one request stand together, as batches lay them out."""
    masks: dict[int, Tensor] = {}
    for request, group in groupby(enumerate(rows), key=lambda item: item[1].request):
        if request.guide is not None:
            places, members = zip(*group, strict=True)
            found = allowed_after(request.guide, request.answer, [row.drafts for row in members])
            masks |= {place: mask for place, mask in zip(places, found, strict=True) if mask is not None}
    return masks


def forbid(logits: Tensor, masks: dict[int, Tensor]) -> None:
    """Set the logits of forbidden tokens to -inf, in place."""
    places = list(masks)
    allowed = unpack_bits(torch.stack(list(masks.values())).to(logits.device), logits.shape[-1])
    logits[places] = logits[places].masked_fill_(~allowed, -torch.inf)


def unpack_bits(bits: Tensor, length: int) -> Tensor:
    """bool [rows, length] of int32 [rows, words], lowest bit first; tokens beyond the words are not allowed."""
    spread = (bits[:, :, None] >> torch.arange(32, dtype=torch.int32, device=bits.device)) & 1
    flat = spread.flatten(1).bool()
    if flat.shape[1] < length:
        flat = torch.nn.functional.pad(flat, (0, length - flat.shape[1]))
    return flat[:, :length]
