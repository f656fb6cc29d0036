"""Labelled answers of one's own as a source of training tables, of the same shape as the public ones.

Every source of answers (a policy) becomes a data set and a domain of its own. A model that is also in the public tables, under
the same name, puts its prompts on their scale of difficulty; without one their level is a guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pandas as pd

from router_models.labelled import LabelledAnswer
from router_models.training.data import Source, Tables
from router_models.training.sources import stem_key

OWN = "own/"
"""What the names of data sets of one's own begin with."""


def traffic_source(answers: Iterable[LabelledAnswer]) -> Source:
    """Tables of these answers; prompts without text cannot be trained on and are left out."""
    prompts: dict[tuple[str, str], dict[str, str]] = {}
    outcomes = []
    for answer in answers:
        if answer.prompt is None or not answer.prompt.strip():
            continue
        dataset = f"{OWN}{answer.source}"
        name = answer.request or hashlib.sha256(answer.prompt.encode("utf-8", "replace")).hexdigest()[:24]
        prompts.setdefault(
            (dataset, name),
            {
                "dataset": dataset,
                "prompt_id": name,
                "prompt": answer.prompt,
                "category": "",
                "stem_key": stem_key(answer.prompt),
            },
        )
        outcomes.append(
            {
                "dataset": dataset,
                "prompt_id": name,
                "model": answer.model or f"own {answer.tier}",
                "tier": answer.tier,
                "score": answer.score,
                "out_tokens": answer.output_tokens,
            }
        )
    columns = ["dataset", "prompt_id", "prompt", "category", "stem_key"]
    return Source(
        pd.DataFrame(prompts.values(), columns=columns),
        pd.DataFrame(outcomes, columns=["dataset", "prompt_id", "model", "tier", "score", "out_tokens"]),
        overlaps=None,
    )


def left_out(tables: Tables) -> int:
    """How many prompts of one's own are not used because they repeat what other sources keep for tests."""
    own = tables.prompts["dataset"].str.startswith(OWN)
    return int((own & tables.prompts["overlaps"]).sum())
