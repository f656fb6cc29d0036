"""Request ids: `req_`, the moment of arrival in milliseconds, 80 random bits, all hexadecimal; they sort by time."""

from __future__ import annotations

import os
import re

_FORM = re.compile(r"req_([0-9a-f]{12})[0-9a-f]{20}")


def new_request_id(received_at: float) -> str:
    """An id for a request that arrived then (seconds since the epoch)."""
    return f"req_{int(received_at * 1000):012x}{os.urandom(10).hex()}"


def received_at_of(request_id: str) -> float | None:
    """When the request of an id arrived, to the millisecond below; None for a text that is no id of ours."""
    found = _FORM.fullmatch(request_id)
    return int(found[1], 16) / 1000 if found else None
