"""Exports to an S3-compatible server on a socket: whole or not to be seen, resumed, and refused in clear words."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.billing.exports.manifest import NAME, FileEntry
from gateway.billing.exports.scheduled.bucket import PART, Bucket
from gateway.config_exports import S3
from gateway.errors import ConfigError, StartupError
from tests.s3 import REGION, Line, S3Server, running_s3

BIG, SMALL = PART * 2 + 12_345, 1000


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        running.make_bucket("finance")
        yield running


def reach(server: S3Server, **changes: object) -> S3:
    known = {
        "endpoint": server.endpoint, "region": REGION, "access_key_id": server.access_key_id,
        "secret_access_key": server.secret_access_key, "timeout_seconds": 10,
    }  # fmt: skip
    return S3.model_validate({**known, **changes})


def bucket(s3: S3, name: str = "finance") -> Bucket:
    return Bucket(name, s3, lambda _: None)


def folder_of(path: Path, **sizes: int) -> tuple[Path, list[FileEntry]]:
    """A folder as an export leaves it: files of these sizes and their manifest."""
    path.mkdir(exist_ok=True)
    entries = []
    for name, size in sizes.items():
        content = (f"{name} of {path.name}\r\n".encode() * (size // 10 + 1))[:size]
        (path / name).write_bytes(content)
        entries.append(FileEntry(name, "Usage", 1, size, hashlib.sha256(content).hexdigest(), {}))
    (path / NAME).write_text(json.dumps({"files": [entry.name for entry in entries], "folder": path.name}))
    return path, entries


def contents(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir()}


def sent(server: S3Server, prefix: str) -> dict[str, bytes]:
    return {
        key.rpartition("/")[2]: content
        for key, content in server.objects("finance").items()
        if key.startswith(f"{prefix}/")
    }


def test_files_arrive_whole_with_their_checksums_large_ones_in_parts(server: S3Server, tmp_path: Path) -> None:
    folder, entries = folder_of(tmp_path / "export", big=BIG, small=SMALL, empty=0)
    bucket(reach(server)).send(folder, "a/b", entries)
    assert sent(server, "a/b") == contents(folder)
    head = server.client().head_object(Bucket="finance", Key="a/b/big", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"'), "three parts"
    assert head["ChecksumSHA256"], "the server has checked the bytes itself"
    assert head["Metadata"]["sha256"] == entries[0].sha256


def test_what_is_there_already_is_not_sent_again_and_what_is_stale_goes(server: S3Server, tmp_path: Path) -> None:
    folder, entries = folder_of(tmp_path / "export", one=SMALL, two=SMALL)
    bucket(reach(server)).send(folder, "again", entries)
    before = {
        each["Key"]: each["LastModified"] for each in server.client().list_objects_v2(Bucket="finance")["Contents"]
    }
    line = Line(server.port, 20_000)
    bucket(reach(server, endpoint=line.endpoint)).send(folder, "again", entries)
    assert not line.is_cut
    line.close()
    after = {
        each["Key"]: each["LastModified"] for each in server.client().list_objects_v2(Bucket="finance")["Contents"]
    }
    assert after == before
    changed, entries = folder_of(tmp_path / "export2", one=SMALL)
    bucket(reach(server)).send(changed, "again", entries)
    assert sent(server, "again") == contents(changed)


def test_a_server_that_is_lost_in_the_middle_leaves_no_manifest_and_the_next_run_goes_on(
    server: S3Server, tmp_path: Path
) -> None:
    folder, entries = folder_of(tmp_path / "export", first=SMALL, big=BIG, last=SMALL)
    old, old_entries = folder_of(tmp_path / "old", first=SMALL)
    bucket(reach(server)).send(old, "lost", old_entries)
    line = Line(server.port, PART + 100_000)
    with pytest.raises(StartupError, match=r"the bucket s3://finance at http://127.0.0.1:\d+ cannot be written"):
        bucket(reach(server, endpoint=line.endpoint, timeout_seconds=2)).send(folder, "lost", entries)
    assert line.is_cut
    assert sent(server, "lost") == {"first": (folder / "first").read_bytes()}, "neither the manifest nor half of a file"
    line = Line(server.port, BIG + 100_000)
    bucket(reach(server, endpoint=line.endpoint)).send(folder, "lost", entries)
    line.close()
    assert sent(server, "lost") == contents(folder)


def test_a_server_that_was_killed_is_written_once_it_is_there_again(tmp_path: Path) -> None:
    folder, entries = folder_of(tmp_path / "export", big=BIG)
    with running_s3() as server:
        s3 = reach(server, timeout_seconds=1)
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StartupError, match="cannot be written"):
            bucket(s3).send(folder, "x", entries)
        port = server.port
    with pytest.raises(StartupError, match="cannot be written"):
        bucket(s3).send(folder, "x", entries)
    with running_s3(port) as again:
        again.make_bucket("finance")
        bucket(reach(again)).send(folder, "x", entries)
        assert sent(again, "x") == contents(folder)


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"access_key_id": "AKIANOBODY"}, "finance", "InvalidAccessKeyId: it does not know the access key"),
        ({"secret_access_key": "hunter2-hunter2"}, "finance", "SignatureDoesNotMatch: the secret key is wrong"),
        ({}, "nowhere", "NoSuchBucket: the bucket does not exist; make it"),
    ],
)
def test_what_the_server_refuses_is_said_in_one_line_without_secrets(
    server: S3Server, tmp_path: Path, changes: dict[str, str], name: str, said: str
) -> None:
    folder, entries = folder_of(tmp_path / "export", one=SMALL)
    with pytest.raises(StartupError) as refused:
        bucket(reach(server, **changes), name).send(folder, "x", entries)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert server.secret_access_key not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_credentials_come_from_the_named_variables_or_the_usual_ones(server: S3Server, tmp_path: Path) -> None:
    folder, entries = folder_of(tmp_path / "export", one=SMALL)
    named = reach(server, access_key_id="env:FINANCE_KEY", secret_access_key="env:FINANCE_SECRET")
    values = {"FINANCE_KEY": server.access_key_id, "FINANCE_SECRET": server.secret_access_key}
    Bucket("finance", named, values.get).send(folder, "named", entries)
    assert sent(server, "named") == contents(folder)
    with pytest.raises(ConfigError, match=r"s3.access_key_id is 'env:FINANCE_KEY', and that variable is not set"):
        Bucket("finance", named, {}.get)
    program = (
        "import sys, json\nfrom pathlib import Path\n"
        "from gateway.billing.exports.manifest import FileEntry\n"
        "from gateway.billing.exports.scheduled.bucket import Bucket\nfrom gateway.config_exports import S3\n"
        "entries = [FileEntry(*each) for each in json.loads(sys.argv[3])]\n"
        "Bucket('finance', S3(endpoint=sys.argv[1]), lambda _: None).send(Path(sys.argv[2]), 'usual', entries)\n"
    )
    given = json.dumps([[getattr(entry, name) for name in FileEntry.__slots__] for entry in entries])
    usual = {"AWS_ACCESS_KEY_ID": server.access_key_id, "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
             "AWS_REGION": REGION}  # fmt: skip
    command = [sys.executable, "-c", program, server.endpoint, str(folder), given]
    ran = subprocess.run(command, env={**os.environ, **usual}, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert sent(server, "usual") == contents(folder)
