"""Runs a batch through the decoder on its device; owns the weights and the block pool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from local_engine.batch import build_batch
from local_engine.cache_size import CacheSize
from local_engine.config import DeviceName, Dtype, KvDtype
from local_engine.layers.paged_attention import PagedAttention
from local_engine.models.decoder import Decoder
from local_engine.quantization.kv import make_pool
from local_engine.request import Row
from local_engine.scheduler import Chunk

TORCH_DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def pick_device(name: DeviceName) -> torch.device:
    """The device for a configured name; 'auto' takes an NVIDIA GPU when torch sees one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class ModelRunner:
    """Decoder plus pool: `run` computes what the scheduler chose."""

    def __init__(self, decoder: Decoder, size: CacheSize, kv_dtype: KvDtype = "auto") -> None:
        self.decoder = decoder
        self.device = decoder.embeddings.device
        self.pool = make_pool(
            decoder.config, size.blocks, size.block_size, kv_dtype, decoder.embeddings.dtype, self.device
        )

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> tuple[Tensor, list[Row]]:
        """Compute the chunks. Returns logits [n, vocab] float32 and what each row is for."""
        batch = build_batch(chunks, self.pool.block_size, self.pool.dtype, self.device)
        attention = PagedAttention(self.pool, batch.slots, batch.spans, batch.answers)
        logits = self.decoder(batch.tokens, batch.positions, attention, batch.rows)
        return logits, batch.sampled
