"""A real S3-compatible server for the tests: moto's, as a process on a free port, which checks signatures; and a line to it
that can be cut."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import boto3
import httpx

from tests.backends import free_port

START_SECONDS = 60.0
REGION = "eu-central-1"
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'


@dataclass
class S3Server:
    """A running server with one user, who may do everything in S3."""

    port: int
    process: subprocess.Popen[bytes]
    access_key_id: str = ""
    secret_access_key: str = ""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str = "s3") -> Any:
        keys = {"aws_access_key_id": self.access_key_id or "x", "aws_secret_access_key": self.secret_access_key or "x"}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, **keys)

    def add_user(self) -> None:
        """The first requests need no key; from then on the server checks every signature."""
        iam = self.client("iam")
        iam.create_user(UserName="exports")
        iam.put_user_policy(UserName="exports", PolicyName="all", PolicyDocument=POLICY)
        made = iam.create_access_key(UserName="exports")["AccessKey"]
        self.access_key_id, self.secret_access_key = made["AccessKeyId"], made["SecretAccessKey"]

    def make_bucket(self, name: str) -> None:
        self.client().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object that can be seen, by its key."""
        client = self.client()
        keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@contextmanager
def running_s3(port: int | None = None) -> Iterator[S3Server]:
    """An empty server."""
    port = port or free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    quiet = subprocess.DEVNULL
    server = S3Server(port, subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet))
    try:
        _wait(server)
        server.add_user()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def _wait(server: S3Server) -> None:
    gives_up_at = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(f"{server.endpoint}/moto-api/data.json", timeout=5)
            return
        except httpx.HTTPError:
            if server.process.poll() is not None or time.monotonic() > gives_up_at:
                raise
            time.sleep(0.1)


class Line:
    """A TCP proxy that ends every connection, and takes no more, once so many bytes went up."""

    def __init__(self, port: int, cut_after: int) -> None:
        self._target, self._left = port, cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def is_cut(self) -> bool:
        return self._left <= 0

    def close(self) -> None:
        self._left = 0
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if up:
                    self._left -= len(data)
                    if self.is_cut:
                        self.close()
                        return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
