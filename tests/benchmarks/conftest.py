"""Small invented routing tables and the replay upstream as a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LONG_ANSWER = "First add three and four, which gives seven. " * 12 + "The answer is 7.\n\n  #### 7  "

# dataset, prompt_id, prompt, prompt_tokens, {model: (answer, output tokens or None, latency, score)}
ROWS: list[tuple[str, str, str, int, dict[str, tuple[str, int | None, float | None, float | None]]]] = [
    (
        "gsm8k_test",
        "one",
        "Ada has 3 apples and buys 4. How many has she?",
        13,
        {
            "Meta-Llama-3.1-8B-Instruct": ("She has 8.", 5, None, 0.0),
            "Meta-Llama-3.1-70B-Instruct": (LONG_ANSWER, 153, None, 1.0),
        },
    ),
    (
        "drift_prime",
        "two",
        "Is 21 a prime number?",
        7,
        {"gpt-3.5-turbo-0301": ("[No] \n\nIt is 3 x 7.", 11, 0.5, 1.0), "gpt-4-0314": ("[No]", 3, 1.5, None)},
    ),
    (
        "mmlu_pro",
        "first",
        "Which is a metal?\nA. Iron\nB. Salt",
        12,
        {"Meta-Llama-3_1-8B-Instruct": ("A", 1, None, 1.0)},
    ),
    (
        "mmlu_pro",
        "again",
        "Which is a metal?\nA. Iron\nB. Salt",
        12,
        {"Meta-Llama-3_1-8B-Instruct": ("B", 2, None, 0.0)},
    ),
    ("mmlu_pro", "uncounted", "Which is a gas?", 5, {"Meta-Llama-3_1-8B-Instruct": ("Neon", None, None, 1.0)}),
]

# Enough prompts for a small main job, answered by all tiers; every stem key that is a multiple of five is held out.
TIERS = {"gsm8k_test": "Meta-Llama-3.1-8B-Instruct Meta-Llama-3.1-70B-Instruct claude-3-5-sonnet-20241022"}
TIERS["mmlu_pro"] = "Meta-Llama-3_1-8B-Instruct Meta-Llama-3_1-70B-Instruct gemini-1.5-pro-002"
for dataset in ("drift_prime", "drift_composite", "drift_counthappynumber"):
    TIERS[dataset] = "gpt-3.5-turbo-0301 gpt-3.5-turbo-0613 gpt-4-0314"
ROWS += [
    (
        dataset,
        f"job-{place}",
        f"Invented question {place} of {dataset}: what is {place} + {place}?",
        20 + place % 7,
        {
            model: (f"{model} thinks that it is {2 * place}.", 30 + place, None, float(place % 3 > 0))
            for model in models.split()
        },
    )
    for dataset, models in TIERS.items()
    for place in range(100)
]


@pytest.fixture(scope="session")
def routing_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three tables, in the columns and types of the real ones."""
    folder = tmp_path_factory.mktemp("routing")
    prompts = [
        {"dataset": dataset, "prompt_id": key, "prompt": text, "prompt_tokens": tokens, "stem_key": f"{place:016x}"}
        for place, (dataset, key, text, tokens, _) in enumerate(ROWS)
    ]
    answers = [
        {
            "dataset": dataset,
            "prompt_id": key,
            "model": model,
            "response": text,
            "out_tokens": tokens,
            "in_tokens": None,
        }
        | {"latency_s": latency, "score": score}
        for dataset, key, _, _, by_model in ROWS
        for model, (text, tokens, latency, score) in by_model.items()
    ]
    outcome_types = {
        "out_tokens": pa.int32(),
        "in_tokens": pa.int32(),
        "latency_s": pa.float64(),
        "score": pa.float32(),
    }
    outcomes = pa.Table.from_pylist(answers).drop_columns(["response"])
    fields = [pa.field(name, outcome_types.get(name, pa.string())) for name in outcomes.column_names]
    pq.write_table(pa.Table.from_pylist(prompts), folder / "prompts.parquet")
    pq.write_table(outcomes.cast(pa.schema(fields)), folder / "outcomes.parquet")
    responses = pa.Table.from_pylist(answers).select(["dataset", "prompt_id", "model", "response"])
    pq.write_table(responses, folder / "responses.parquet")
    return folder


@dataclass(frozen=True)
class Upstream:
    """A running replay upstream."""

    base_url: str
    root: str
    process: subprocess.Popen[str]


def _running(routing_tables: Path, flags: tuple[str, ...]) -> Upstream:
    command = [sys.executable, "-m", "benchmarks.replay_upstream", "--data", str(routing_tables), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    base_url = json.loads(process.stdout.readline())["base_url"]
    return Upstream(base_url, base_url.removesuffix("/v1"), process)


def _stop(upstream: Upstream) -> None:
    upstream.process.terminate()
    upstream.process.wait(timeout=60)
    assert upstream.process.stdout is not None
    upstream.process.stdout.close()


@pytest.fixture(scope="session")
def upstream(routing_tables: Path) -> Iterator[Upstream]:
    """One replay upstream without flags, for tests that do not look at its counts."""
    running = _running(routing_tables, ())
    yield running
    _stop(running)


@pytest.fixture
def start_upstream(routing_tables: Path) -> Iterator[Callable[..., Upstream]]:
    """Starts a replay upstream of the test's own, with flags; stops it after the test."""
    started: list[Upstream] = []

    def start(*flags: str) -> Upstream:
        started.append(_running(routing_tables, flags))
        return started[-1]

    yield start
    for running in started:
        _stop(running)
