"""From the files of a model to an engine that answers; what cannot be loaded raises a ModelError that says why."""

from __future__ import annotations

from pathlib import Path

import torch

from local_engine.cache_size import free_memory, plan_cache
from local_engine.config import EngineConfig, Quantization
from local_engine.engine import Engine
from local_engine.model_runner import TORCH_DTYPES, ModelRunner, on_gpu, pick_device
from local_engine.models.load import Progress, load_decoder, number_format
from local_engine.models.open import open_model
from local_engine.models.size import check_fits
from local_engine.models.weights import WeightSource
from local_engine.native_step import has_native
from local_engine.request import SamplingParams
from local_engine.speculative.choose import choose_drafters
from local_engine.speculative.drafter import taps_of
from local_engine.tokenizer import Tokenizer


def load_engine(path: Path, config: EngineConfig, progress: Progress | None = None) -> Engine:
    """An engine for a .gguf file or a Hugging Face model directory. Raises ModelError."""
    runner, tokenizer = load_runner(path, config, progress)
    max_context = min(config.max_context, runner.decoder.config.max_positions)
    drafters = choose_drafters(config, runner, tokenizer, max_context)
    runner = on_gpu(runner, config.max_batch, max_context, config.max_drafts if drafters else 0, taps_of(drafters))
    return Engine(runner, tokenizer, config, drafters)


def load_runner(path: Path, config: EngineConfig, progress: Progress | None = None) -> tuple[ModelRunner, Tokenizer]:
    """The model alone, with its cache but without an engine around it. Raises ModelError."""
    source, tokenizer = open_model(path)
    return build_runner(source, config, progress), tokenizer


def build_runner(source: WeightSource, config: EngineConfig, progress: Progress | None = None) -> ModelRunner:
    """As `load_runner`, for files that are open already: whoever wants to look at the shape first. Raises ModelError."""
    max_context = min(config.max_context, source.config.max_positions)
    dtype, device = TORCH_DTYPES[config.dtype], pick_device(config.device)
    quantize = choose_format(source, config)
    weights = check_fits(source.config, dtype, quantize, free_memory(device))
    size = plan_cache(config, source.config, max_context, dtype, device, reserved=weights)
    decoder = load_decoder(
        source, positions=max_context, dtype=dtype, device=device, quantize=quantize, progress=progress
    )
    return ModelRunner(decoder, size, config.kv_dtype, config.cpu_kernel)


def choose_format(source: WeightSource, config: EngineConfig) -> Quantization:
    """What the matrices become: as configured, or int8 where the native kernel will compute. Raises CannotQuantize."""
    if config.quantize != "auto":
        return number_format(source, config.quantize)
    kernel = source.stored == "none" and config.cpu_kernel == "auto" and config.kv_dtype == "auto"
    if kernel and has_native(source.config, pick_device(config.device), TORCH_DTYPES[config.dtype]):
        return "int8"
    return number_format(source, "none")


def warm_up(engine: Engine) -> None:
    """Run one short answer, so that the first caller does not pay for torch's lazy start, nor for the text of all tokens."""
    with torch.inference_mode():
        engine.generate(
            [0] * min(8, engine.max_context - 2), SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
        )
