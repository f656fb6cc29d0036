"""Real recorded answers by prompt and model, read from the routing tables; a missing table or column is an error.

The tables are `prompts.parquet`, `outcomes.parquet` and `responses.parquet` in the folder given by `--data`. The last one, and
the columns `prompt_tokens`, `in_tokens` and `latency_s`, are made by no program of this repository; see `benchmarks/README.md`.
Nothing of them is kept here.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# No recorded model answered every data set, so a tier is a name that stands for one recorded model per data set, all
# three from the same harness there. The drift models are the 2023 snapshots: on one of their tasks (composite numbers)
# the smallest is the best one.
TIER_MODELS: dict[str, dict[str, str]] = {
    "small": {
        "gsm8k_test": "Meta-Llama-3.1-8B-Instruct",
        "math_level5": "Meta-Llama-3.1-8B-Instruct",
        "mmlu_pro": "Meta-Llama-3_1-8B-Instruct",
        "drift": "gpt-3.5-turbo-0301",
    },
    "medium": {
        "gsm8k_test": "Meta-Llama-3.1-70B-Instruct",
        "math_level5": "Meta-Llama-3.1-70B-Instruct",
        "mmlu_pro": "Meta-Llama-3_1-70B-Instruct",
        "drift": "gpt-3.5-turbo-0613",
    },
    "large": {
        "gsm8k_test": "claude-3-5-sonnet-20241022",
        "math_level5": "claude-3-5-sonnet-20241022",
        "mmlu_pro": "gemini-1.5-pro-002",
        "drift": "gpt-4-0314",
    },
}


@dataclass(frozen=True)
class Prompt:
    """One recorded prompt; prompts with one `stem_key` ask the same question, so a split must not part them."""

    dataset: str
    prompt_id: str
    text: str
    stem_key: str
    tokens: int


@dataclass(frozen=True)
class Answer:
    """One recorded answer. Tokens are counts, latency is in seconds; `score` and `latency_s` are None where unknown."""

    dataset: str
    prompt_id: str
    model: str
    text: str
    input_tokens: int
    output_tokens: int
    latency_s: float | None
    score: float | None


@dataclass(frozen=True)
class RecordedAnswers:
    """Every answer with text and token counts, found by the prompt's text and a recorded model's name or a tier's."""

    prompts: tuple[Prompt, ...]
    by_prompt: dict[str, dict[str, Answer]]
    models: tuple[str, ...]

    def find(self, prompt_text: str, model: str) -> Answer | None:
        """The answer `model` gave to exactly this prompt (outer blanks apart), or None when none was recorded."""
        answers = self.by_prompt.get(prompt_text.strip())
        if not answers:
            return None
        dataset = next(iter(answers.values())).dataset
        return answers.get(recorded_model(model, dataset) or "")


def recorded_model(model: str, dataset: str) -> str | None:
    """The recorded model that `model` stands for on `dataset`: a tier's model there (None without one), else itself."""
    tier = TIER_MODELS.get(model)
    if tier is None:
        return model
    return tier.get("drift" if dataset.startswith("drift_") else dataset)


def load(data: Path) -> RecordedAnswers:
    """Read the three tables under `data`. Of two prompts with the same text the first in the table is served."""
    for name in ("prompts", "outcomes", "responses"):
        if not (data / f"{name}.parquet").is_file():
            raise FileNotFoundError(f"no {name}.parquet in {str(data)!r}: give the routing tables' folder as --data")
    responses = pq.read_table(data / "responses.parquet", columns=["dataset", "prompt_id", "model", "response"])
    prompts = _prompts(data, responses)
    answers = {(one.dataset, one.prompt_id, one.model): one for one in _answers(data, prompts, responses)}
    models = tuple(sorted({model for _, _, model in answers}))
    by_prompt: dict[str, dict[str, Answer]] = {}
    for prompt in prompts:
        mine = (answers.get((prompt.dataset, prompt.prompt_id, model)) for model in models)
        by_prompt.setdefault(prompt.text.strip(), {answer.model: answer for answer in mine if answer})
    return RecordedAnswers(tuple(prompts), by_prompt, models)


def _prompts(data: Path, responses: pa.Table) -> list[Prompt]:
    columns = ["dataset", "prompt_id", "prompt", "stem_key", "prompt_tokens"]
    rows = _only(pq.read_table(data / "prompts.parquet", columns=columns), responses, "dataset").to_pylist()
    return [Prompt(*(row[column] for column in columns)) for row in rows]


def _answers(data: Path, prompts: list[Prompt], responses: pa.Table) -> list[Answer]:
    """Responses joined with their prompt and outcome; those without a recorded number of tokens are left out."""
    columns = ["dataset", "prompt_id", "model", "score", "out_tokens", "in_tokens", "latency_s"]
    table = pq.read_table(data / "outcomes.parquet", columns=columns)
    outcomes = _only(_only(table, responses, "dataset"), responses, "model").to_pylist()
    outcome_of = {(row["dataset"], row["prompt_id"], row["model"]): row for row in outcomes}
    prompt_of = {(prompt.dataset, prompt.prompt_id): prompt for prompt in prompts}
    answers = []
    for row in responses.to_pylist():
        prompt = prompt_of.get((row["dataset"], row["prompt_id"]))
        outcome = outcome_of.get((row["dataset"], row["prompt_id"], row["model"]))
        if prompt is None or outcome is None or outcome["out_tokens"] is None:
            continue
        input_tokens = prompt.tokens if outcome["in_tokens"] is None else outcome["in_tokens"]
        answers.append(
            Answer(
                prompt.dataset,
                prompt.prompt_id,
                row["model"],
                row["response"],
                input_tokens,
                outcome["out_tokens"],
                outcome["latency_s"],
                outcome["score"],
            )
        )
    return answers


def _only(table: pa.Table, responses: pa.Table, column: str) -> pa.Table:
    """The rows of `table` whose `column` occurs in `responses`."""
    known = pa.array(sorted(set(responses[column].to_pylist())), pa.string())
    return table.filter(pc.is_in(table[column].cast(pa.string()), value_set=known))
