"""Which drafters an engine gets; one that does not go with the model is refused before anything is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from local_engine.cache_size import free_memory, plan_cache
from local_engine.config import EngineConfig
from local_engine.errors import DraftModelUnfit
from local_engine.model_runner import ModelRunner
from local_engine.models.load import load_decoder, number_format
from local_engine.models.open import open_model
from local_engine.models.size import check_fits
from local_engine.speculative.draft import ModelDrafter, check_vocabulary
from local_engine.speculative.drafter import Drafter
from local_engine.speculative.heads import HeadDrafter
from local_engine.speculative.ngram import NgramDrafter
from local_engine.speculative.shipped import find_head
from local_engine.tokenizer import Tokenizer


def choose_drafters(config: EngineConfig, runner: ModelRunner, tokenizer: Tokenizer, max_context: int) -> list[Drafter]:
    """What `config.speculate` names, none for "off". Raises ModelError."""
    if config.speculate == "off":
        return []
    if config.speculate == "draft":
        assert config.draft_model is not None  # EngineConfig saw to it
        return [load_draft_model(config.draft_model, config, runner, tokenizer, max_context)]
    if config.speculate == "ngram":
        return [NgramDrafter()]
    head = find_head(runner.decoder, config.draft_model, config.cpu_kernel)
    if config.speculate == "auto":
        return [NgramDrafter()] if head is None else [NgramDrafter(), HeadDrafter(head)]
    if head is None:
        raise DraftModelUnfit(
            "there is no trained drafter for this model: train one (train-drafter) and name it with --draft-model, or take "
            "--speculate auto"
        )
    return [HeadDrafter(head)]


def load_draft_model(
    path: Path, config: EngineConfig, runner: ModelRunner, tokenizer: Tokenizer, max_context: int
) -> ModelDrafter:
    """A second model beside the target's `runner`. Raises ModelError, DraftModelUnfit when the vocabularies differ."""
    source, theirs = open_model(path)
    check_vocabulary(tokenizer, runner.decoder.config.vocab_size, theirs, source.config.vocab_size)
    pool, device, dtype = runner.pool, runner.device, runner.decoder.embeddings.dtype
    positions = min(max_context, source.config.max_positions)
    # Room for everything the target's cache can hold at once: a token more would never be asked for.
    asked = replace(config, cache_tokens=pool.blocks * pool.block_size, cache_mib=None)
    weights = check_fits(source.config, dtype, number_format(source, "none"), free_memory(device))
    size = plan_cache(asked, source.config, positions, dtype, device, reserved=weights)
    decoder = load_decoder(source, positions=positions, dtype=dtype, device=device)
    return ModelDrafter(ModelRunner(decoder, size, cpu_kernel=config.cpu_kernel), positions)
