"""Measures the engine on this CPU beside its peers, same weights, in turns; prints the table and the ratios.

    python -m benchmarks.engine_cpu [--write] [--rounds N] [--threads N] [--install-peers]

Every engine is a process of its own that waits while another one is measured. In each round each of them decodes one
stream, computes a prompt of 512 tokens, and decodes eight streams together where it can. Figures are medians over the
rounds; ratios are medians of each round's own ratio, so that a busy neighbour disturbs both sides of one. Needs SmolLM2's
weights (`python -m local_engine fetch`). Peers live under .cache/bench, where benchmarks.engine_peers puts them;
those that are not there are named, not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.engine_peers import INSTALLED, OPENVINO_INT4, OPENVINO_INT8, PLAIN, install_peers
from benchmarks.results_file import ROOT, machine_facts, write
from local_engine.model_files import Hub, resolve_model

WORKERS = ROOT / "benchmarks" / "engine_workers"
_LONGEST = 60  # seconds for one task; a machine on which it takes longer measures nothing
TASKS: dict[str, dict[str, Any]] = {
    "decode_1": {"do": "decode", "streams": 1, "tokens": 32},
    "prefill_512": {"do": "prefill", "tokens": 512},
    "decode_8": {"do": "decode", "streams": 8, "tokens": 16},
}


@dataclass
class Worker:
    """A running engine; `rates` are tokens per second by task, one per round, None where it cannot."""

    name: str
    process: subprocess.Popen[str]
    errors: IO[str]
    version: str = ""
    rates: dict[str, list[float | None]] = field(default_factory=lambda: {task: [] for task in TASKS})

    def ask(self, task: str) -> float | None:
        """Tokens per second."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(TASKS[task]) + "\n")
        self.process.stdin.flush()
        watch = threading.Timer(_LONGEST, self.process.kill)
        watch.start()
        try:
            reply = self.read()
        finally:
            watch.cancel()
        return None if "error" in reply else reply["tokens"] / reply["seconds"]

    def read(self) -> dict[str, Any]:
        """The next document it prints; what else it prints is passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.errors.seek(0)
        raise RuntimeError(
            f"{self.name} ended with status {self.process.wait()} (-9: a task took over {_LONGEST} s; is the machine idle?)"
            f"\n{self.errors.read()[-2000:]}"
        )


def commands(model: Path, threads: int) -> dict[str, list[str]]:
    """How each engine that is installed here is started, by name."""
    ours = [sys.executable, "-m", "benchmarks.engine_workers.penstock", str(model), str(threads)]
    found = {f"penstock {kind}": [*ours, kind, "auto"] for kind in ("int4", "int8", "none")}
    found["penstock torch"] = [*ours, "none", "off"]
    peers = {
        "llama_cpp": ("llamacpp", "llamacpp.py", model),
        "openvino int8": ("openvino", "openvino_pipeline.py", OPENVINO_INT8),
        "openvino int4": ("openvino", "openvino_pipeline.py", OPENVINO_INT4),
    }
    for name, (folder, script, weights) in peers.items():
        python = INSTALLED / folder / "bin" / "python"
        if python.exists() and weights.exists():
            found[name] = [str(python), str(WORKERS / script), str(weights), str(threads)]
        else:
            print(f"{name}: not installed, not measured", file=sys.stderr)
    if PLAIN.exists():
        found["transformers bf16"] = [
            sys.executable, str(WORKERS / "transformers_bf16.py"), str(PLAIN), str(threads)
        ]  # fmt: skip
    else:
        print("transformers: its directory is not there, not measured", file=sys.stderr)
    return found


def measure(found: dict[str, list[str]], rounds: int) -> list[Worker]:
    """All engines in turns, in another order each round; the first round warms up and is dropped."""
    workers = []
    # A shell's OMP_WAIT_POLICY=PASSIVE, good for us, would make llama.cpp take three times as long.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    try:
        for name, command in found.items():
            errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the worker lives
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
                env=environment,
            )  # fmt: skip
            workers.append(Worker(name, process, errors))
            workers[-1].version = workers[-1].read()["ready"]
        for turn in range(rounds + 1):
            for task in TASKS:
                for worker in workers[turn % len(workers) :] + workers[: turn % len(workers)]:
                    rate = worker.ask(task)
                    if turn > 0:
                        worker.rates[task].append(rate)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
    return workers


def figures(workers: list[Worker]) -> dict[str, dict[str, Any]]:
    """Median and best tokens per second of each engine and task."""
    rows = {}
    for worker in workers:
        row: dict[str, Any] = {"version": worker.version}
        for task, rates in worker.rates.items():
            known = [rate for rate in rates if rate is not None]
            row[task] = round(statistics.median(known), 1) if known else None
            row[f"{task}_best"] = round(max(known), 1) if known else None
        rows[worker.name] = row
    return rows


def ratios(workers: list[Worker], ours: str) -> dict[str, Any]:
    """Median over rounds of our rate by each other engine's in the same round, and eight streams by one."""
    mine = next(worker for worker in workers if worker.name == ours)
    found: dict[str, Any] = {}
    for worker in workers:
        if worker is mine:
            continue
        for task in ("decode_1", "prefill_512"):
            pairs = [a / b for a, b in zip(mine.rates[task], worker.rates[task], strict=True) if a and b]
            if pairs:
                found[f"{task} by {worker.name}"] = round(statistics.median(pairs), 2)
    both = zip(mine.rates["decode_8"], mine.rates["decode_1"], strict=True)
    found["eight streams by one"] = round(statistics.median(a / b for a, b in both if a and b), 2)
    return found


def show(rows: dict[str, dict[str, Any]], by_ours: dict[str, dict[str, Any]]) -> str:
    """The table for people."""
    lines = [f"{'tokens per second':22}{'decode, 1':>11}{'prefill 512':>13}{'decode, 8':>11}"]
    for name, row in rows.items():
        values = (row[task] for task in TASKS)
        shown = [f"{value:.0f}" if value is not None else "-" for value in values]
        lines.append(f"{name:22}{shown[0]:>11}{shown[1]:>13}{shown[2]:>11}")
    for ours, found in by_ours.items():
        lines += ["", f"{ours}, ratios round by round:"] + [f"  {name}: {value:.2f}" for name, value in found.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/")
    parser.add_argument("--out", type=Path, help="write the numbers to this file instead")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--install-peers", action="store_true", help="first install what is missing of them, in about fifteen minutes"
    )
    parser.add_argument("--only", nargs="*", help="names of engines")
    parser.add_argument("--weights-dir", type=Path, default=Path("~/.penstock/weights").expanduser())
    arguments = parser.parse_args()
    facts = machine_facts()
    model = resolve_model("smollm2-135m-instruct", arguments.weights_dir, Hub()).path
    if arguments.install_peers:
        install_peers(model)
    found = commands(model, arguments.threads)
    if arguments.only:
        found = {name: command for name, command in found.items() if name in arguments.only}
    workers = measure(found, arguments.rounds)
    rows = figures(workers)
    by_ours = {
        worker.name: ratios(workers, worker.name)
        for worker in workers
        if worker.name in ("penstock int4", "penstock int8")
    }
    print(show(rows, by_ours))
    if arguments.write or arguments.out:
        numbers = {"threads": arguments.threads, "rounds": arguments.rounds, "engines": rows, "ratios": by_ours}
        print(write("engine_cpu", numbers, facts, arguments.out))


if __name__ == "__main__":
    main()
