"""Reads the tables of recorded outcomes and says which prompts may be trained on; incomplete tables are refused by name.

Never trained on: the prompts of RouteLLM's evaluation (mmlu_test, gsm8k_test, mt_bench), prompts of other sets that
repeat one of them, the fifth of every other set that `is_held_out` names, and an eighth of the rest, with which promises of
quality are tested (`is_for_promises`). Prompts of one's own that repeat any of these in part are left out, too (`together`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from router_models.errors import TrainingDataError
from router_models.tiers import TIERS
from router_models.training.everyday import DATASET, everyday_prompts, recorded_outcomes, recorded_ratings
from router_models.training.model_tiers import canonical_model, tier_of
from router_models.training.overlap import repeating

EVALUATION_ONLY = frozenset({"mmlu_test", "gsm8k_test", "mt_bench"})
HELD_OUT_EVERY = 5
PROMISES_EVERY = 8
# Domains whose recorded scores do not say whether an answer was good; neither trained nor evaluated on.
BADLY_GRADED = {
    "llmrouter14/trivia_qa": "the expected answer is one arbitrary alias in odd word order (for the author of Das Kapital "
    "'marx karl'), so right answers score 0 and models of every ability score about .2",
}

_COLUMNS = {
    "prompts": ["dataset", "prompt_id", "prompt", "category", "stem_key"],
    "outcomes": ["dataset", "prompt_id", "model", "score", "out_tokens"],
    "overlap_with_routellm_eval": ["dataset", "prompt_id"],
}


@dataclass(frozen=True)
class Tables:
    """Prompts, one row each, and outcomes, one row per prompt and model.

    `prompts`: dataset, prompt_id, prompt, category, stem_key, domain, and as booleans held_out, overlaps (repeats a
    prompt of RouteLLM's evaluation), graded (not in BADLY_GRADED), for_promises, trainable. `outcomes`: row (position in
    prompts), model (one spelling), tier (or None), score (0..1 or missing; mt_bench 1..10), out_tokens (or missing). `ratings`:
    row, tier, rating (0..1), guesses where outcomes are missing.
    """

    prompts: pd.DataFrame
    outcomes: pd.DataFrame
    ratings: pd.DataFrame


_RATING = ["dataset", "prompt_id", "tier", "rating"]


def is_held_out(dataset: str, stem_key: str) -> bool:
    """Whether a prompt is never trained on, from its dataset and the hash of its question (16 hex digits).

    Every prompt of EVALUATION_ONLY sets, and of the others those with int(stem_key, 16) % 5 == 0.
    """
    return dataset in EVALUATION_ONLY or int(stem_key, 16) % HELD_OUT_EVERY == 0


def is_for_promises(stem_key: str) -> bool:
    """Whether a prompt that is not held out is kept for the calibration sample: int(stem_key, 16) % 8 == 3."""
    return int(stem_key, 16) % PROMISES_EVERY == 3


def domain_of(dataset: str, category: str) -> str:
    """The group of like prompts a prompt belongs to, the unit that is left out to imitate unseen traffic."""
    if dataset == "llmrouter14":
        return f"llmrouter14/{category}"
    if dataset == "mmlu_pro":
        subject, _, source = category.partition("|")
        family = source.split("-")[0]
        return f"mmlu_pro/{family}-{subject}" if family == "stemez" else f"mmlu_pro/{family}"
    if dataset == DATASET:
        return f"{DATASET}/{category}"
    return "drift" if dataset.startswith("drift_") else dataset


@dataclass(frozen=True)
class Source:
    """Tables as a source gives them: `prompts`, `outcomes` and `overlaps` with at least the columns in docs/routing.md.

    `overlaps` None says that nobody has looked for them yet: `together` does. `ratings` has dataset, prompt_id, tier, rating;
    only the source of our own has any.

    A column `tier` of outcomes says what a model stands for where `model_tiers` does not name it.
    """

    prompts: pd.DataFrame
    outcomes: pd.DataFrame
    overlaps: pd.DataFrame | None
    ratings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_RATING))


def load_tables(folder: Path) -> Tables:
    """Read prompts, outcomes and overlaps (parquet) from `folder`. Raises TrainingDataError."""
    return together([read_source(folder)])


def with_recorded(source: Source) -> list[Source]:
    """The source, and beside it the prompts of our own (`everyday`) and what we know of prompts of either.

    The source alone when none of our models answered any of its prompts: nothing would put ours on the same scale.
    """
    prompts, name = everyday_prompts(), ["dataset", "prompt_id"]
    theirs, ours = (each[name].astype(str) for each in (source.prompts, prompts))
    outcomes, ratings = recorded_outcomes(), recorded_ratings()
    if outcomes.merge(theirs, on=name).empty:
        return [source]
    known = pd.concat((ours, theirs))
    return [
        source,
        Source(prompts, outcomes.merge(known, on=name), None, ratings.merge(known, on=name)),
    ]


def read_source(folder: Path) -> Source:
    """The tables of a folder. Raises TrainingDataError."""
    return Source(*(_read(folder, name) for name in _COLUMNS))


def together(sources: Sequence[Source]) -> Tables:
    """Several sources as one, each without what repeats the evaluation of another. Raises TrainingDataError."""
    checked = [replace(source, overlaps=_overlaps(source, sources)) for source in sources]
    parts = [[getattr(source, field.name) for source in checked] for field in fields(Source)]
    return prepare(*(pd.concat(part, ignore_index=True) if len(part) > 1 else part[0] for part in parts))


def _overlaps(source: Source, sources: Sequence[Source]) -> pd.DataFrame:
    """The source's list, or else its prompts that repeat in part what another source keeps for tests (dataset, prompt_id).

    Not what its own keeps: requests of one application begin alike, and would all be left out.
    """
    if source.overlaps is not None:
        return source.overlaps
    kept = [text for other in sources if other is not source for text in _kept_for_tests(other.prompts)]
    mine = source.prompts[["dataset", "prompt_id"]].astype(str)
    return mine.loc[repeating(source.prompts["prompt"], kept)].reset_index(drop=True)


def _kept_for_tests(prompts: pd.DataFrame) -> Iterator[str]:
    rows = zip(prompts["dataset"], prompts["stem_key"], prompts["prompt"], strict=True)
    return (text for dataset, stem, text in rows if is_held_out(dataset, stem) or is_for_promises(stem))


def prepare(
    prompts: pd.DataFrame, outcomes: pd.DataFrame, overlaps: pd.DataFrame, ratings: pd.DataFrame | None = None
) -> Tables:
    """Add what training and evaluation ask of every prompt; see Tables."""
    prompts = prompts[_COLUMNS["prompts"]].astype(str).reset_index(drop=True)
    if prompts.duplicated(["dataset", "prompt_id"]).any():
        raise TrainingDataError("prompts has rows with the same dataset and prompt_id; make them distinct")
    keys = list(zip(prompts["dataset"], prompts["prompt_id"], strict=True))
    repeated = set(zip(overlaps["dataset"].astype(str), overlaps["prompt_id"].astype(str), strict=True))
    tested = set(prompts.loc[prompts["dataset"].isin(EVALUATION_ONLY), "stem_key"])
    prompts["domain"] = [domain_of(d, c) for d, c in zip(prompts["dataset"], prompts["category"], strict=True)]
    prompts["held_out"] = [is_held_out(d, s) for d, s in zip(prompts["dataset"], prompts["stem_key"], strict=True)]
    prompts["overlaps"] = np.array([key in repeated for key in keys]) | prompts["stem_key"].isin(tested)
    prompts["graded"] = ~prompts["domain"].isin(BADLY_GRADED)
    usable = ~prompts["held_out"] & ~prompts["overlaps"] & prompts["graded"]
    prompts["for_promises"] = usable & np.array([is_for_promises(stem) for stem in prompts["stem_key"]], dtype=bool)
    prompts["trainable"] = usable & ~prompts["for_promises"]
    rows = {key: row for row, key in enumerate(keys)}
    return Tables(prompts, _outcomes(outcomes, rows), _ratings(ratings, rows))


def _ratings(ratings: pd.DataFrame | None, rows: dict[tuple[str, str], int]) -> pd.DataFrame:
    given = pd.DataFrame(columns=_RATING) if ratings is None else ratings
    places = [rows[key] for key in zip(given["dataset"], given["prompt_id"], strict=True)]
    return pd.DataFrame({"row": places, "tier": given["tier"].tolist(), "rating": given["rating"].astype("float64")})


def _outcomes(outcomes: pd.DataFrame, rows: dict[tuple[str, str], int]) -> pd.DataFrame:
    keys = zip(outcomes["dataset"].astype(str), outcomes["prompt_id"].astype(str), strict=True)
    places = [rows.get(key, -1) for key in keys]
    if -1 in places:
        missing = outcomes.iloc[places.index(-1)]
        raise TrainingDataError(
            f"outcomes names prompt {missing['prompt_id']!r} of {missing['dataset']!r}, which prompts does not have"
        )
    models = outcomes["model"].astype(str)
    names = {model: (canonical_model(model), tier_of(model)) for model in models.unique()}
    said = outcomes["tier"].to_numpy(dtype=object) if "tier" in outcomes else [None] * len(models)
    return pd.DataFrame(
        {
            "row": places,
            "model": [names[model][0] for model in models],
            "tier": [tier if tier in TIERS else names[model][1] for model, tier in zip(models, said, strict=True)],
            "score": outcomes["score"].astype("float64").to_numpy(),
            "out_tokens": outcomes["out_tokens"].astype("float64").to_numpy(),
        }
    )


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise TrainingDataError(f"there is no table {str(path)!r}; --data must name the folder of the tables") from None
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"the table {str(path)!r} cannot be read: {error}") from error
    missing = [column for column in _COLUMNS[name] if column not in table.columns]
    if missing:
        raise TrainingDataError(f"the table {str(path)!r} lacks the columns {missing!r}")
    return table
