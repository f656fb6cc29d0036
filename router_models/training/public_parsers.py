"""Reads the public sources' own file formats into rows of prompts and outcomes; a file of another shape is refused by name.

Answers are graded here by simple rules of our own (the last "answer" field, "[Yes]" or "[No]", a boxed number): a few scores
may differ from those that the sources publish. Output tokens are the recorded count, or else a fourth of the answer's bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from router_models.errors import TrainingDataError
from router_models.training.checks import stated_yes_or_no

BYTES_PER_TOKEN = 4
# Separates a question from its options, which a stem leaves out.
_OPTIONS = re.compile(r"\nA\. ")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_ANSWER = re.compile(r'"answer"\s*:\s*("(?:[^"\\]|\\.)*"|-?[\d.,]+)')


@dataclass(frozen=True)
class Part:
    """Rows of one source: `prompts` by (dataset, prompt_id), and outcomes."""

    prompts: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    def add_prompt(self, dataset: str, prompt_id: str, prompt: str, category: str, gold: str = "") -> None:
        """One prompt and its right answer, where the source gives it; a repeated one stays as it was."""
        stem = stem_key(_OPTIONS.split(prompt)[0])
        row = {"dataset": dataset, "prompt_id": prompt_id, "prompt": prompt, "category": category, "stem_key": stem}
        row["gold"] = gold
        self.prompts.setdefault((dataset, prompt_id), row)

    def add_outcome(self, dataset: str, prompt_id: str, model: str, score: float | None, tokens: float | None) -> None:
        """What one model made of it."""
        row = {"dataset": dataset, "prompt_id": prompt_id, "model": model, "score": score, "out_tokens": tokens}
        self.outcomes.append(row)


def stem_key(question: str) -> str:
    """16 hex digits that name a question whatever its case and punctuation; options must be cut off before."""
    plain = re.sub(r"[^a-z0-9]+", " ", question.lower()).strip()
    return hashlib.sha1(plain.encode(), usedforsecurity=False).hexdigest()[:16]


def mmlu_pro(path: str, content: bytes, part: Part) -> None:
    """A zip with one JSON list: question_id, question, options, answer, category, src, pred, and the text that was written."""
    model = PurePosixPath(path).name.removeprefix("model_outputs_").split("_5shots")[0]
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        records = json.loads(file.read(next(name for name in file.namelist() if name.endswith(".json"))))
    for record in records:
        # Some lists hold the texts of failed calls between the records.
        if not isinstance(record, dict):
            continue
        options = [f"{chr(65 + place)}. {option}" for place, option in enumerate(record["options"])]
        prompt = "\n".join([record["question"], *options, "Answer:"])
        name = f"q{int(record['question_id']):05d}"
        part.add_prompt("mmlu_pro", name, prompt, f"{record['category']}|{record['src']}", str(record["answer"]))
        written = str(record.get("generated_text") or record.get("model_outputs") or "")
        part.add_outcome("mmlu_pro", name, model, float(record["pred"] == record["answer"]), _tokens(written))


def math_level5(path: str, content: bytes, part: Part) -> None:
    """A JSON list: id, problem, answer, and in `output` a JSON object with the model's `answer` among other text."""
    model = PurePosixPath(path).stem
    for record in json.loads(content):
        name = f"l5-{int(record['id']):04d}"
        written = str(record["output"][0])
        part.add_prompt("math_level5", name, record["problem"], "competition_math", str(record["answer"]))
        part.add_outcome(
            "math_level5", name, model, same_number(stated_answer(written), record["answer"]), _tokens(written)
        )


def drift(path: str, content: bytes, part: Part) -> None:
    """A CSV: model, dataset, id, query, ref_answer, answer, answer_token; leetcode's with what its judge said."""
    table = _csv(content)
    for record in table.to_dict("records"):
        dataset, name = f"drift_{record['dataset']}", str(record["id"])
        if record["dataset"] == "opinionqa":  # one question stands in several surveys under one id
            name = f"{name}-{stem_key(_OPTIONS.split(record['query'])[0])[:6]}"
        part.add_prompt(dataset, name, record["query"], record["dataset"], str(record["ref_answer"]))
        grade = _DRIFT_GRADES.get(record["dataset"])
        tokens = float(record["answer_token"]) if record["answer_token"] else None
        model = record["model"].removeprefix("openaichat/")
        part.add_outcome(dataset, name, model, None if grade is None else grade(record), tokens)


def llmrouter14(path: str, content: bytes, part: Part) -> None:
    """JSON lines: task_name, query, model_name, performance 0..1, and ground_truth where it is given.

    Not checked against the file itself: see docs/routing.md.
    """
    split = "train" if "train" in PurePosixPath(path).name else "test"
    places: dict[tuple[str, str], str] = {}
    for line in content.decode().splitlines():
        record = json.loads(line)
        key = record["task_name"], record["query"]
        name = places.setdefault(key, f"{split}-{len(places):05d}")
        gold = record.get("ground_truth")
        part.add_prompt("llmrouter14", name, record["query"], record["task_name"], "" if gold is None else str(gold))
        part.add_outcome("llmrouter14", name, record["model_name"], float(record["performance"]), None)


def routellm(path: str, content: bytes, part: Part) -> None:
    """RouteLLM's evaluation: CSVs of MMLU by subject and of GSM8K, a column per model, and MT-Bench's questions and grades."""
    name = PurePosixPath(path).name
    if name.startswith("mmlu_"):
        subject = name.removeprefix("mmlu_").removesuffix(".csv")
        _paired(part, "mmlu_test", subject, subject, _csv(content))
    elif name == "gsm8k_responses.csv":
        _paired(part, "gsm8k_test", "test", "math_word", _csv(content).rename(columns=GSM8K_COLUMNS))
    elif name == "question.jsonl":
        for record in _lines(content):
            for number, prompt in enumerate(record["turns"], start=1):
                part.add_prompt("mt_bench", f"{record['question_id']}-t{number}", prompt, record["category"])
    elif name == "judgements.jsonl":
        spelled = {model.rpartition("/")[2]: model for model in MODELS}
        for record in _lines(content):
            model = spelled.get(record["model"].rpartition("/")[2])
            if model is not None and record["score"] >= 0:
                turn = f"{record['question_id']}-t{record['turn']}"
                part.add_outcome("mt_bench", turn, model, float(record["score"]), None)


PARSERS: dict[str, Callable[[str, bytes, Part], None]] = {
    "routellm": routellm,
    "mmlu_pro": mmlu_pro,
    "math_level5": math_level5,
    "drift": drift,
    "llmrouter14": llmrouter14,
}
MODELS = ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
# GSM8K's file spells the weak model otherwise.
GSM8K_COLUMNS = {"mixtral-8x7b-instruct-v0.1": MODELS[0]}


def parse(source: str, path: str, content: bytes, part: Part) -> None:
    """Add one file's rows to `part`. Raises TrainingDataError that names the file."""
    try:
        PARSERS[source](path, content, part)
    except (KeyError, ValueError, TypeError, StopIteration, IndexError, AttributeError, zipfile.BadZipFile) as error:
        raise TrainingDataError(
            f"the file {path!r} of {source!r} is not as this release knows it ({type(error).__name__}: {error}); did it change?"
        ) from error


def stated_answer(text: str) -> str | None:
    """The last `answer` field of the JSON in a text, even when the JSON is broken; None without one."""
    found = _ANSWER.findall(text)
    return str(found[-1]).strip('"') if found else None


def same_number(stated: str | None, truth: str) -> float:
    """1 when the first numbers agree, after dropping dollar signs and thousands separators; 0 otherwise."""
    if stated is None:
        return 0.0
    first, second = (_NUMBER.search(_plain(text)) for text in (stated, truth))
    return float(first is not None and second is not None and float(first.group()) == float(second.group()))


def _plain(text: str) -> str:
    plain = text.replace("$", "").replace(",", "").replace("#", "").strip()
    parts = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)", plain)
    return str(float(parts[1]) / float(parts[2])) if parts and float(parts[2]) else plain


def _yes_or_no(record: dict[str, Any]) -> float | None:
    return float(stated_yes_or_no(record["answer"]) == record["ref_answer"].lower())


def _boxed(record: dict[str, Any]) -> float | None:
    found = [re.findall(r"boxed\{+\s*(-?\d+)", record[name]) for name in ("answer", "ref_answer")]
    return float(bool(found[0]) and bool(found[1]) and int(found[0][-1]) == int(found[1][-1]))


def _accepted(record: dict[str, Any]) -> float | None:
    return float("Accepted" in record["Clean_Code_Submit"])


_DRIFT_GRADES: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "prime": _yes_or_no,
    "composite": _yes_or_no,
    "counthappynumber": _boxed,
    "leetcode_easy": _accepted,
}


def _paired(part: Part, dataset: str, prefix: str, category: str, table: pd.DataFrame) -> None:
    """One table with a column per model; prompts are numbered in the file's order."""
    missing = [column for column in ("prompt", *MODELS) if column not in table.columns]
    if missing:
        raise ValueError(f"it lacks the columns {missing!r}")
    for number, record in enumerate(table.to_dict("records")):
        name = f"{prefix}-{number:04d}"
        part.add_prompt(dataset, name, record["prompt"], category)
        for model in MODELS:
            part.add_outcome(dataset, name, model, float(record[model] == "True"), None)


def _tokens(text: str) -> float | None:
    return max(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN, 1.0) if text else None


def _csv(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.decode().splitlines():
        if line.strip():
            yield json.loads(line)
