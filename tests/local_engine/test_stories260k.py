"""A real 260,032-parameter model tells its published story byte for byte.

The checkpoint (MIT) is not part of this repository: set PENSTOCK_SHARED to a folder that holds
data/engine/stories260K/{checkpoint_legacy.bin, tokenizer.bin}; without it the test is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from local_engine.config import ModelConfig
from local_engine.kv_cache import KVPool
from local_engine.layers.attention_reference import PlainAttention
from local_engine.layers.paged_attention import PagedAttention, make_span
from local_engine.models.decoder import StepAttention
from local_engine.models.load import load_decoder
from tests.local_engine.llama2c import Llama2cWeights, read_pieces

# The output llama2.c's own test suite expects of `run stories260K.bin -z tok512.bin -t 0.0 -n 200` (MIT).
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She said, \"I want to "
    "play with your ball, but I can't find it.\"\n"
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"\n"
    "Lily didn't want to help her mom, so she"
)
BOS, LENGTH = 1, 200


def checkpoint_folder() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    folder = Path(os.environ.get("PENSTOCK_SHARED", beside)) / "data" / "engine" / "stories260K"
    if not (folder / "checkpoint_legacy.bin").is_file():
        pytest.skip("needs the stories260K checkpoint: set PENSTOCK_SHARED")
    return folder


def paged(config: ModelConfig) -> Callable[[int], StepAttention]:
    """Attention over blocks that lie backwards."""
    size, cpu = 8, torch.device("cpu")
    blocks = list(range(LENGTH // size))[::-1]
    pool = KVPool(config, len(blocks), size, torch.float32, cpu)

    def at(position: int) -> StepAttention:
        slot = torch.tensor([blocks[position // size] * size + position % size])
        return PagedAttention(pool, slot, [make_span(0, 1, position + 1, blocks, False, size, cpu)])

    return at


def plain(_: ModelConfig) -> Callable[[int], StepAttention]:
    attention = PlainAttention()
    return lambda _: attention


@pytest.mark.parametrize("kind", [plain, paged])
def test_stories260k_tells_its_published_story(kind: Callable[[ModelConfig], Callable[[int], StepAttention]]) -> None:
    folder = checkpoint_folder()
    source = Llama2cWeights(folder / "checkpoint_legacy.bin")
    cpu = torch.device("cpu")
    decoder = load_decoder(source, positions=source.config.max_positions, dtype=torch.float32, device=cpu)
    attention = kind(source.config)
    tokens = [BOS]
    with torch.inference_mode():
        for position in range(LENGTH):
            logits = decoder(torch.tensor([tokens[-1]]), torch.tensor([position]), attention(position), None)
            tokens.append(int(logits[0].argmax()))
    pieces = read_pieces(folder / "tokenizer.bin", source.config.vocab_size)
    assert b"".join(pieces[token] for token in tokens[1:]).removeprefix(b" ") == STORY.encode()
