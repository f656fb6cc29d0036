"""Reads and writes the one-file artifact (npz, never pickle); a doubtful file is refused with a named error.

The file holds the arrays of `Weights` and one JSON header: format number, version, fingerprint of the features,
SHA-256 over all arrays, tiers, and a summary of the training. All or nothing: no partly usable artifact exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from router_models.errors import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    ArtifactVersionError,
    FeatureMismatchError,
)
from router_models.features import BUCKETS, DENSE_NAMES, FINGERPRINT, SEEN_BITS
from router_models.tiers import TIERS

FORMAT = 1
BUNDLED = Path(__file__).parent / "artifacts" / "router.npz"
# One head for how easy a prompt is, then one per tier for the logarithm of its output tokens.
HEADS = 1 + len(TIERS)


@dataclass(frozen=True, slots=True)
class Weights:
    """The numbers of a trained router for T tiers, K domains, D dense features, H = 1 + T heads.

    The heads are ease, then log output tokens by tier. `hashed` (BUCKETS, H + K): weights of hashed features for the
    heads, then for recognising the domains, idf already multiplied in; `idf` (BUCKETS,), 0 where never met. `dense`
    (D, H) for standardised dense features; `centre` and `scale` (D,); `bias` (H,). `domain_bias` (K,),
    `domain_linear` and `domain_square` (D, K): log weight of a domain from dense features; `domain_offset` (K, H) and
    `domain_slope` (K, D, H): what a domain adds to the heads. These are float32.
    `familiarity` (5,): weights of four signals and a constant. `slope` and `offset` (2, T): logit P(good answer) =
    slope * ease + offset, from row 0 at familiarity 0 to row 1 at familiarity 1; `half_width` (2, T): half width of the
    interval in logits, likewise. `token_factor` (T,): exp(predicted log) times this is the mean. `limits` (2,): share
    of unseen words above which, and familiarity below which, a prompt is called unfamiliar. These are float64.
    `seen` uint8 (2**SEEN_BITS / 8,): bit table of the words met in training.
    """

    hashed: NDArray[np.float32]
    idf: NDArray[np.float32]
    dense: NDArray[np.float32]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    domain_bias: NDArray[np.float32]
    domain_linear: NDArray[np.float32]
    domain_square: NDArray[np.float32]
    domain_offset: NDArray[np.float32]
    domain_slope: NDArray[np.float32]
    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    half_width: NDArray[np.float64]
    token_factor: NDArray[np.float64]
    seen: NDArray[np.uint8]
    familiarity: NDArray[np.float64]
    limits: NDArray[np.float64]


def _shapes(domains: int) -> dict[str, tuple[tuple[int, ...], str]]:
    tiers, width = len(TIERS), len(DENSE_NAMES)
    return {
        "hashed": ((BUCKETS, HEADS + domains), "float32"),
        "idf": ((BUCKETS,), "float32"),
        "dense": ((width, HEADS), "float32"),
        "centre": ((width,), "float32"),
        "scale": ((width,), "float32"),
        "bias": ((HEADS,), "float32"),
        "domain_bias": ((domains,), "float32"),
        "domain_linear": ((width, domains), "float32"),
        "domain_square": ((width, domains), "float32"),
        "domain_offset": ((domains, HEADS), "float32"),
        "domain_slope": ((domains, width, HEADS), "float32"),
        "slope": ((2, tiers), "float64"),
        "offset": ((2, tiers), "float64"),
        "half_width": ((2, tiers), "float64"),
        "token_factor": ((tiers,), "float64"),
        "seen": ((1 << SEEN_BITS >> 3,), "uint8"),
        "familiarity": ((5,), "float64"),
        "limits": ((2,), "float64"),
    }


# Stored at half precision: the file is half as large and no probability moves by more than 0.001.
_HALF = frozenset({"hashed", "idf"})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded artifact: `version` names it in logs and decisions, `card` is the summary written by the training.

    `domains` are the names of the K domains of training prompts, in the order of the weights.
    """

    version: str
    weights: Weights
    domains: tuple[str, ...]
    card: dict[str, Any]


def save(path: Path, weights: Weights, domains: list[str], name: str, card: dict[str, Any]) -> str:
    """Write an artifact and return its version, `name` plus the first 8 digits of the arrays' checksum."""
    arrays = {field.name: getattr(weights, field.name) for field in fields(Weights)}
    stored = {key: value.astype(np.float16) if key in _HALF else value for key, value in arrays.items()}
    checksum = _checksum(stored)
    version = f"{name}-{checksum[:8]}"
    header = {
        "format": FORMAT,
        "version": version,
        "features": FINGERPRINT,
        "checksum": checksum,
        "tiers": list(TIERS),
        "domains": domains,
        "card": card,
    }
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    _write(path, {"header": text, **stored})
    return version


def load(path: Path | None = None) -> Artifact:
    """Read and check an artifact; None means the bundled one. Raises only subclasses of ArtifactError."""
    path = BUNDLED if path is None else path
    header, stored = _read(path)
    if header.get("format") != FORMAT:
        raise ArtifactVersionError(
            f"router artifact {str(path)!r} has format {header.get('format')!r}, this release reads {FORMAT}; "
            "train it again with python -m router_models.training"
        )
    if header.get("features") != FINGERPRINT:
        raise FeatureMismatchError(
            f"router artifact {str(path)!r} was trained with features {header.get('features')!r}, this release "
            f"computes {FINGERPRINT!r}; train it again with python -m router_models.training"
        )
    if header.get("tiers") != list(TIERS):
        raise ArtifactVersionError(
            f"router artifact {str(path)!r} has tiers {header.get('tiers')!r}, this release uses {list(TIERS)!r}; "
            "train it again with python -m router_models.training"
        )
    if header.get("checksum") != _checksum(stored):
        raise _corrupt(path, "its checksum does not match its contents")
    domains = tuple(str(name) for name in header.get("domains", ()))
    shapes = _shapes(len(domains))
    weights = Weights(**{key: _checked(path, key, stored, *shapes[key]) for key in shapes})
    return Artifact(str(header.get("version")), weights, domains, cast(dict[str, Any], header.get("card", {})))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactNotFoundError(f"there is no router artifact at {str(path)!r}") from None
    except OSError as error:
        raise ArtifactCorruptError(f"router artifact {str(path)!r} cannot be read: {error}") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
        header = json.loads(stored.pop("header").tobytes())
    # Whatever a damaged zip or header raises (there are many kinds) means the same to the caller.
    except Exception as error:
        raise _corrupt(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "its header is not an object")
    return header, stored


def _checked(path: Path, key: str, stored: dict[str, NDArray[Any]], shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    array = stored.get(key)
    if array is None or array.shape != shape:
        raise _corrupt(path, f"{key!r} has shape {None if array is None else array.shape!r}, expected {shape!r}")
    array = np.ascontiguousarray(array, dtype=kind)
    if not np.all(np.isfinite(array)):
        raise _corrupt(path, f"{key!r} contains numbers that are not finite")
    return array


def _checksum(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """A compressed npz with fixed dates, so the same training gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for key, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(array), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{key}.npy"), part.getvalue(), compress_type=zipfile.ZIP_DEFLATED)


def _corrupt(path: Path, why: str) -> ArtifactCorruptError:
    return ArtifactCorruptError(
        f"router artifact {str(path)!r} is damaged ({why}); restore it, "
        "or train it again with python -m router_models.training"
    )
