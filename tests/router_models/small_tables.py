"""Small made-up tables of recorded outcomes, in which one can see what a trained artifact should have learnt."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

MODELS = {"gemma-7b": 0.0, "llama-3.1-70b-instruct": 1.0, "gpt-4o-2024-08-06": 2.0}
EASY = ("add the small numbers {} and {}", "how many apples are {} and {}")
HARD = ("prove the conjecture about manifolds {} and {}", "derive the spectrum of operator {} and {}")


def made_up(folder: Path, per_pattern: int = 60) -> Path:
    """Tables of two datasets in which prompts of HARD are failed by weak models."""
    rng = np.random.default_rng(3)
    prompts, outcomes = [], []
    for dataset in ("math_level5", "mmlu_pro"):
        for pattern in (*EASY, *HARD):
            for number in range(per_pattern):
                text = pattern.format(number, number * 7)
                identity = f"{pattern[:6]}-{number}"
                stem = hashlib.sha256(f"{dataset}{text}".encode()).hexdigest()[:16]
                prompts.append((dataset, identity, text, "maths|made-up", stem))
                for model, ability in MODELS.items():
                    hard = 2.5 if pattern in HARD else -1.5
                    right = float(rng.random() < 1 / (1 + np.exp(hard - ability)))
                    outcomes.append((dataset, identity, model, right, 300 if pattern in HARD else 40))
    folder.mkdir(parents=True, exist_ok=True)
    names = ["dataset", "prompt_id", "prompt", "category", "stem_key"]
    pd.DataFrame(prompts, columns=names).to_parquet(folder / "prompts.parquet")
    names = ["dataset", "prompt_id", "model", "score", "out_tokens"]
    pd.DataFrame(outcomes, columns=names).to_parquet(folder / "outcomes.parquet")
    pd.DataFrame({"dataset": ["math_level5"], "prompt_id": ["prove -5"]}).to_parquet(
        folder / "overlap_with_routellm_eval.parquet"
    )
    return folder
