"""Runs a supervisor over small Python programs: stages as JSON, [[{"name", "code", ...}]]; prints READY and STOPPING."""

import asyncio
import json
import os
import sys

from gateway.errors import StartupError
from gateway.supervise import Program, Supervisor


async def main() -> None:
    """Supervise until a signal."""
    stages = [
        [
            Program(
                name=each.pop("name"),
                command=(sys.executable, "-u", "-c", each.pop("code")),
                environment=dict(os.environ),
                **each,
            )
            for each in stage
        ]
        for stage in json.loads(sys.argv[1])
    ]
    supervisor = Supervisor(stages, lambda name, line: print(f"{name} | {line}", flush=True))
    await supervisor.run(lambda: print("READY", flush=True), lambda: print("STOPPING", flush=True))


try:
    asyncio.run(main())
except StartupError as error:
    sys.exit(f"StartupError: {error}")
