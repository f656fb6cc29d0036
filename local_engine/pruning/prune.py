"""A model with its least influential layers left out, measured on text it has not seen, as a directory that loads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from local_engine.cache_size import CacheSize
from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.errors import CannotPrune
from local_engine.model_runner import ModelRunner
from local_engine.models.decoder import Decoder
from local_engine.models.load import Progress, load_decoder
from local_engine.models.open import open_model
from local_engine.perplexity import perplexity
from local_engine.pruning.influence import block_influence, check_count, drop_layers, least_influential
from local_engine.pruning.recover import recover
from local_engine.quantization.convert import check_out, write_model
from local_engine.request import SamplingParams
from local_engine.tokenizer import Tokenizer

_HELD_OUT = 0.2  # of the text, its end: perplexity is measured there
_MEASURED = 4096  # tokens of either part, at most, for perplexity and for influence
_DECODED = 48  # tokens that are timed
_ROUNDS = 5
_BLOCK = 16
Stage = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and the whole of it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Perplexity on the held-out end of the text."""

    perplexity: float
    parameters: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """`recovered` is None without distillation; `influence` has a number for each layer there was.

    Speeds are tokens per second of one decoded stream, whole and pruned model measured in turns.
    """

    directory: Path
    influence: list[float]
    dropped: list[int]
    before: Measured
    pruned: Measured
    recovered: Measured | None
    speed_before: float
    speed_after: float
    steps: int
    losses: list[float]


def prune_model(
    path: Path,
    text: str,
    layers: int,
    out: Path,
    *,
    steps: int = 0,
    context: int = 256,
    learning_rate: float = 2e-4,
    stage: Stage = lambda name, done, total: None,
) -> Pruned:
    """Drop `layers` layers of the model at `path`, distil for `steps` steps, write the result to `out`. Raises ModelError."""
    check_out(out)
    source, tokenizer = open_model(path)
    if source.stored != "none":
        raise CannotPrune(
            f"{str(path)!r} is {source.stored} already: prune the original model, quantise the pruned one"
        )
    check_count(layers, source.config.layers)
    context = min(context, source.config.max_positions)
    learnt, held_out = _split(tokenizer.encode(text), context)
    whole, pruned = (
        load_decoder(
            source, positions=context + _BLOCK, dtype=dtype, device=torch.device("cpu"), progress=partial(stage, name)
        )
        for name, dtype in (
            ("loading", torch.bfloat16),
            ("loading what is to be pruned", torch.float32 if steps else torch.bfloat16),
        )
    )
    before = _measure(whole, held_out, context, partial(stage, "perplexity before"))
    influence = block_influence(
        whole, learnt[: max(1, _MEASURED // context)], partial(stage, "influence of the layers")
    )
    dropped = least_influential(influence, layers)
    drop_layers(pruned, dropped)
    after = _measure(_in_bfloat16(pruned), held_out, context, partial(stage, "perplexity without them"))
    losses: list[float] = []
    if steps:
        losses = recover(
            pruned, whole, learnt, steps, learning_rate=learning_rate, progress=partial(stage, "distilling")
        )
    final = _in_bfloat16(pruned)
    recovered = _measure(final, held_out, context, partial(stage, "perplexity after")) if steps else None
    speed_before, speed_after = _speeds((whole, final), tokenizer, held_out[0], context, partial(stage, "speeds"))
    write_model(final, tokenizer, path, out, "none")
    return Pruned(
        out, influence, dropped, before, after, recovered, speed_before, speed_after, steps=steps, losses=losses
    )


def _split(tokens: list[int], context: int) -> tuple[list[Tensor], list[int]]:
    """Windows to learn from, and the end of the text to measure on."""
    held_out = tokens[-int(len(tokens) * _HELD_OUT) :][:_MEASURED]
    learnt = torch.tensor(tokens[: len(tokens) - len(held_out)])
    if len(held_out) < context:
        raise CannotPrune(
            f"the text has {len(tokens)} tokens: measuring needs {int(context / _HELD_OUT)} at least, learning many more"
        )
    return list(learnt[: len(learnt) // context * context].view(-1, context)), held_out


def _runner(decoder: Decoder, context: int) -> ModelRunner:
    return ModelRunner(decoder, CacheSize(-(-context // _BLOCK) + 1, _BLOCK, 0))


def _measure(decoder: Decoder, held_out: list[int], context: int, progress: Progress) -> Measured:
    quality = perplexity(_runner(decoder, context), held_out, context=context, progress=progress)
    return Measured(quality.value, sum(each.numel() for each in decoder.parameters()))  # a tied matrix counts once


def _speeds(
    decoders: Sequence[Decoder], tokenizer: Tokenizer, first: int, context: int, progress: Progress
) -> list[float]:
    """Tokens per second of each: the best of answers given in turns, as others may be busy on the machine."""
    config = EngineConfig(max_batch=1, max_context=context)
    engines = [Engine(_runner(decoder, context), tokenizer, config) for decoder in decoders]
    tokens = min(_DECODED, engines[0].max_context - 2)
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    best = [math.inf] * len(engines)
    for done in range(_ROUNDS):
        progress(done, _ROUNDS)
        for index, engine in enumerate(engines):
            begun = time.perf_counter()
            engine.generate([first], params)
            best[index] = min(best[index], time.perf_counter() - begun)
    return [tokens / seconds for seconds in best]


def _in_bfloat16(decoder: Decoder) -> Decoder:
    """A copy as it will be stored and served."""
    positions = len(decoder.rotary.cos)
    copy = Decoder(decoder.config, positions, torch.bfloat16, torch.device("cpu"))
    copy.load_state_dict(decoder.state_dict())
    return copy.eval()
