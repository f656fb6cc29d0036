"""python -m router_models.training.sources --out DIR: fetch public outcome tables into the layout that training reads.

Fetched so far: RouteLLM's MMLU and GSM8K outcomes (Apache-2.0), which `router_models.evaluation` needs. The sets
that are trained on (MMLU-Pro, ZeroEval, LLMRouter, LLMDrift) are not fetched yet: see docs/routing.md. A download that
fails is named and nothing is written.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import urllib.request
from pathlib import Path

import pandas as pd

from router_models.errors import RouterError, TrainingDataError

ROUTELLM = "https://raw.githubusercontent.com/lm-sys/RouteLLM/0b64fdafe049e596a3f5657c219329f24af24198"
SECONDS = 60
MODELS = ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
# GSM8K's file spells the weak model otherwise.
GSM8K_COLUMNS = {"mixtral-8x7b-instruct-v0.1": MODELS[0]}
MMLU_SUBJECTS = """
    abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security
    conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts
    high_school_biology high_school_chemistry high_school_computer_science high_school_european_history
    high_school_geography high_school_government_and_politics high_school_macroeconomics high_school_mathematics
    high_school_microeconomics high_school_physics high_school_psychology high_school_statistics
    high_school_us_history high_school_world_history human_aging human_sexuality international_law jurisprudence
    logical_fallacies machine_learning management marketing medical_genetics miscellaneous moral_disputes
    moral_scenarios nutrition philosophy prehistory professional_accounting professional_law
    professional_medicine professional_psychology public_relations security_studies sociology us_foreign_policy
    virology world_religions
""".split()  # noqa: SIM905 (57 names in a list literal are 57 lines)


def stem_key(question: str) -> str:
    """16 hex digits that name a question whatever its case and punctuation; options must be cut off before."""
    plain = re.sub(r"[^a-z0-9]+", " ", question.lower()).strip()
    return hashlib.sha1(plain.encode(), usedforsecurity=False).hexdigest()[:16]


def fetch_routellm(folder: Path, base: str = ROUTELLM) -> int:
    """Write prompts, outcomes and an empty list of overlaps to `folder`; returns the number of prompts.

    `base` is the address of a checkout, also file://. Raises TrainingDataError.
    """
    parts = [_gsm8k(_table(f"{base}/routellm/evals/gsm8k/gsm8k_responses.csv"))]
    for subject in MMLU_SUBJECTS:
        table = _table(f"{base}/routellm/evals/mmlu/responses/mmlu_{subject}.csv")
        parts.append(_rows("mmlu_test", subject, subject, table))
    prompts = pd.concat([prompt for prompt, _ in parts], ignore_index=True)
    outcomes = pd.concat([outcome for _, outcome in parts], ignore_index=True)
    folder.mkdir(parents=True, exist_ok=True)
    prompts.to_parquet(folder / "prompts.parquet", index=False)
    outcomes.to_parquet(folder / "outcomes.parquet", index=False)
    none = pd.DataFrame({"dataset": [], "prompt_id": []}, dtype=str)
    none.to_parquet(folder / "overlap_with_routellm_eval.parquet", index=False)
    return len(prompts)


def _gsm8k(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return _rows("gsm8k_test", "test", "math_word", table.rename(columns=GSM8K_COLUMNS))


def _rows(dataset: str, prefix: str, category: str, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One file as rows of prompts and of outcomes; prompts are numbered in the file's order."""
    missing = [column for column in ("prompt", *MODELS) if column not in table.columns]
    if missing:
        raise TrainingDataError(f"the file of {dataset} {category!r} lacks the columns {missing!r}; was it changed?")
    identities = [f"{prefix}-{number:04d}" for number in range(len(table))]
    questions = [re.split(r"\nA\. ", prompt)[0] for prompt in table["prompt"]]
    prompts = pd.DataFrame(
        {
            "dataset": dataset,
            "prompt_id": identities,
            "prompt": table["prompt"],
            "category": category,
            "stem_key": [stem_key(question) for question in questions],
        }
    )
    outcomes = [
        pd.DataFrame(
            {
                "dataset": dataset,
                "prompt_id": identities,
                "model": model,
                "score": (table[model] == "True").astype(float),
                "out_tokens": float("nan"),
            }
        )
        for model in MODELS
    ]
    return prompts, pd.concat(outcomes, ignore_index=True)


def _table(address: str) -> pd.DataFrame:
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as reply:  # noqa: S310 (fixed addresses, or the caller's own)
            content = reply.read()
        return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"{address!r} cannot be fetched or read: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m router_models.training.sources", description="Fetch public tables."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the tables to")
    parser.add_argument("--routellm", default=ROUTELLM, help="address of a RouteLLM checkout")
    chosen = parser.parse_args(arguments)
    try:
        count = fetch_routellm(chosen.out, chosen.routellm)
    except RouterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {count} prompts to {str(chosen.out)!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
