"""Servers under test are stopped with all they started, and the table's ratios compare loads of the same round."""

import sys
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.gateway_overhead import as_markdown, rows_of
from benchmarks.load import Load
from benchmarks.peers import Peer, PeerName
from benchmarks.processes import ServerFailedError, free_port, start, wait_until_gone

PARENT = """
import http.server, subprocess, sys
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code, "the" + "-child"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def load(peer: PeerName, connections: int, requests_per_s: float) -> Load:
    return Load(peer, connections, 1000, requests_per_s, 1.0, 2.0, 3.0, 50.0, 0.0, 1000)


def test_ratios_are_taken_within_a_round_and_then_the_median() -> None:
    built = [Peer("relay", "relay", 1, "1"), Peer("penstock", "penstock", 2, "2")]
    speeds = [(100.0, 50.0), (1000.0, 400.0), (10.0, 6.0)]  # the machine was slow, then fast, then very slow
    loads = [load(name, 32, speed) for pair in speeds for name, speed in zip(("relay", "penstock"), pair, strict=True)]
    relay, penstock = rows_of(built, loads)
    assert relay["connections_32"]["of_relay"] == 1
    assert penstock["connections_32"]["of_relay"] == 0.5
    assert penstock["connections_32"]["requests_per_s"] == 50
    assert "| penstock (2) | 1.00 ms | 50 | 0.50 | 1.0 ms | 3.0 ms | 50 MiB |" in as_markdown([relay, penstock], [32])


def test_a_server_is_measured_and_stopped_with_a_child_that_ignores_the_signal(tmp_path: Path) -> None:
    port = free_port()
    server = start("small", [sys.executable, "-c", PARENT, str(port)], {}, None, tmp_path)
    try:
        server.wait_until_ready(f"http://127.0.0.1:{port}/", 20)
        pids = server.pids()
        assert len(pids) == 2
        assert server.memory_mib() > 5
        assert server.pid_of("the-child") == pids[1]
    finally:
        server.stop()
    wait_until_gone(pids, 5)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1)


def test_a_server_that_cannot_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    server = start("broken", [sys.executable, "-c", "raise SystemExit('no such model')"], {}, None, tmp_path)
    began = time.monotonic()
    with pytest.raises(ServerFailedError, match=r"broken ended with 1\.\nno such model"):
        server.wait_until_ready("http://127.0.0.1:9/", 30)
    assert time.monotonic() - began < 20
