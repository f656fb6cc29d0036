"""Compiling the CPU kernel: once per machine, tried before it is used, and a reason in the log where it cannot be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_engine.config import EngineConfig
from local_engine.kernels.cpu.build import NoKernel, build, find_compiler, processor_features, target_for
from local_engine.kernels.cpu.library import Library
from local_engine.loading import load_engine
from tests.local_engine.tiny_models import write_hub_directory

ALL = frozenset(
    {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "f16c", "fma"}
    | {"avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}
)


def compiler(folder: Path, body: str) -> str:
    """A program that says it compiles."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_flags_follow_the_processor() -> None:
    assert "-mavx512vnni" in target_for(ALL).flags
    assert target_for(ALL).tiles
    assert "-mamx-int8" in target_for(ALL).flags
    assert not target_for(ALL, tiles=False).tiles
    assert not target_for(ALL - {"amx_int8"}).tiles
    assert not any("amx" in flag.lower() for flag in target_for(ALL - {"amx_int8"}).flags)
    with pytest.raises(NoKernel, match="no avx512_vnni"):
        target_for(ALL - {"avx512_vnni"})


def test_without_a_compiler_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NoKernel, match="no C\\+\\+ compiler was found"):
        find_compiler()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'error: no such header' >&2; exit 1", "the compiler failed with status 1: error: no such header"),
        ('for last; do :; done; dir=${last%/*}; while [ "$1" != -o ]; do shift; done; echo junk > "$2"', "the trial"),
    ],
)
def test_a_compiler_that_fails_or_a_library_that_is_broken_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, reason: str
) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, body))
    with pytest.raises(NoKernel, match=reason):
        build(target_for(ALL), tmp_path / "kernels")
    assert [path.name for path in (tmp_path / "kernels").iterdir()] == ["lock"]


# A library that was compiled before, which `build` must not even look into.
KEEPS = 'while [ "$1" != -o ]; do shift; done; echo junk > "$2"'


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where `build` keeps a library, which it has compiled and taken for good."""
    monkeypatch.setenv("CXX", compiler(tmp_path, KEEPS))
    trial = tmp_path / "python"
    trial.write_text("#!/bin/sh\n")
    trial.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(trial))
    return build(target_for(ALL), tmp_path / "kernels")


def test_what_others_may_write_to_is_not_loaded(kept: Path) -> None:
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert build(target_for(ALL), kept.parent) == kept
    kept.chmod(0o722)
    with pytest.raises(NoKernel, match=r"cpu-.*\.so' has mode 0o722: others may write"):
        build(target_for(ALL), kept.parent)
    kept.chmod(0o700)
    kept.parent.chmod(0o770)
    with pytest.raises(NoKernel, match="kernels' has mode 0o770: others may write"):
        build(target_for(ALL), kept.parent)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_loaded(kept: Path) -> None:
    os.chown(kept, 12345, 12345)
    with pytest.raises(NoKernel, match="belongs to user 12345"):
        build(target_for(ALL), kept.parent)


def test_a_folder_that_cannot_be_had_is_a_reason_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, "exit 1"))
    with pytest.raises(NoKernel, match="cannot be kept in '~nobody-of-that-name/kernels'"):
        build(target_for(ALL), Path("~nobody-of-that-name/kernels"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NoKernel, match="Not a directory"):
        build(target_for(ALL), tmp_path / "file" / "kernels")


def test_two_that_start_together_compile_once(tmp_path: Path) -> None:
    try:
        target_for(processor_features())
        found = find_compiler()
    except NoKernel as reason:
        pytest.skip(f"no native kernel here: {reason}")
    counted = compiler(tmp_path, f'echo . >> {tmp_path}/calls; exec {found} "$@"')
    code = (
        "from pathlib import Path; from local_engine.kernels.cpu.build import *; "
        f"print(build(target_for(processor_features()), Path({str(tmp_path / 'kernels')!r})))"
    )
    environment = {"CXX": counted, "PATH": "/usr/bin:/bin"}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {run.communicate(timeout=200)[0].strip() for run in runs}
    assert len(paths) == 1
    Library(Path(paths.pop()))
    assert (tmp_path / "calls").read_text().count(".") == 1


def test_an_engine_without_the_kernel_answers_by_torch_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_hub_directory(tmp_path / "model", seed=1)
    with caplog.at_level(logging.INFO, "local_engine"):
        engine = load_engine(model, EngineConfig(dtype="float32", device="cpu", cache_tokens=256))
    assert engine.runner.native is None
    assert caplog.messages == ["steps are computed by torch: the kernel wants bfloat16 weights, these are float32"]
