"""What a gateway costs per request: nginx behind each gateway in turn, all in one run, one core per side.

    python -m benchmarks.gateway_overhead [--install-peers] [--rounds 3] [--seconds 8]

The gateway under test has one core, the upstream and the load (wrk) share another. Gateways are measured in turns, in a
new order each round, and after a load the next one starts only when the last one rests (work put off, such as writing
a ledger, is that gateway's own time and is reported). Figures are medians over rounds; compare ratios, not figures.
A gateway that answers wrongly, or any request that fails, is an error and no table is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import peers, results_file
from benchmarks.load import Bench, Load, check_reply, put_load, started
from benchmarks.peers import PEERS, Peer
from benchmarks.processes import ServerFailedError, require

WARM_CONNECTIONS, WARM_SECONDS = 8, 2


def run_rounds(bench: Bench, built: list[Peer], rounds: int, connections: list[int], seconds: int) -> list[Load]:
    """All loads: per round every gateway once per number of connections, beginning with another gateway each time."""
    loads = []
    for turn in range(rounds):
        order = built[turn % len(built) :] + built[: turn % len(built)]
        for number in connections:
            for peer in order:
                loads.append(put_load(peer, bench, number, seconds))
                print(f"round {turn + 1}: {loads[-1]}", file=sys.stderr, flush=True)
    return loads


def rows_of(built: list[Peer], loads: list[Load]) -> list[dict[str, Any]]:
    """Medians over rounds per gateway and number of connections, and the ratio to the relay of the same round."""
    rows = []
    for peer in built:
        row: dict[str, Any] = {"peer": peer.name, "version": peer.version, "note": peer.note}
        for connections in sorted({load.connections for load in loads}):
            mine = [load for load in loads if (load.peer, load.connections) == (peer.name, connections)]
            floor = [load for load in loads if (load.peer, load.connections) == ("relay", connections)]
            kinds = ("requests_per_s", "p50_ms", "p90_ms", "p99_ms")
            one = {kind: round(statistics.median(getattr(load, kind) for load in mine), 3) for kind in kinds}
            if floor and peer.name != "direct":
                pairs = zip(mine, floor, strict=True)
                ratios = [mine_now.requests_per_s / relay_now.requests_per_s for mine_now, relay_now in pairs]
                one["of_relay"] = round(statistics.median(ratios), 3)
            row[f"connections_{connections}"] = one
        mine = [load for load in loads if load.peer == peer.name]
        row["memory_mib"] = max(load.memory_mib for load in mine)
        row["settle_s"] = max(load.settle_s for load in mine)
        rows.append(row)
    return rows


def books(bench: Bench, built: list[Peer], loads: list[Load]) -> dict[str, Any] | None:
    """Penstock's metered requests beside the calls that nginx got from Penstock, and `ledger verify`; None without it."""
    mine = [peer for peer in built if peer.server == "penstock"]
    if not mine:
        return None
    environment = os.environ | mine[0].environment | {"PENSTOCK_CONFIG": str(bench.folder / "penstock.yaml")}

    def penstock(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *arguments, "--json"]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=bench.folder, timeout=300, check=False
        )

    names = {peer.name for peer in mine}
    asked = sum(load.upstream_calls for load in loads if load.peer in names) + len(mine)
    metered = json.loads(penstock("usage").stdout)["total"]["requests"]
    return {
        "upstream_calls": asked,
        "metered_requests": metered,
        "equal": asked == metered,
        "ledger_verify_exit": penstock("ledger", "verify").returncode,
    }


def as_markdown(rows: list[dict[str, Any]], connections: list[int]) -> str:
    """The table for the README."""
    few, many = min(connections), max(connections)
    head = f"| | {few} connection: p50 | {many} connections: req/s | of the relay | p50 | p99 | memory |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        single, full = row[f"connections_{few}"], row[f"connections_{many}"]
        cells = [f"{row['peer']} ({row['version']})", f"{single['p50_ms']:.2f} ms", f"{full['requests_per_s']:,.0f}"]
        cells += [f"{full['of_relay']:.2f}" if "of_relay" in full else ""]
        cells += [f"{full['p50_ms']:.1f} ms", f"{full['p99_ms']:.1f} ms", f"{row['memory_mib']:.0f} MiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Read the command line, run, write the result, print the table. 0, or 1 when a server or a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="length of one load")
    parser.add_argument("--connections", default="1,32", help="comma-separated")
    parser.add_argument(
        "--install-peers", action="store_true", help="install LiteLLM and Portkey under .cache/bench first"
    )
    parser.add_argument("--out", type=Path, help="where to write the JSON (benchmarks/results/gateway_overhead.json)")
    args = parser.parse_args()
    unknown = set(args.peers.split(",")) - set(PEERS)
    if unknown:
        parser.error(f"unknown peers {sorted(unknown)!r}; known: {', '.join(PEERS)}")
    names = tuple(peer for peer in PEERS if peer in args.peers.split(","))
    connections = [int(number) for number in args.connections.split(",")]
    facts = results_file.machine_facts()
    try:
        require("nginx", "wrk", "taskset", *(["node"] if "portkey" in names else []))
        if args.install_peers:
            peers.install()
        with started(names) as (bench, built):
            for peer in built:
                check_reply(peer, bench)
            warm = [put_load(peer, bench, WARM_CONNECTIONS, WARM_SECONDS) for peer in built]
            loads = run_rounds(bench, built, args.rounds, connections, args.seconds)
            cores = {name: server.cores() for name, server in bench.servers.items()}
            checked = books(bench, built, warm + loads)
    except ServerFailedError as error:
        print(error, file=sys.stderr)
        return 1
    rows = rows_of(built, loads)
    numbers = {"cores": cores, "rows": rows, "books": checked, "loads": [asdict(load) for load in loads]}
    path = results_file.write("gateway_overhead", numbers, facts, args.out)
    print(as_markdown(rows, connections))
    print(f"\nbooks: {json.dumps(checked)}\nwritten: {path}")
    return 0 if checked is None or (checked["equal"] and checked["ledger_verify_exit"] == 0) else 1


if __name__ == "__main__":
    sys.exit(main())
