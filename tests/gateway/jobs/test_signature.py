"""The signature of what is posted: that of the specification, and the one that the example in the documentation accepts."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

from gateway.jobs.outbox.webhook import signature
from tests.receiver import SECRET, SECRET_BYTES

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def test_it_is_that_of_the_reference_libraries() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_documented_check_accepts_it_and_nothing_else() -> None:
    example = re.search(r"```python\n(.*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(example.group(1), names)
    check, body, now = names["is_from_penstock"], b'[{"id": "req_1"}]', int(time.time())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,bm90IHRoaXMgb25l {signature(SECRET_BYTES, 'msg_1', now, body)}",
    }
    assert check(headers, body, SECRET)
    assert not check(headers, body + b" ", SECRET)
    assert not check({**headers, "webhook-id": "msg_2"}, body, SECRET)
    assert not check({**headers, "webhook-timestamp": str(now + 1)}, body, SECRET)
    old = {**headers, "webhook-timestamp": str(now - 3600)}
    old["webhook-signature"] = signature(SECRET_BYTES, "msg_1", now - 3600, body)
    assert not check(old, body, SECRET)
