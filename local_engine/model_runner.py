"""Runs a batch through the decoder on its device; owns the weights and the block pool."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from local_engine.batch import build_batch, rows_of
from local_engine.cache_size import CacheSize
from local_engine.config import CpuKernel, DeviceName, Dtype, KvDtype
from local_engine.errors import NoSuchDevice
from local_engine.layers.paged_attention import PagedAttention
from local_engine.models.decoder import Decoder
from local_engine.native_step import NativeStep, Piece, load_native
from local_engine.quantization.kv import make_pool
from local_engine.request import Row
from local_engine.scheduler import Chunk

if TYPE_CHECKING:
    from local_engine.run_ahead import RunAhead

log = logging.getLogger("local_engine")

TORCH_DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def pick_device(name: DeviceName) -> torch.device:
    """The device for a configured name; 'auto' takes an NVIDIA GPU when torch sees one. Raises NoSuchDevice."""
    seen = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not seen:
        if torch.version.cuda is None:
            why = f"torch {torch.__version__} was built without CUDA: install a torch with it"
        else:
            why = "torch sees no NVIDIA GPU: see whether nvidia-smi lists one and CUDA_VISIBLE_DEVICES hides none"
        raise NoSuchDevice(f"device is 'cuda', but {why}, or take --device auto or cpu")
    return torch.device("cuda" if seen else "cpu")


@dataclass(frozen=True, slots=True)
class Computed:
    """What a step computed: `logits` [n, vocab] float32 and what each row is for.

    `streams` [tokens, taps * hidden] are those that were asked for; the rows of a request begin at `firsts[its id]`.
    `likeliest`, where the step found it on the way: the place of each row's largest logit, -1 if they are not all finite.
    """

    logits: Tensor
    rows: list[Row]
    streams: Tensor | None
    firsts: dict[int, int]
    likeliest: list[int] | None = None


class ModelRunner:
    """Decoder plus pool: `run` computes what the scheduler chose."""

    def __init__(
        self, decoder: Decoder, size: CacheSize, kv_dtype: KvDtype = "auto", cpu_kernel: CpuKernel = "off"
    ) -> None:
        self.decoder = decoder
        self.device = decoder.embeddings.device
        self.pool = make_pool(
            decoder.config, size.blocks, size.block_size, kv_dtype, decoder.embeddings.dtype, self.device
        )
        self.native = load_native(decoder, self.pool) if cpu_kernel == "auto" else None

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], taps: Sequence[int] = ()) -> Computed:
        """Compute the chunks; `taps` are layers behind which the stream is wanted as well."""
        if self.native is not None:
            return self._run_native(self.native, chunks, taps)
        batch = build_batch(chunks, self.pool.block_size, self.pool.dtype, self.device)
        attention = PagedAttention(self.pool, batch.slots, batch.spans, batch.answers)
        tapped: dict[int, Tensor] = {}
        stream = self.decoder.hidden(batch.tokens, batch.positions, attention, taps, tapped)
        logits = self.decoder.logits(stream[batch.rows])
        streams = torch.cat([tapped[layer] for layer in taps], dim=-1) if taps else None
        return Computed(logits, batch.sampled, streams, batch.firsts)

    def _run_native(self, native: NativeStep, chunks: Sequence[Chunk], taps: Sequence[int]) -> Computed:
        """The same in one call."""
        pieces: list[Piece] = []
        rows: list[Row] = []
        wanted: list[int] = []
        firsts: dict[int, int] = {}
        end = 0
        for chunk in chunks:
            request = chunk.request
            assert request.table is not None
            tokens = request.tokens[chunk.start : chunk.start + chunk.length] + request.drafts[: chunk.drafts]
            pieces.append(Piece(tokens, chunk.start, request.table.blocks))
            firsts[request.id], end = end, end + len(tokens)
            if chunk.closes_gap:
                wanted += range(end - 1 - chunk.drafts, end)
                rows += rows_of(chunk)
        logits, streams, likeliest = native.run(pieces, wanted, taps)
        return Computed(logits, rows, streams if taps else None, firsts, likeliest)

    def ahead(self) -> RunAhead | None:
        """Who begins several decode steps at once, where that gains something."""
        return None


def on_gpu(
    plain: ModelRunner, max_batch: int, max_context: int, max_drafts: int, taps: Sequence[int] = ()
) -> ModelRunner:
    """A runner with kernels and graphs for a GPU; `plain` itself on a CPU, and where Triton is not installed.

    `taps` are the layers whose streams the drafters read.
    """
    if plain.device.type != "cuda":
        return plain
    if find_spec("triton") is None:
        log.warning("Triton is not installed: the GPU is used without kernels and graphs; pip install triton")
        return plain
    from local_engine.gpu_runner import GpuRunner  # needs Triton, which a CPU does not

    return GpuRunner(plain, max_batch=max_batch, max_context=max_context, max_drafts=max_drafts, taps=taps)
