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


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "gateway_overhead": ("What a gateway costs per request", _overhead),
    "main_job": ("Recorded prompts through the running gateway", _job),
    "main_job_kill": ("The same, killed in the middle", _killed),
}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
