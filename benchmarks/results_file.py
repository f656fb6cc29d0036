"""Writes benchmarks/results/NAME.json: numbers with the machine, the commit and the command they came from.

python -m benchmarks.results_file NAME COMMAND...     runs COMMAND, which prints one JSON document, and keeps that
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def machine_facts() -> dict[str, Any]:
    """CPU model, usable cores, memory in GiB, load average at this moment, system and Python version."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "gpu": _gpu(),
    }


def commit_facts() -> dict[str, Any]:
    """The commit that is checked out, and whether tracked files differ from it.

    A copy of the files that is no checkout takes what BENCH_COMMIT says, and cannot tell whether it was modified.
    """
    try:
        return {"commit": _git("rev-parse", "HEAD"), "modified": bool(_git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": os.environ.get("BENCH_COMMIT"), "modified": None}


def command_line() -> str:
    """The command as it was given; folders outside the repository are shortened to their last name."""
    # Run as a file it has no spec; it is recorded as the module it is.
    spec = sys.modules["__main__"].__spec__
    module = spec.name if spec else f"benchmarks.{Path(sys.argv[0]).stem}"
    return shlex.join(_without_place(argument) for argument in ["python", "-m", module, *sys.argv[1:]])


def write(name: str, numbers: dict[str, Any], facts: dict[str, Any], out: Path | None = None) -> Path:
    """Write `numbers` with where they came from; `facts` were taken by `machine_facts` before the run. Returns the path."""
    path = out or RESULTS / f"{name}.json"
    document = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **commit_facts(),
        "command": command_line(),
        "machine": facts,
        **numbers,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _gpu() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _without_place(argument: str) -> str:
    return f".../{Path(argument).name}" if argument.startswith("/") else argument


def main() -> int:
    """Run a command and keep the JSON it prints. Its exit status; 1 when it prints anything else."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    facts = machine_facts()
    done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return done.returncode
    try:
        numbers = json.loads(done.stdout)
    except ValueError:
        print(f"{sys.argv[2:]!r} did not print one JSON document: {done.stdout[:500]!r}", file=sys.stderr)
        return 1
    print(write(sys.argv[1], {"numbers": numbers}, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
