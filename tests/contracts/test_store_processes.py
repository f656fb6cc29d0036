"""Several gateway processes on one Redis share one budget: together they get exactly what there is."""

from __future__ import annotations

import subprocess
import sys

from gateway.store.redis import RedisStore

ASK = """
import asyncio, sys, time
from gateway.store.base import Claim
from gateway.store.redis import RedisStore

async def main() -> None:
    store = RedisStore(sys.argv[1], deadline=30.0)
    ends = time.time() + 600
    async def ask(number: int) -> bool:
        claims = [Claim("budget", 7, 7 * 120 + 6, ends), Claim("parallel", 1, 1000, ends, lease=f"{sys.argv[2]}-{number}")]
        if await store.reserve(claims) is not None:
            return False
        if number % 4 == 0:
            await store.adjust([(claim, 0) for claim in claims], once=f"{sys.argv[2]}-{number}")
            return False
        return True
    print(sum(await asyncio.gather(*(ask(number) for number in range(250)))))
    await store.close()

asyncio.run(main())
"""


async def test_four_processes_with_a_thousand_requests_never_overspend(redis_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", ASK, redis_url, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    kept = sum(int(process.communicate(timeout=120)[0]) for process in processes)
    store = RedisStore(redis_url)
    assert await store.read(["budget", "parallel"]) == [7 * kept, kept]
    await store.close()
    assert 60 < kept <= 120  # a place that was given back late may find nobody left who asks
