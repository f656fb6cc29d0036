"""Writes docs/benchmarks.md from benchmarks/results/*.json, so that the page cannot say another number; a test compares.

python -m benchmarks.numbers_page
"""

import json
from collections.abc import Callable
from typing import Any

from benchmarks import gateway_overhead, main_job
from benchmarks.results_file import RESULTS, ROOT

PAGE = ROOT / "docs" / "benchmarks.md"

HEAD = """# Numbers

Written by `python -m benchmarks.numbers_page` from `benchmarks/results/`; change the results, not this page. What each
benchmark does, and how to run it, is in [benchmarks/README.md](../benchmarks/README.md).
"""

EMPTY = "\nNo results are recorded yet.\n"


def page() -> str:
    """The whole page, from the results that are there."""
    sections = []
    for name, (title, body) in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            sections.append(f"\n## {title}\n\n{body(result)}\n\n{_origin(result)}\n")
    return HEAD + ("".join(sections) or EMPTY)


def _origin(result: dict[str, Any]) -> str:
    machine = result["machine"]
    state = ", with uncommitted changes" if result["modified"] else ""
    load = machine["load_average"][0]
    return (
        f"`{result['command']}`, {result['date'][:10]}, commit {result['commit'][:10]}{state}, {machine['cpu']}, "
        f"{machine['cores']} cores, load average {load} at the start, Python {machine['python']}."
    )


def _overhead(result: dict[str, Any]) -> str:
    connections = sorted({load["connections"] for load in result["loads"]})
    text = gateway_overhead.as_markdown(result["rows"], connections)
    text += "\n\nThe gateway has one core; nginx and the load generator share another one. Medians over rounds."
    books = result["books"]
    if books:
        text += (
            f" Of the {books['upstream_calls']:,} calls that nginx got from Penstock, {books['metered_requests']:,} were "
            f"metered and billed; `penstock ledger verify` exited {books['ledger_verify_exit']}."
        )
    return text


def _job(result: dict[str, Any]) -> str:
    text = main_job.as_markdown(result["rows"])
    number = sum(result["prompts"].values())
    text += f"\n\n{number} recorded prompts per row that the router was not trained on: "
    text += ", ".join(f"{count} {dataset}" for dataset, count in result["prompts"].items()) + "."
    failed = result["failed_checks"]
    held = "upstream, clients, `penstock usage` and ledger agreed to the token and to the pico-dollar"
    text += f" Checks that failed: {', '.join(failed)}." if failed else f" All checks held: {held}."
    return text


def _killed(result: dict[str, Any]) -> str:
    failed = result["failed_checks"]
    return (
        f"{main_job.as_kill_markdown(result['rows'])}\n\nIn each row the gateway was killed three times with `kill -9`: its "
        "worker, its supervisor, all its processes at once. What the upstream had sent as the gateway died reached no client "
        f"and is charged to nobody. `penstock ledger verify` exited {result['ledger_verify']['exit']}. "
        + (f"Checks that failed: {', '.join(failed)}." if failed else "All checks held.")
    )


def _engine(result: dict[str, Any]) -> str:
    tasks = ("decode_1", "prefill_512", "decode_8")
    lines = ["| tokens per second | decode, one stream | prompt of 512 | decode, eight streams |", "|---|---|---|---|"]
    for name, engine in result["engines"].items():
        values = ("" if engine[task] is None else f"{engine[task]:,.0f}" for task in tasks)
        lines.append(f"| {name} ({engine['version']}) | {' | '.join(values)} |")
    wanted = ("decode_1 by llama_cpp", "prefill_512 by openvino int8", "eight streams by one")
    lines += [
        "",
        "| ratios | decode by llama.cpp | prompt by OpenVINO int8 | eight streams by one |",
        "|---|---|---|---|",
    ]
    for name, found in result["ratios"].items():
        lines.append(f"| {name} | {' | '.join(str(found.get(ratio, '')) for ratio in wanted)} |")
    return "\n".join(lines) + (
        "\n\nSmolLM2-135M-Instruct from one Q4_1 file: `int4` keeps its 4-bit blocks, `none`, torch and transformers have "
        f"its weights in bfloat16. {result['threads']} threads, medians of {result['rounds']} rounds in turns; ratios are "
        "medians of each round's own. llama.cpp is built without AMX, with which it ended at start here."
    )


def _speculation(result: dict[str, Any]) -> str:
    lines = [
        "| matrices | drafts | times plain | tokens per step | tokens per second | same answer |",
        "|---|---|---|---|---|---|",
    ]
    for quantize, drafters in result["formats"].items():
        for name, found in drafters.items():
            lines.append(
                f"| {quantize} | {name} | {found['mean_times_plain_clock']:.2f} | {found['mean_tokens_per_step']:.2f} | "
                f"{found['tokens_per_clock_s']:.0f} | {found['equal']} of {found['answers']} |"
            )
    return "\n".join(lines) + (
        f"\n\nGreedy answers of at most {result['tokens']} tokens to {result['prompts']} prompts of each of Spec-Bench's 13 "
        f"categories, one at a time, {result['threads']} threads; the first two figures are means over the categories. As a "
        "number format `auto` is int8; as a drafter it is prompt lookup beside the trained one."
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "gateway_overhead": ("What a gateway costs per request", _overhead),
    "main_job": ("Recorded prompts through the running gateway", _job),
    "main_job_kill": ("The same, killed in the middle", _killed),
    "engine_cpu": ("The bundled engine on a CPU, beside its peers", _engine),
    "engine_speculation": ("Speculation on a CPU", _speculation),
}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
