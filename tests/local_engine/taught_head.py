"""A tiny target and the draft head that was distilled from it, shared by the tests of training and of drafting."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.loading import load_engine
from local_engine.training.distil import Distilled, DistilPlan, distil
from tests.local_engine.tiny_models import reference, write_hub_directory

WORDS = ("the", "gate", "turbine", "water", "pays", "count", "every", "token", "short", "long", "answer", "hides")
PLAN = DistilPlan(minutes=5, vocabulary=300, width=96, answer_tokens=24, lanes=32, rows=128, steps=40, seed=1)


@dataclass(frozen=True)
class Taught:
    target: Path
    prompts: Path
    head: Path
    work: Path
    result: Distilled


def teach(folder: Path) -> Taught:
    """A head for a tiny model, distilled in a few seconds.

    Random weights say nothing that can be learned from a thousand tokens. Here the token itself outweighs its context, so
    that the model's text has a pattern, as text has.
    """
    target = write_hub_directory(folder / "model", seed=7, tie_word_embeddings=False)
    model = reference(target)
    model.model.embed_tokens.weight.data *= 30
    model.save_pretrained(target)
    prompts = folder / "prompts.jsonl"
    chance = random.Random(2)
    chosen = [" ".join(chance.choices(WORDS, k=chance.randint(2, 9))) for _ in range(96)]
    prompts.write_text("\n".join(json.dumps({"prompt": each}) for each in chosen))
    head, work = folder / "head.safetensors", folder / "work"
    result = distil(target, [prompts], head, PLAN, dtype="float32", device="cpu", work=work)
    return Taught(target, prompts, head, work, result)


def load(taught: Taught, **options: Any) -> Engine:
    return load_engine(taught.target, EngineConfig(**{"dtype": "float32", "max_context": 256, **options}))
