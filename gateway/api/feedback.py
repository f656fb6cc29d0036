"""POST /v1/feedback: how good an answer was, from whoever got it. 200 once it is kept, 202 while its request is on its way."""

from __future__ import annotations

import orjson

from gateway.api.asgi import Exchange, read_body
from gateway.api.wire.feedback_request import MAX_BYTES, parse_feedback
from gateway.chat.feedback import take_feedback
from gateway.services import Services


async def feedback(exchange: Exchange, services: Services) -> None:
    """Authenticate, read, keep. Errors are raised; the front renders them."""
    caller = await services.keys.authenticate(exchange.header(b"authorization"))
    given = parse_feedback(await read_body(exchange, MAX_BYTES))
    taken = await take_feedback(given.request_id, given.score, given.comment, caller, services)
    body = {
        "object": "feedback",
        "request_id": given.request_id,
        "score": given.score,
        "status": taken.status,
        "comment_kept": taken.comment_kept,
    }
    await exchange.send_json(200 if taken.status == "stored" else 202, orjson.dumps(body), {})
