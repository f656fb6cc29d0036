"""Which drafter an engine gets; one that does not go with the model is refused before anything is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from local_engine.cache_size import CacheSize, plan_cache
from local_engine.config import EngineConfig
from local_engine.errors import DraftModelUnfit, ModelNotFound
from local_engine.model_runner import ModelRunner
from local_engine.models.gguf_file import GgufFile
from local_engine.models.load import load_decoder
from local_engine.models.weights import GgufWeights, SafetensorsWeights, WeightSource
from local_engine.speculative.draft import ModelDrafter, check_vocabulary
from local_engine.speculative.drafter import Drafter
from local_engine.speculative.ngram import NgramDrafter
from local_engine.tokenizer import Tokenizer, tokenizer_from_directory, tokenizer_from_gguf


def choose_drafter(config: EngineConfig, runner: ModelRunner, tokenizer: Tokenizer, max_context: int) -> Drafter | None:
    """The drafter `config.speculate` names, or None. Raises ModelError."""
    if config.speculate == "off":
        return None
    if config.speculate == "draft":
        assert config.draft_model is not None  # EngineConfig saw to it
        return load_draft_model(config.draft_model, config, runner, tokenizer, max_context)
    if config.speculate == "head":
        raise DraftModelUnfit("there is no trained drafter for this model: take --speculate ngram, auto or draft")
    return NgramDrafter()


def load_draft_model(
    path: Path, config: EngineConfig, runner: ModelRunner, tokenizer: Tokenizer, max_context: int
) -> ModelDrafter:
    """A second model beside the target's `runner`. Raises ModelError, DraftModelUnfit when the vocabularies differ."""
    source, theirs = open_model(path)
    check_vocabulary(tokenizer, runner.decoder.config.vocab_size, theirs, source.config.vocab_size)
    dtype, device, pool = runner.pool.tensor.dtype, runner.device, runner.pool
    positions = min(max_context, source.config.max_positions)
    # Room for everything the target's cache can hold at once: a token more would never be asked for.
    asked = replace(config, cache_tokens=pool.blocks * pool.block_size, cache_mib=None)
    size: CacheSize = plan_cache(asked, source.config, positions, dtype, device)
    decoder = load_decoder(source, positions=positions, dtype=dtype, device=device)
    return ModelDrafter(ModelRunner(decoder, size, cpu_kernel=config.cpu_kernel), positions)


def open_model(path: Path) -> tuple[WeightSource, Tokenizer]:
    """Weights and tokenizer of a .gguf file or a Hugging Face model directory. Raises ModelError."""
    if path.is_dir():
        return SafetensorsWeights(path), tokenizer_from_directory(path)
    if path.is_file():
        weights = GgufWeights(GgufFile(path))
        return weights, tokenizer_from_gguf(weights.file.metadata)
    raise ModelNotFound(f"{str(path)!r} is neither a .gguf file nor a model directory")
