"""A webhook receiver on a real socket that checks every signature as the specification says, and does as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET_BYTES = b"0123456789abcdefghijklmnopqrstuv"
SECRET = f"whsec_{base64.b64encode(SECRET_BYTES).decode()}"


@dataclass
class Delivery:
    """One POST that came with a right signature."""

    id: str
    timestamp: int
    content_type: str
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        document = json.loads(self.body)
        return document if isinstance(document, list) else [document]


@dataclass
class Receiver:
    """What came, and what is answered: `answer` takes a delivery and gives a status, with headers if need be."""

    url: str
    answer: Callable[[Delivery], int | tuple[int, dict[str, str]]] = lambda delivery: 204
    deliveries: list[Delivery] = field(default_factory=list)
    forged: int = 0
    hang: threading.Event = field(default_factory=threading.Event)

    @property
    def taken(self) -> list[dict[str, Any]]:
        """Events of deliveries, in order of arrival."""
        return [event for delivery in self.deliveries for event in delivery.events]


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """Listens on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            message, timestamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
            signed = f"{message}.{timestamp}.".encode() + body
            right = base64.b64encode(hmac.new(SECRET_BYTES, signed, hashlib.sha256).digest()).decode()
            if f"v1,{right}" not in self.headers["webhook-signature"].split():
                receiver.forged += 1
                self.send_error(401)
                return
            delivery = Delivery(message, int(timestamp), self.headers["content-type"], body)
            receiver.deliveries.append(delivery)
            answer = receiver.answer(delivery)
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hang.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
