"""Models of real shapes with random weights, made where they run: speed depends on shapes, and no weights need travel.

Tokens stand for numbers ("w17"), so that text is made as for a real model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models
from torch import nn

import benchmarks.without_gguf  # noqa: F401  before the engine
from local_engine.cache_size import CacheSize
from local_engine.config import EngineConfig, ModelConfig
from local_engine.engine import Engine
from local_engine.gpu_runner import GpuRunner
from local_engine.layers.linear import Linear
from local_engine.layers.norm import RmsNorm
from local_engine.layers.rope import llama3_factors
from local_engine.model_runner import TORCH_DTYPES, ModelRunner
from local_engine.models.decoder import Decoder
from local_engine.quantization.fp8 import Fp8Linear
from local_engine.quantization.int4 import Int4Linear
from local_engine.quantization.int8 import Int8Linear
from local_engine.speculative.drafter import Drafter, taps_of
from local_engine.tokenizer import Tokenizer

_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

SHAPES = {
    "llama-3.1-8b": ModelConfig(
        "llama", 128256, 4096, 14336, 32, 32, 8, 128, 131072, 500000.0, 1e-5, False,
        rope_factors=llama3_factors(128, 500000.0, _LLAMA3),
    ),
    "qwen3-0.6b": ModelConfig("qwen3", 151936, 1024, 3072, 28, 16, 8, 128, 40960, 1e6, 1e-6, True, qk_norm=True),
    "tiny": ModelConfig("llama", 512, 128, 256, 2, 4, 2, 32, 4096, 10000.0, 1e-5, False),
    "tiny-qwen": ModelConfig("qwen3", 512, 128, 256, 2, 6, 2, 32, 4096, 10000.0, 1e-6, True, qk_norm=True),
}  # fmt: skip
"""As in the config.json of the models named."""

KINDS: dict[str, type[Int8Linear] | type[Int4Linear] | type[Fp8Linear]] = {
    "int8": Int8Linear,
    "int4": Int4Linear,
    "fp8": Fp8Linear,
}


@torch.no_grad()
def random_decoder(
    config: ModelConfig, positions: int, dtype: torch.dtype, device: torch.device, quantize: str = "none", seed: int = 0
) -> Decoder:
    """Weights drawn on the device as training starts them; matrices quantised layer by layer, the last at most to 8 bits."""
    generator = torch.Generator(device).manual_seed(seed)
    decoder = Decoder(config, positions, dtype, device)
    for module in decoder.modules():
        if isinstance(module, RmsNorm):
            module.weight.fill_(1.0)
        elif isinstance(module, Linear):
            module.weight.normal_(0, module.weight.shape[1] ** -0.5, generator=generator)
    decoder.embeddings.normal_(0, 1.0 if not config.tied_embeddings else config.hidden_size**-0.5, generator=generator)
    if quantize == "none":
        return decoder
    for parent in [module for module in decoder.modules() if module is not decoder]:
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear):
                setattr(parent, name, KINDS[quantize].from_weight(child.weight))
    last: nn.Module = KINDS["int8" if quantize == "int4" else quantize].from_weight(decoder.output.weight)
    decoder.output = last
    return decoder


def weight_bytes(decoder: Decoder) -> int:
    """What a step of one token must read of the weights: every matrix once, of the embeddings one row."""
    linears = [
        module for module in decoder.modules() if isinstance(module, Linear | Int8Linear | Int4Linear | Fp8Linear)
    ]
    return sum(tensor.nbytes for module in linears for tensor in (*module.parameters(False), *module.buffers(False)))


def numbers_tokenizer(size: int) -> Tokenizer:
    """Token i reads "wi"; nothing ends an answer."""
    fast = FastTokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
    return Tokenizer(fast, template=None, end_ids=frozenset())


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine is built for."""

    shape: str
    max_batch: int
    max_context: int
    cache_tokens: int
    quantize: str = "none"
    step_tokens: int = 16384
    dtype: str = "bfloat16"
    max_drafts: int = 0


def engine_for(load: Load, device: torch.device, drafters: Sequence[Drafter] = ()) -> Engine:
    """An engine over random weights with kernels and graphs; on a CPU the same by reference kernels, as a rehearsal."""
    model = SHAPES[load.shape]
    config = EngineConfig(
        dtype=load.dtype, device=device.type, max_batch=load.max_batch, max_context=load.max_context,  # type: ignore[arg-type]
        step_tokens=max(load.step_tokens, load.max_batch), cache_tokens=load.cache_tokens,
        max_drafts=max(1, load.max_drafts),
    )  # fmt: skip
    decoder = random_decoder(model, load.max_context, TORCH_DTYPES[config.dtype], device, load.quantize)
    size = CacheSize(-(-load.cache_tokens // config.block_size), config.block_size, 0)
    runner = GpuRunner(
        ModelRunner(decoder, size), max_batch=load.max_batch, max_context=load.max_context, max_drafts=load.max_drafts,
        taps=taps_of(drafters),
    )  # fmt: skip
    return Engine(runner, numbers_tokenizer(model.vocab_size), config, drafters)
