"""python -m router_models.training.record --url URL --model NAME --answers FILE: ask a model what it was never recorded on.

Asks the everyday prompts, and with `--data` a sample of every gradable domain of the tables, so that the new model is linked
to those recorded there. Answers that a rule can grade are graded; the others wait in the file with `"score": null` for a
reader to fill in. `--write` then adds the file's outcomes to those that training learns from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from router_models.errors import RouterError, TrainingDataError
from router_models.training.checks import grade
from router_models.training.data import EVALUATION_ONLY, domain_of
from router_models.training.everyday import add_outcomes, everyday_questions

PER_DOMAIN = 50
AT_ONCE = 16
MOST_TOKENS = 400
SECONDS = 300.0

Question = dict[str, Any]


def benchmark_questions(folder: Path, per_domain: int = PER_DOMAIN) -> Iterator[Question]:
    """Prompts of the tables in `folder` whose `gold` a rule can check, the first by stem of every domain."""
    try:
        prompts = pd.read_parquet(folder / "prompts.parquet")
        overlaps = pd.read_parquet(folder / "overlap_with_routellm_eval.parquet")
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"the tables in {str(folder)!r} cannot be read: {error}") from error
    if "gold" not in prompts:
        raise TrainingDataError(f"the prompts in {str(folder)!r} have no column `gold` to grade answers by")
    repeated = set(zip(overlaps["dataset"], overlaps["prompt_id"].astype(str), strict=True))
    taken: dict[str, int] = {}
    for row in prompts.sort_values(["stem_key", "dataset", "prompt_id"]).itertuples():
        name = str(row.dataset), str(row.prompt_id)
        check = _check(name[0], str(row.category), str(row.gold))
        domain = domain_of(name[0], str(row.category))
        if check is None or name in repeated or taken.get(domain, 0) >= per_domain:
            continue
        taken[domain] = taken.get(domain, 0) + 1
        yield {"dataset": name[0], "prompt_id": name[1], "prompt": str(row.prompt), "check": check}


def _check(dataset: str, category: str, gold: str) -> dict[str, Any] | None:
    """How answers to a prompt of this set are graded, None where no rule can."""
    if dataset in EVALUATION_ONLY:
        return None
    if dataset == "mmlu_pro" and re.fullmatch("[A-J]", gold):
        return {"letter": gold}
    if dataset in ("drift_prime", "drift_composite") and gold.lower() in ("yes", "no"):
        return {"first": gold.lower()}
    if (dataset, category) == ("llmrouter14", "natural_qa"):
        return {"any": [gold]}
    if dataset == "math_level5" or (dataset == "llmrouter14" and category in ("math", "gsm8k", "agentverse-mgsm")):
        boxed = re.findall(r"\\boxed\{(-?[\d.]+)\}|####\s*(-?[\d.,]+)|^(-?[\d.]+)$", gold.strip())
        return {"number": float("".join(boxed[-1]).replace(",", "").rstrip("."))} if boxed else None
    return None


async def ask_all(url: str, model: str, questions: list[Question]) -> list[Question]:
    """The questions with `answer`, `out_tokens` and `score`, asked at temperature 0. Raises TrainingDataError."""
    free = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url.rstrip("/") + "/", timeout=SECONDS) as client:

        async def ask(question: Question) -> Question:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": question["prompt"]}],
                "temperature": 0,
                "max_tokens": MOST_TOKENS,
            }
            async with free:
                try:
                    reply = (await client.post("chat/completions", json=body)).raise_for_status().json()
                except httpx.HTTPError as error:
                    raise TrainingDataError(f"{url!r} did not answer {question['prompt_id']!r}: {error!r}") from error
            answer = reply["choices"][0]["message"]["content"] or ""
            tokens = reply["usage"]["completion_tokens"]
            return {**question, "answer": answer, "out_tokens": tokens, "score": grade(question["check"], answer)}

        return list(await asyncio.gather(*map(ask, questions)))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router_models.training.record", description="Record a model.")
    parser.add_argument("--url", help="OpenAI-compatible base URL; without it the answers in the file are used")
    parser.add_argument("--model", required=True, help="the name it is recorded under, and asked by")
    parser.add_argument("--data", type=Path, help="folder of the tables, for prompts that other models answered")
    parser.add_argument("--answers", type=Path, required=True, help="JSON lines: prompts, answers, scores")
    parser.add_argument("--write", action="store_true", help="add the scored answers to what training learns from")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.url:
            questions = [*everyday_questions(), *(benchmark_questions(chosen.data) if chosen.data else ())]
            asked = asyncio.run(ask_all(chosen.url, chosen.model, questions))
            chosen.answers.write_text("".join(json.dumps(each) + "\n" for each in asked), encoding="utf-8")
        answers = [json.loads(line) for line in chosen.answers.read_text(encoding="utf-8").splitlines()]
        unread = sum(each["score"] is None for each in answers)
        print(f"{len(answers)} answers, {unread} of them still to be read and scored, in {str(chosen.answers)!r}")
        if chosen.write:
            add_outcomes(chosen.model, answers)
    except (OSError, ValueError, RouterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
