"""Prints the engine's targets on a CPU beside what was measured: ours, the peer, the ratio, and whether the target is met.

    python -m benchmarks.engine_table [FOLDER]                                      from results that are there
    python -m benchmarks.engine_table --run [--data FOLDER] [--install-peers]       measures first (make bench-engine)

FOLDER has engine_cpu.json, engine_cache.json and engine_speculation.json (benchmarks/results, which are kept). --run measures
all three on two threads in about four minutes, with Spec-Bench's question.jsonl from --data, and leaves them in
.cache/bench/engine_run. What was not measured is named with what it needs. A miss is printed and changes no exit status;
a measurement that failed makes it 1. Ours is int8, which `serve` takes by itself where the native kernel computes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS, ROOT

RUN = ROOT / ".cache" / "bench" / "engine_run"
SPEC_BENCH = Path("../shared/data/engine/spec_bench")
SPEC_BENCH_URL = "https://raw.githubusercontent.com/hemingkx/Spec-Bench/main/data/spec_bench/question.jsonl"
OURS = "penstock int8"
SOURCES = ("engine_cpu", "engine_cache", "engine_speculation")
Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One target: `value` is a ratio, or milliseconds where `unit` says so, None when it was not measured."""

    what: str
    ours: str
    peer: str
    value: float | None
    target: float
    at_most: bool = False
    unit: str = "x"

    @property
    def verdict(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.value is None:
            return "not measured"
        return "met" if (self.value <= self.target if self.at_most else self.value >= self.target) else "missed"

    def cells(self) -> tuple[str, ...]:
        """What stands in the table's columns."""
        value = "-" if self.value is None else f"{self.value:.{3 if self.at_most else 2}f}{self.unit}"
        wanted = f"{'at most' if self.at_most else 'at least'} {self.target:g}{self.unit}"
        return self.what, self.ours, self.peer, value, wanted, self.verdict


HEADINGS = ("CPU, SmolLM2-135M", "ours", "beside", "ratio", "target", "")


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The result files that are there, by name."""
    paths = {name: folder / f"{name}.json" for name in SOURCES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def rows(results: Results) -> list[Row]:
    """All targets, measured or not, in the order they are asked for."""
    engines = _at(results, "engine_cpu", "engines") or {}
    ratios = _at(results, "engine_cpu", "ratios", OURS) or {}
    drafting = _at(results, "engine_speculation", "formats", "auto") or {}
    together = _at(results, "engine_speculation", "together", "auto") or {}
    first = _at(results, "engine_cache", "first_token") or {}
    bookkeeping = _at(results, "engine_cache", "bookkeeping", "ms_per_step", "bookkeeping")

    one, llama = _at(engines, OURS, "decode_1"), _at(engines, "llama_cpp", "decode_1")
    plain, drafted = (_at(drafting, name, "tokens_per_clock_s") for name in ("plain", "auto"))
    return [
        Row("decode, one stream", _rate(one), f"llama.cpp {_rate(llama)}", ratios.get("decode_1 by llama_cpp"), 1.0),
        Row("prompt of 512", _rate(_at(engines, OURS, "prefill_512")),
            f"OpenVINO int8 {_rate(_at(engines, 'openvino int8', 'prefill_512'))}",
            ratios.get("prefill_512 by openvino int8"), 1.0),
        Row("decode with speculation, Spec-Bench", _rate(drafted), f"ours, plain {_rate(plain)}",
            _at(drafting, "auto", "mean_times_plain_clock"), 1.5),
        Row("decode with speculation, Spec-Bench", _rate(drafted), f"llama.cpp {_rate(llama)}",
            drafted / llama if drafted and llama else None, 1.3),
        Row("8 streams with speculation, Spec-Bench", _rate(_at(together, "auto", "tokens_per_clock_s")),
            f"ours, plain {_rate(_at(together, 'plain', 'tokens_per_clock_s'))}",
            _at(together, "auto", "times_plain_clock"), 0.97),
        Row("8 streams together", _rate(_at(engines, OURS, "decode_8")), f"one stream {_rate(one)}",
            ratios.get("eight streams by one"), 3.0),
        Row("first token, 1,000-token prefix shared", _seconds(first.get("shared_clock_s")),
            f"cold {_seconds(first.get('cold_clock_s'))}", first.get("shared_of_cold_clock"), 0.2, at_most=True),
        Row("scheduler and bookkeeping per step, 64 sequences", "-" if bookkeeping is None else f"{bookkeeping:.3f} ms",
            "", bookkeeping, 0.5, at_most=True, unit=" ms"),
    ]  # fmt: skip


def _at(document: Any, *path: str) -> Any:
    """What is at the end of a path of keys, None where one is missing."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} tok/s"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def as_text(table: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = [HEADINGS, *(row.cells() for row in table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_markdown(table: Sequence[Row]) -> str:
    """The table for a page."""
    lines = [f"| {' | '.join(line)} |" for line in (HEADINGS, *(row.cells() for row in table))]
    return "\n".join([lines[0], f"|{'---|' * len(HEADINGS)}", *lines[1:]])


def what_is_missing(results: Results, data: Path) -> list[str]:
    """One line for each thing that has to be got before every target can be measured."""
    found, lines = _at(results, "engine_cpu", "engines") or {}, []
    for name, shown in (("llama_cpp", "llama.cpp"), ("openvino int8", "OpenVINO")):
        if name not in found:
            lines.append(f"{shown}: not installed; make bench-engine ARGS=--install-peers does that")
    if "engine_speculation" not in results:
        lines.append(
            f"Spec-Bench: no measurement; its prompts are fetched with\n"
            f"  mkdir -p {data} && curl -fL -o {data}/question.jsonl {SPEC_BENCH_URL}\n"
            "  or their folder is named: make bench-engine SPEC_BENCH=FOLDER"
        )
    return lines


def run(data: Path, install_peers: bool) -> bool:
    """Measure all that can be, one after the other, into RUN. Whether nothing failed."""
    RUN.mkdir(parents=True, exist_ok=True)
    commands = {
        "engine_cpu": ["--rounds", "5", *(["--install-peers"] if install_peers else [])],
        "engine_cache": ["--threads", "2"],
        "engine_speculation": ["--data", str(data), "--drafter", "auto"],
    }
    succeeded = True
    for name, options in commands.items():
        out = RUN / f"{name}.json"
        out.unlink(missing_ok=True)
        if name == "engine_speculation" and not (data / "question.jsonl").is_file():
            continue
        print(f"measuring: {name} {' '.join(options)}", file=sys.stderr)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--out", str(out)]
        # Only engine_cpu prints a table; the documents of the others are in their files.
        silent = None if name == "engine_cpu" else subprocess.DEVNULL
        if subprocess.run(command, cwd=ROOT, stdout=silent, check=False).returncode:
            print(f"{name} failed: its rows are empty", file=sys.stderr)
            succeeded = False
    return succeeded


def main() -> int:
    """Print the table, measured now or before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS, help="where the results are")
    parser.add_argument("--run", action="store_true", help="measure first")
    parser.add_argument("--data", type=Path, default=SPEC_BENCH, help="folder with Spec-Bench's question.jsonl")
    parser.add_argument("--install-peers", action="store_true", help="with --run: as for engine_cpu")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    succeeded = run(data, arguments.install_peers) if arguments.run else True
    results = read_results(RUN if arguments.run else arguments.folder)
    print("\n".join(["", as_text(rows(results)), *what_is_missing(results, arguments.data)]))
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
