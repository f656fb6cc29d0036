"""Measures the engine on an NVIDIA GPU: right first, then fast, beside transformers on the same card in the same run.

python -m benchmarks.engine_gpu [--out FILE] [--device cuda] [--parts a,b] [--minutes 9.5]    all parts, one process each

A part that fails, hangs or runs out of its time is said so in the results, and the others go on; the file is written
after every part. Exits with 1 when a check failed or a part brought nothing; peers and trials of other cuts (`EXTRAS`) may
bring nothing. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.results_file import machine_facts, write

TARGETS = {
    "8b one stream bf16": 220, "8b one stream int8": 340, "8b one stream fp8": 340, "8b one stream int4": 450,
    "0.6b 256 streams": 16000, "8b 128 streams": 9000,
}  # fmt: skip
"""Tokens per second; the 340 is for the better one of int8 and fp8."""

PARTS: dict[str, tuple[int, list[str]]] = {
    # name: seconds it may take, what runs
    "kernels": (110, ["tests.local_engine.kernel_cases"]),
    "steps": (130, ["tests.local_engine.gpu_checks"]),
    "ceilings": (40, ["benchmarks.engine_gpu", "part", "ceilings"]),
    "8b one stream bf16": (60, ["benchmarks.engine_gpu", "part", "one", "none"]),
    "8b one stream int4": (60, ["benchmarks.engine_gpu", "part", "one", "int4"]),
    "8b one stream int8": (60, ["benchmarks.engine_gpu", "part", "one", "int8"]),
    "0.6b 256 streams": (75, ["benchmarks.engine_gpu", "part", "small"]),
    "8b 128 streams": (90, ["benchmarks.engine_gpu", "part", "large"]),
    "transformers": (90, ["benchmarks.engine_gpu", "part", "transformers"]),
    "8b one stream fp8": (60, ["benchmarks.engine_gpu", "part", "one", "fp8"]),
    "8b with speculation": (110, ["benchmarks.engine_gpu", "part", "drafts"]),
    "tune": (120, ["benchmarks.engine_gpu", "part", "tune"]),
}
CHECKS = ("kernels", "steps")
EXTRAS = ("transformers", "tune")
"""Say nothing about the engine, so the exit status does not depend on them."""
RESERVE_SECONDS = 5


def main() -> int:
    if sys.argv[1:2] == ["part"]:
        return run_part(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--minutes", type=float, default=9.5)
    options = parser.parse_args()
    deadline, facts = time.monotonic() + 60 * options.minutes, machine_facts()
    parts: dict[str, Any] = {}
    for name in options.parts.split(","):
        left = deadline - time.monotonic() - RESERVE_SECONDS
        parts[name] = run_apart(name, options.device, min(PARTS[name][0], left), parts.get("ceilings"))
        print(json.dumps({name: shown(parts[name])}), flush=True)
        write(
            "engine_gpu",
            {"parts": parts, "table": table(parts), "not_run_yet": waiting(options, parts)},
            facts,
            options.out,
        )
    for row in table(parts):
        print(f"{row['what']:24} {row['tokens_per_s']!s:>9} tok/s, target {row['target']}")
    return 0 if all(part["ok"] for name, part in parts.items() if name not in EXTRAS) else 1


def waiting(options: argparse.Namespace, parts: dict[str, Any]) -> list[str]:
    """Parts that have not had their turn."""
    return [name for name in options.parts.split(",") if name not in parts]


def run_apart(name: str, device: str, seconds: float, ceilings: dict[str, Any] | None) -> dict[str, Any]:
    """One part in a process of its own: its JSON lines, whether it ended well, and its last words if it did not."""
    if seconds < 10:
        return {"ok": False, "error": "no time was left for it", "results": []}
    module, *arguments = PARTS[name][1]
    command = [sys.executable, "-m", module, *arguments, device]
    if ceilings and ceilings["results"] and arguments[:2] == ["part", "one"]:
        command.append(str(ceilings["results"][0].get("copy_gb_s")))
    begun = time.monotonic()
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        out, words, ended = ran.stdout, ran.stderr, ran.returncode == 0
    except subprocess.TimeoutExpired as late:
        out, words, ended = text_of(late.stdout), f"stopped after {seconds:.0f} s\n{text_of(late.stderr)}", False
    results = results_in(out)
    part = {"ok": ended and bool(results), "seconds": round(time.monotonic() - begun, 1), "results": results}
    if name in CHECKS:
        part |= {"checked": len(results), "failed": [each["case"] for each in results if each["error"]]}
        part["results"] = [each for each in results if each["error"]]
    return part if part["ok"] else part | {"error": words[-1500:]}


def results_in(out: str) -> list[dict[str, Any]]:
    """The JSON objects among the lines; a library's own words, or a line cut off by the end of its time, are none."""
    results = []
    for line in out.splitlines():
        try:
            result = json.loads(line)
        except ValueError:
            continue
        if isinstance(result, dict):
            results.append(result)
    return results


def text_of(stream: bytes | str | None) -> str:
    """What a stopped process had written."""
    return stream.decode(errors="replace") if isinstance(stream, bytes) else stream or ""


def shown(part: dict[str, Any]) -> dict[str, Any]:
    """A part on one line: errors cut short, so that the end of a log says how each part went."""
    short = {key: value for key, value in part.items() if key != "error"}
    if "error" in part:
        short["error"] = part["error"][-300:]
    return short


def table(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """The issue's table: measured beside wanted, for the parts that ran."""
    rows = []
    for name, target in TARGETS.items():
        results = parts.get(name, {}).get("results") or [{}]
        row = {"what": name, "tokens_per_s": results[0].get("tokens_per_s"), "target": target}
        rows.append(row | {key: results[0][key] for key in ("share_of_floor",) if key in results[0]})
    peer = next((each for each in parts.get("transformers", {}).get("results", []) if each.get("requests", 0) > 1), {})
    ours = parts.get("8b 128 streams", {}).get("results") or [{}]
    if peer and ours[0].get("tokens_per_s_of_decoding"):
        times = ours[0]["tokens_per_s_of_decoding"] / peer["tokens_per_s"]
        rows.append({"what": "8b 128 streams, times transformers", "tokens_per_s": round(times, 2), "target": 3})
    return rows


def run_part(arguments: list[str]) -> int:
    """One part in this process; prints its JSON lines."""
    import torch

    from benchmarks import engine_gpu_load as ours
    from benchmarks import engine_gpu_peers as peers
    from benchmarks.engine_shapes import Load

    name, *rest = arguments
    device = torch.device(rest[1] if name == "one" else rest[0])
    big, small = ("llama-3.1-8b", "qwen3-0.6b") if device.type == "cuda" else ("tiny", "tiny-qwen")
    many, few, tokens = (128, 256, 512) if device.type == "cuda" else (4, 6, 60)
    bounds = ((32, 32), (1024, 1024)) if device.type == "cuda" else ((8, 8), (30, 30))
    if name == "ceilings":
        print(json.dumps(ours.ceilings(device)))
    elif name == "one":
        copied = float(rest[2]) if len(rest) > 2 and rest[2] != "None" else None
        print(json.dumps(ours.one_stream(device, big, rest[0], tokens, copied)))
    elif name == "small":  # the shape of nano-vllm's own benchmark: everything random, drawn at temperature 0.6
        varied = ((100, 1024), (100, 1024)) if device.type == "cuda" else ((10, 60), (10, 40))
        print(json.dumps(ours.many_streams(device, Load(small, few, 2112, 330_000), few, *varied, temperature=0.6)))
    elif name == "large":
        print(json.dumps(ours.many_streams(device, Load(big, many, 2112, 200_000), many, *bounds)))
    elif name == "drafts":  # as served by default: with prompt lookup
        print(json.dumps(ours.one_stream(device, big, "none", tokens, max_drafts=7)), flush=True)
        print(json.dumps(ours.many_streams(device, Load(big, many, 2112, 200_000, max_drafts=7), many, *bounds)))
    elif name == "transformers":
        for requests, length in ((many, 128), (1, 64)):
            print(json.dumps(peers.transformers_rate(device, big, requests, length)), flush=True)
    elif name == "tune":
        for row in peers.tune(device, big):
            print(json.dumps(row), flush=True)
    else:
        raise SystemExit(f"{name!r} is no part; there are {', '.join(PARTS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
