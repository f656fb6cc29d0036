"""python -m router_models.training.record --url URL --model NAME --answers FILE: ask a model what it was never recorded on.

Asks the everyday prompts, and with `--data` a sample of every gradable domain of the tables, so that the new model is linked
to those recorded there. Every answer is kept in FILE as it comes; what is there already is not asked again. Answers that a
rule can grade are graded; the others wait with `"score": null` for a reader to fill in. `--write` then adds the outcomes to
those that training learns from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import pandas as pd

from router_models.errors import RouterError, TrainingDataError
from router_models.training.checks import grade
from router_models.training.data import EVALUATION_ONLY, domain_of
from router_models.training.everyday import FOLDER, add_outcomes, everyday_questions

PER_DOMAIN = 50
AT_ONCE = 16
MOST_TOKENS = 400
TRIES = 4
SECONDS = 300.0

Question = dict[str, Any]
_THOUGHT = re.compile(r"^\s*<think>.*?(?:</think>|$)", re.DOTALL)


def benchmark_questions(folder: Path, per_domain: int = PER_DOMAIN) -> Iterator[Question]:
    """Prompts of the tables in `folder` whose `gold` a rule can check, the first by stem of every domain."""
    try:
        prompts = pd.read_parquet(folder / "prompts.parquet")
        overlaps = pd.read_parquet(folder / "overlap_with_routellm_eval.parquet")
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"the tables in {str(folder)!r} cannot be read: {error}") from error
    if "gold" not in prompts:
        raise TrainingDataError(
            f"the prompts in {str(folder)!r} have no column `gold` (right answers) to grade by; tables made by "
            "`python -m router_models.training.sources` have it. Without --data only the everyday prompts are asked"
        )
    repeated = set(zip(overlaps["dataset"], overlaps["prompt_id"].astype(str), strict=True))
    tested = set(prompts.loc[prompts["dataset"].isin(EVALUATION_ONLY), "stem_key"])
    taken: dict[str, int] = {}
    for row in prompts.sort_values(["stem_key", "dataset", "prompt_id"]).itertuples():
        dataset, name, category = str(row.dataset), str(row.prompt_id), str(row.category)
        check, domain = _check(dataset, category, str(row.gold)), domain_of(dataset, category)
        if check is None or (dataset, name) in repeated or row.stem_key in tested or taken.get(domain, 0) >= per_domain:
            continue
        taken[domain] = taken.get(domain, 0) + 1
        yield {"dataset": dataset, "prompt_id": name, "prompt": str(row.prompt), "check": check}


def _check(dataset: str, category: str, gold: str) -> dict[str, Any] | None:
    """How answers to a prompt of this set are graded, None where no rule can."""
    if dataset == "mmlu_pro" and re.fullmatch("[A-J]", gold):
        return {"letter": gold}
    if dataset in ("drift_prime", "drift_composite") and gold.lower() in ("yes", "no"):
        return {"yes_or_no": gold.lower()}
    if (dataset, category) == ("llmrouter14", "natural_qa") and gold:
        return {"any": [gold]}
    if dataset == "math_level5" or (dataset == "llmrouter14" and category in ("math", "gsm8k", "agentverse-mgsm")):
        boxed = re.findall(r"\\boxed\{(-?[\d.]+)\}|####\s*(-?[\d.,]+)|^(-?[\d.]+)$", gold.strip())
        return {"number": float("".join(boxed[-1]).replace(",", "").rstrip("."))} if boxed else None
    return None


async def ask_all(client: httpx.AsyncClient, model: str, questions: list[Question], most: int, kept: IO[str]) -> None:
    """Ask at temperature 0 and write each question with model, answer, out_tokens, cut and score. Raises TrainingDataError."""
    free = asyncio.Semaphore(AT_ONCE)

    async def ask(question: Question) -> None:
        message = {"role": "user", "content": question["prompt"]}
        body = {"model": model, "messages": [message], "temperature": 0, "max_tokens": most}
        async with free:
            try:
                said = read_reply((await _post(client, body)).json())
            except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                name = f"{str(client.base_url)!r} on {question['prompt_id']!r}"
                raise TrainingDataError(f"{name}: no usable answer ({type(error).__name__}: {error})") from error
        answer = {**question, "model": model, **said, "score": grade(question["check"], said["answer"])}
        kept.write(json.dumps(answer) + "\n")
        kept.flush()

    async with asyncio.TaskGroup() as group:
        for question in questions:
            group.create_task(ask(question))


async def _post(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    """A reply; a server that is busy or failing is asked again, later each time."""
    for attempt in range(TRIES):
        reply = await client.post("chat/completions", json=body)
        if reply.status_code != 429 and reply.status_code < 500:
            break
        if attempt + 1 < TRIES:
            await asyncio.sleep(2.0**attempt)
    return reply.raise_for_status()


def read_reply(reply: dict[str, Any]) -> dict[str, Any]:
    """The visible answer without a thought before it, its tokens (None where they are not counted), and whether it was cut."""
    choice = reply["choices"][0]
    usage = reply.get("usage") or {}
    return {
        "answer": _THOUGHT.sub("", choice["message"]["content"] or ""),
        "out_tokens": usage.get("completion_tokens"),
        "cut": choice.get("finish_reason") == "length",
    }


def record(chosen: argparse.Namespace) -> None:
    """Ask what is missing in the file of answers. Raises TrainingDataError, also for answers of another model."""
    there = read_answers(chosen.answers, chosen.model) if chosen.answers.exists() else []
    known = {(each["dataset"], each["prompt_id"]) for each in there}
    every = [*everyday_questions(chosen.recorded), *(benchmark_questions(chosen.data) if chosen.data else ())]
    missing = [each for each in every if (each["dataset"], each["prompt_id"]) not in known]
    key = os.environ.get(chosen.api_key_env, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=chosen.url.rstrip("/") + "/", timeout=SECONDS, headers=headers) as client:
            with chosen.answers.open("a", encoding="utf-8") as kept:
                await ask_all(client, chosen.model, missing, chosen.max_tokens, kept)

    try:
        asyncio.run(ask())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def read_answers(path: Path, model: str) -> list[Question]:
    """The answers in a file. Raises TrainingDataError when they are of another model."""
    answers: list[Question] = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    others = sorted({str(each.get("model")) for each in answers} - {model})
    if others:
        raise TrainingDataError(f"{str(path)!r} holds answers of {', '.join(others)}, not of {model!r}")
    return answers


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router_models.training.record", description="Record a model.")
    parser.add_argument("--url", help="OpenAI-compatible base URL; without it the answers in the file are used")
    parser.add_argument("--model", required=True, help="the name it is recorded under, and asked by")
    parser.add_argument("--data", type=Path, help="folder of the tables, for prompts that other models answered")
    parser.add_argument("--answers", type=Path, required=True, help="JSON lines: prompts, answers, scores")
    parser.add_argument("--api-key-env", default="OPENAI_API_KEY", metavar="NAME", help="variable that holds the key")
    parser.add_argument("--max-tokens", type=int, default=MOST_TOKENS, help="of one answer (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="add the scored answers to what training learns from")
    parser.add_argument("--recorded", type=Path, default=FOLDER, help="folder of prompts and outcomes (default: ours)")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.url:
            record(chosen)
        answers = read_answers(chosen.answers, chosen.model)
        unread = sum(each["score"] is None for each in answers)
        print(f"{len(answers)} answers, {unread} of them still to be read and scored, in {str(chosen.answers)!r}")
        if chosen.write:
            count = add_outcomes(chosen.model, answers, chosen.recorded)
            print(f"{count} outcomes of {chosen.model} are learnt from when the router is trained next")
    except (OSError, ValueError, RouterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
