"""What an engine under test is asked, line by line: each worker runs in its own Python and imports nothing else of ours.

In:  {"do": "prefill", "tokens": 512} | {"do": "decode", "streams": 1, "tokens": 64} | {"do": "quit"}
Out: {"tokens": N, "seconds": S} or {"error": "..."} per line, after one line {"ready": "name and version"}
"""

import json
import sys
import time
from collections.abc import Callable


class CannotMeasure(Exception):
    """This engine does not do what is asked, and why; the table has an empty place for it."""


def prompt(length: int, vocabulary: int, salt: int = 0) -> list[int]:
    """Ids spread over the vocabulary; another salt gives another prompt."""
    return [((index + 1) * 7919 + salt * 104729) % vocabulary for index in range(length)]


def answer(ready: str, prefill: Callable[[int], float], decode: Callable[[int, int], float]) -> None:
    """Serve standard input until it ends. `prefill(tokens)` and `decode(streams, tokens)` return seconds."""
    _say({"ready": ready})
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "quit":
            return
        try:
            if asked["do"] == "prefill":
                _say({"tokens": asked["tokens"], "seconds": prefill(asked["tokens"])})
            else:
                seconds = decode(asked["streams"], asked["tokens"])
                _say({"tokens": asked["streams"] * asked["tokens"], "seconds": seconds})
        except CannotMeasure as error:
            _say({"error": str(error)})


def timed(call: Callable[[], object]) -> float:
    """Seconds on the clock."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _say(document: dict[str, object]) -> None:
    print(json.dumps(document), flush=True)
