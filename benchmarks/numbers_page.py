"""Writes docs/benchmarks.md from benchmarks/results/*.json, so that the page cannot say another number; a test compares.

python -m benchmarks.numbers_page
"""

import json
from collections.abc import Callable
from typing import Any

from benchmarks import engine_table, gateway_overhead, main_job
from benchmarks.results_file import RESULTS, ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
WITHOUT_AMX = RESULTS / "without_amx"
"""The engine's results from a processor that has AVX-512 and no AMX."""

HEAD = """# Numbers

Written by `python -m benchmarks.numbers_page` from `benchmarks/results/`; change the results, not this page. What each
benchmark does, and how to run it, is in [benchmarks/README.md](../benchmarks/README.md).
"""

NEVER_SLOWER = 0.97  # times plain, whatever the load

EMPTY = "\nNo results are recorded yet.\n"


def page() -> str:
    """The whole page, from the results that are there."""
    sections = []
    for name, (title, body) in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            sections.append(f"\n## {title}\n\n{body(result)}\n\n{_origin(result)}\n")
    sections.append(_targets())
    return HEAD + ("".join(sections) or EMPTY)


def _origin(result: dict[str, Any]) -> str:
    machine = result["machine"]
    state = ", with uncommitted changes" if result["modified"] else ""
    load = machine["load_average"][0]
    return (
        f"`{result['command']}`, {result['date'][:10]}, commit {result['commit'][:10]}{state}, {machine['cpu']}, "
        f"{machine['cores']} cores, load average {load} at the start, Python {machine['python']}."
    )


def _targets() -> str:
    results = engine_table.read_results(RESULTS)
    if not results:
        return ""
    table = engine_table.as_markdown(engine_table.rows(results))
    sources = ", ".join(f"`{name}.json`" for name in results)
    return (
        f"\n## What the engine was to reach on a CPU\n\n{table}\n\nOurs is int8, which `serve` takes by itself. Ratios of "
        "decode and prompt are medians of each round's own; llama.cpp's rate beside speculation is that of its decode behind "
        "a prompt of 32 tokens, which is easier than Spec-Bench's. "
        f"From {sources}, whose commands are above; `make bench-engine` measures all of them at once.\n"
    ) + _targets_without_amx()


def _targets_without_amx() -> str:
    results = engine_table.read_results(WITHOUT_AMX)
    if not results:
        return ""
    table = engine_table.as_markdown(engine_table.rows(results))
    origins = "\n".join(f"- {_origin(result)}" for result in results.values())
    return (
        "\n## The same on a processor without AMX\n\nAVX-512 with VNNI and bfloat16 instructions (Zen 4). Everything above is "
        f"from another machine, so only ratios can be compared.\n\n{table}\n\n{_engine(results['engine_cpu'])}\n\n{origins}\n"
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
    lines += [
        "",
        f"Greedy answers of at most {result['tokens']} tokens to {result['prompts']} prompts of each of Spec-Bench's 13 "
        f"categories, one at a time, {result['threads']} threads; the first two figures are means over the categories. As a "
        "number format `auto` is int8; as a drafter it is prompt lookup beside the trained one.",
    ]
    return "\n".join(lines + _speculation_together(result.get("together", {})))


def _speculation_together(formats: dict[str, Any]) -> list[str]:
    lines = []
    for quantize, found in formats.items():
        for name in found.keys() - {"streams", "groups", "plain"}:
            figures, plain = found[name], found["plain"]
            least = figures["least_times_plain_clock"]
            lines.append(
                f"| {quantize} | {name} | {found['streams']} | {figures['times_plain_clock']:.2f} | {least:.2f} | "
                f"{figures['tokens_per_clock_s']:.0f} | {plain['tokens_per_clock_s']:.0f} | "
                f"{'met' if figures['times_plain_clock'] >= NEVER_SLOWER else 'missed'} |"
            )
    if not lines:
        return []
    head = "| matrices | drafts | answers at once | times plain | least | tokens per second | plain | at least 0.97 |"
    note = "Times plain is the median over groups of prompts of mixed categories, least the slowest group's."
    return ["", head, "|---|---|---|---|---|---|---|---|", *sorted(lines), "", note]


def _cache(result: dict[str, Any]) -> str:
    first, steps, alone = result["first_token"], result["bookkeeping"], result["scheduling"]
    lines = [
        "| | seconds to the first token | of cold |",
        "|---|---|---|",
        f"| nothing cached | {first['cold_clock_s']:.3f} | |",
        f"| {first['prefix_tokens']:,} of {first['prefix_tokens'] + first['own_tokens']:,} tokens shared | "
        f"{first['shared_clock_s']:.3f} | {first['shared_of_cold_clock']:.2f} |",
        "",
        f"| CPU ms per step of {steps['sequences']} answers | |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in steps["ms_per_step"].items()),
        f"| scheduling alone, without a model beside it | {alone['ms_per_step']:.3f} |",
    ]
    return "\n".join(lines) + (
        f"\n\nSmolLM2-135M-Instruct in {result['quantize']}, threads of torch: {result['threads']}. `bookkeeping` is all of a "
        "step but model and sampling, metrics included."
    )


def _quality(result: dict[str, Any]) -> str:
    texts = list(next(iter(result["variants"].values()))["perplexity"])
    lines = [
        f"| | MiB of matrices |{''.join(f' perplexity, {text} | over bfloat16 |' for text in texts)} target | |",
        f"|---|---|{'---|---|' * len(texts)}---|---|",
    ]
    for name, found in result["variants"].items():
        figures = (f" {found['perplexity'][text]:.2f} | {found['over_bfloat16'][text]:+.1%} |" for text in texts)
        met = {True: "met", False: "missed", None: ""}[found.get("target_met")]
        target = f"at most +{found['target']:.1%}" if "target" in found else ""
        lines.append(f"| {name} | {found['matrix_mib']:.0f} |{''.join(figures)} {target} | {met} |".replace("%", " %"))
    return "\n".join(lines) + (
        f"\n\n{result['model']}. What each row is stands in [engine.md](engine.md#quantised-models); answers to five questions "
        "are in the file."
    )


def _pruning(result: dict[str, Any]) -> str:
    found = result["numbers"]
    rows = {"whole": found["before"], "pruned": found["pruned"], "distilled": found["recovered"]}
    rates = {
        "whole": found.get("speed_before"),
        "distilled" if found["recovered"] else "pruned": found.get("speed_after"),
    }
    lines = ["| | million parameters | perplexity | tokens per second |", "|---|---|---|---|"]
    for name, figures in rows.items():
        if figures is not None:
            rate = rates.get(name) or figures.get("tokens_per_second")
            shown = "" if rate is None else f"{rate:.1f}"
            lines.append(f"| {name} | {figures['parameters'] / 1e6:.1f} | {figures['perplexity']:.1f} | {shown} |")
    return "\n".join(lines) + (
        f"\n\n{len(found['dropped'])} of {len(found['influence'])} layers dropped, {found['steps']} steps of distillation; one "
        "stream."
    )


def _soak(result: dict[str, Any]) -> str:
    text = "On a random tiny model in float32, without speculation:\n\n" + _one_soak(result, 10_000)
    served = result.get("smollm2")
    if served is not None:
        engine = served["engine"]
        computed = "by the native kernel" if engine["native"] else "by torch"
        text += (
            f"\n\nOn SmolLM2-135M-Instruct as `serve` runs it, {engine['quantize']}, {computed}, {engine['accepted']:,} of "
            f"{engine['drafted']:,} drafted tokens kept:\n\n{_one_soak(served, 1_000)}"
        )
    return text


def _one_soak(found: dict[str, Any], judged: int) -> str:
    outcomes = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found["outcomes"].items())
    lines = [f"| memory | when warm, MiB | at the end, MiB | growth over {judged:,} requests |", "|---|---|---|---|"]
    for half, memory in found["memory"].items():
        growth = memory[f"growth_share_of_{judged}"] * 100
        lines.append(f"| {half} | {memory['warm_mib']:.1f} | {memory['end_mib']:.1f} | {growth:+.2f} % |")
    differed = found["repeated_answers_that_differed"]
    return "\n".join(lines) + (
        f"\n\n{found['requests']:,} requests in {found['seconds']:.0f} s: {outcomes}. `check_integrity()` found nothing in "
        f"{found['integrity_checks']} looks; of {found['repeated_answers']} answers that were asked for again and again "
        f"{differed} differed. Memory is {'flat' if found['flat'] else 'not flat: missed'}."
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "gateway_overhead": ("What a gateway costs per request", _overhead),
    "main_job": ("Recorded prompts through the running gateway", _job),
    "main_job_kill": ("The same, killed in the middle", _killed),
    "engine_cpu": ("The bundled engine on a CPU, beside its peers", _engine),
    "engine_speculation": ("Speculation on a CPU", _speculation),
    "engine_cache": ("The engine's cache and bookkeeping", _cache),
    "engine_quality": ("What smaller number formats cost", _quality),
    "engine_pruning": ("What pruning costs", _pruning),
    "engine_soak": ("The engine's soak", _soak),
}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
