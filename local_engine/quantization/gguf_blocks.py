"""4-bit blocks of a GGUF file as `Int4Rows`, without going through floats: Q4_0 and Q4_1 exactly, Q4_K with its scales
rounded to float16 (a relative error of at most 2^-11, a hundredth of a quantisation step).

Formats: block_q4_0, block_q4_1, block_q4_K in ggml-common.h of https://github.com/ggml-org/ggml
"""

from __future__ import annotations

import torch
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from local_engine.quantization.int4 import GROUP, Int4Rows, pack

FOUR_BIT = frozenset((GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q4_K))


def int4_from_gguf(raw: Tensor, kind: GGMLQuantizationType) -> Int4Rows | None:
    """From uint8 [rows, bytes of a row]; None for kinds that are no 4-bit groups or hold numbers float16 cannot."""
    if kind == GGMLQuantizationType.Q4_0:
        rows = _q4_0(raw)
    elif kind == GGMLQuantizationType.Q4_1:
        rows = _q4_1(raw)
    elif kind == GGMLQuantizationType.Q4_K:
        rows = _q4_k(raw)
    else:
        return None
    return rows if bool(rows.scale.isfinite().all() and rows.minimum.isfinite().all()) else None


def _q4_0(raw: Tensor) -> Int4Rows:
    """Blocks of 18 bytes: scale d, 16 bytes of nibbles; w = d * (q - 8). Eight times a float16 is one too."""
    blocks = raw.view(raw.shape[0], -1, 18)
    scale = _halves(blocks[..., :2])[..., 0]
    return pack(_nibbles(blocks[..., 2:]), scale, scale * -8)


def _q4_1(raw: Tensor) -> Int4Rows:
    """Blocks of 20 bytes: scale d, minimum m, 16 bytes of nibbles; w = d * q + m."""
    blocks = raw.view(raw.shape[0], -1, 20)
    halves = _halves(blocks[..., :4])
    return pack(_nibbles(blocks[..., 4:]), halves[..., 0].clone(), halves[..., 1].clone())


def _q4_k(raw: Tensor) -> Int4Rows:
    """Blocks of 144 bytes: d, dmin, 8 pairs of 6-bit factors in 12 bytes, 128 bytes of nibbles; w = d * s * q - dmin * m.

    Of every 32 bytes of nibbles the low ones are one group and the high ones the next.
    """
    rows = raw.shape[0]
    blocks = raw.view(rows, -1, 144)
    halves = _halves(blocks[..., :4]).float()
    packed = blocks[..., 4:16].to(torch.int32)
    low, middle, high = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    factors = torch.cat((low & 63, (high & 15) | (low >> 6 << 4)), dim=-1)
    offsets = torch.cat((middle & 63, (high >> 4) | (middle >> 6 << 4)), dim=-1)
    quarters = blocks[..., 16:].reshape(rows, -1, 4, GROUP)
    values = torch.stack((quarters & 15, quarters >> 4), dim=3).reshape(rows, -1, GROUP)
    scale = (halves[..., :1] * factors).view(rows, -1)
    minimum = (halves[..., 1:] * -offsets).view(rows, -1)
    return pack(values, scale.half(), minimum.half())


def _halves(raw: Tensor) -> Tensor:
    """Bytes [..., 2n] as float16 [..., n]."""
    return raw.contiguous().view(torch.float16)


def _nibbles(raw: Tensor) -> Tensor:
    """Bytes [rows, blocks, 16] as values [rows, blocks, 32]: all low nibbles, then all high ones."""
    return torch.cat((raw & 15, raw >> 4), dim=-1)
