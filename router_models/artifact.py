"""The one-file artifact of a trained router (sealed npz, never pickle); a doubtful file is refused with a named error.

The file holds the arrays of `Weights` and one JSON header: format number, version, fingerprint of the features and the
embedder, SHA-256 over all arrays, tiers, domains, models, and a summary of the training. Beside the weights lies a calibration
sample for promises of quality (see `floor`). No partly usable artifact exists.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models import embedder, sealed, sound
from router_models.embedder import Embedder
from router_models.errors import ArtifactVersionError, EmbedderMismatchError, FeatureMismatchError, TrainingDataError
from router_models.features import CORE, NAMES, fingerprint
from router_models.floor import CalibrationSample
from router_models.tiers import TIERS

FORMAT = 3
KIND = "router artifact"
BUNDLED = Path(__file__).parent / "artifacts" / "router.npz"
# How easy a prompt is, how easy among prompts of its kind; then, counted from here, one per tier for the logarithm of its
# output tokens, one per tier for what its logit is above the curve here, the logarithm of output tokens whatever the tier,
# what thinking gains, and the logarithm of the tokens of written reasoning.
OWN_LEVEL, LENGTH, THINKING, REASONING = len(TIERS), 2 * len(TIERS), 2 * len(TIERS) + 1, 2 * len(TIERS) + 2
HEADS = 2 + 2 * len(TIERS) + 3
# What models are compared on: a constant, ease, and the logarithm of the economy tier's tokens (see `abilities`).
REPRESENTED = 3
SIGNALS = 4
# Pieces of the curve from ease to probability.
PIECES = 8
# Stands in the file for a label that nobody knows; numbers that are not finite are refused there.
UNKNOWN = -1.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The numbers of a trained router: T tiers, K domains, N shape features, D dimensions of meaning, L landmarks, H heads.

    A prompt is a point (N + D,): shape features in standard deviations (`centre`, `scale` (N,)) and its meaning without
    `middle` (D,), scaled to length 1, each times `pull` (N + D,). Its resemblance to landmark i is exp(-|point -
    landmarks[i]|^2). Heads = resemblance @ kernel (L, H) + standardised shape[:CORE] @ core (CORE, H) + bias (H,). `home` (L,):
    number of each landmark's domain. These are float32 (home int32).
    `familiarity` (5,): weights of four signals and a constant, for u. `shrink` (2,) draws ease to where prompts of unknown
    domains lie: k ease + (1 - u) shrink[1], k from shrink[0] at u = 0 to 1 at u = 1. `knots` (S - 1,) part drawn ease into S
    pieces; with `slope` (T, S) and `offset` (T,) logit P(good answer) = slope . ramps(drawn ease) + offset + u^3 own level.
    `half_width` (2, T): half width of the interval in logits, from row 0 at u = 0 to row 1 at u = 1. Log tokens of a tier are
    u own head + (1 - u) (head of all tiers + `token_offset` (T,)); `token_factor` (T,): exp(predicted log) times this is the
    mean.
    `thinking` (3,): mean of thinking gain, how much of the distance from it is believed at u = 0, factor of reasoning tokens.
    `limits` (2,): share of unseen words above which, and familiarity below which, a prompt is called unfamiliar.
    `shown` (3,): centre and scale of tokens in the representation, and spread of what the representation misses.
    `prior` (R,), `prior_spread` (R, R): mean and covariance of the abilities of the trained models; `abilities` (M, R);
    `domain_shown` (K, R): mean representation of a domain's prompts. These are float64.
    `seen` uint8: bit table of the tokens that are whole words and were met in training.
    """

    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    middle: NDArray[np.float32]
    pull: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    home: NDArray[np.int32]
    kernel: NDArray[np.float32]
    core: NDArray[np.float32]
    bias: NDArray[np.float32]
    familiarity: NDArray[np.float64]
    shrink: NDArray[np.float64]
    knots: NDArray[np.float64]
    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    half_width: NDArray[np.float64]
    token_offset: NDArray[np.float64]
    token_factor: NDArray[np.float64]
    thinking: NDArray[np.float64]
    limits: NDArray[np.float64]
    shown: NDArray[np.float64]
    prior: NDArray[np.float64]
    prior_spread: NDArray[np.float64]
    abilities: NDArray[np.float64]
    domain_shown: NDArray[np.float64]
    seen: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded artifact: `version` names it in logs and decisions, `card` is the summary written by the training.

    `domains` are the names of the K domains of training prompts and `models` of the M recorded models, in the weights' order.
    `sample` are labelled prompts that nothing in the artifact was fitted on.
    """

    version: str
    weights: Weights
    domains: tuple[str, ...]
    models: tuple[str, ...]
    card: dict[str, Any]
    embedder: Embedder
    sample: CalibrationSample


def _shapes(table: Embedder, landmarks: int, domains: int, models: int) -> dict[str, tuple[tuple[int, ...], str]]:
    tiers, shape, point = len(TIERS), len(NAMES), len(NAMES) + table.dimensions
    return {
        "centre": ((shape,), "float32"),
        "scale": ((shape,), "float32"),
        "middle": ((table.dimensions,), "float32"),
        "pull": ((point,), "float32"),
        "landmarks": ((landmarks, point), "float32"),
        "home": ((landmarks,), "int32"),
        "kernel": ((landmarks, HEADS), "float32"),
        "core": ((CORE, HEADS), "float32"),
        "bias": ((HEADS,), "float32"),
        "familiarity": ((SIGNALS + 1,), "float64"),
        "shrink": ((2,), "float64"),
        "knots": ((PIECES - 1,), "float64"),
        "slope": ((tiers, PIECES), "float64"),
        "offset": ((tiers,), "float64"),
        "half_width": ((2, tiers), "float64"),
        "token_offset": ((tiers,), "float64"),
        "token_factor": ((tiers,), "float64"),
        "thinking": ((3,), "float64"),
        "limits": ((2,), "float64"),
        "shown": ((3,), "float64"),
        "prior": ((REPRESENTED,), "float64"),
        "prior_spread": ((REPRESENTED, REPRESENTED), "float64"),
        "abilities": ((models, REPRESENTED), "float64"),
        "domain_shown": ((domains, REPRESENTED), "float64"),
        "seen": (((len(table.vocabulary) + 7) // 8,), "uint8"),
    }


@lru_cache(maxsize=4)
def features_of(table: Embedder) -> str:
    """Fingerprint of the features with this embedder; computed once."""
    return fingerprint(table)


def save(
    path: Path,
    weights: Weights,
    domains: list[str],
    models: list[str],
    name: str,
    card: dict[str, Any],
    table: Embedder,
    sample: CalibrationSample | None = None,
) -> str:
    """Write an artifact and return its version, `name` plus the first 8 digits of the arrays' checksum."""
    arrays: sealed.Arrays = {field.name: getattr(weights, field.name) for field in fields(Weights)}
    arrays |= _stored(CalibrationSample.empty() if sample is None else sample)
    version = f"{name}-{sealed.checksum(arrays)[:8]}"
    header = {
        "format": FORMAT,
        "version": version,
        "features": features_of(table),
        "embedder": table.version,
        "tiers": list(TIERS),
        "domains": domains,
        "models": models,
        "card": card,
    }
    sealed.write(path, header, arrays)
    return version


def load(path: Path | None = None, table: Embedder | None = None, content: bytes | None = None) -> Artifact:
    """Read and check an artifact; None means the bundled one, and the bundled embedder. Raises only ArtifactErrors.

    What is loaded can be scored with, its version named in an address, and its card shown as JSON (see `sound`).

    With `content` these bytes are the artifact, and the path only names them in messages.
    """
    path = BUNDLED if path is None else path
    table = embedder.load() if table is None else table
    header, stored = sealed.read(path, KIND, content)
    if header.get("format") != FORMAT:
        raise ArtifactVersionError(
            f"router artifact {str(path)!r} has format {header.get('format')!r:.80}, this release reads {FORMAT}; "
            "train it again with python -m router_models.training"
        )
    if header.get("embedder") != table.version:
        raise EmbedderMismatchError(
            f"router artifact {str(path)!r} needs the embedder {header.get('embedder')!r:.200}, this is {table.version!r}; "
            + how_to_load(str(header.get("embedder"))[:200])
        )
    if header.get("features") != features_of(table):
        raise FeatureMismatchError(
            f"router artifact {str(path)!r} was trained with features {header.get('features')!r:.80}, this release computes "
            f"{features_of(table)!r}; train it again with python -m router_models.training"
        )
    if header.get("tiers") != list(TIERS):
        raise ArtifactVersionError(
            f"router artifact {str(path)!r} has tiers {header.get('tiers')!r:.80}, this release uses {list(TIERS)!r}; "
            "train it again with python -m router_models.training"
        )
    sealed.verify(path, KIND, header, stored)
    version, card = sound.version_of(path, KIND, header), sound.card_of(path, KIND, header)
    domains, models = (sound.names_of(path, KIND, header, key) for key in ("domains", "models"))
    shapes = _shapes(table, _rows(stored, "landmarks"), len(domains), len(models))
    arrays = {key: sealed.taken(path, KIND, key, stored, *shapes[key]) for key in shapes}
    sound.check_numbers(path, KIND, arrays, len(domains))
    return Artifact(version, Weights(**arrays), domains, models, card, table, _sample(path, stored))


def how_to_load(needed: str) -> str:
    """What to do about an artifact that needs another embedder than the one at hand."""
    if needed.startswith("sentence-transformers/"):
        name = needed.removeprefix("sentence-transformers/").rpartition("@")[0]
        return f"load it with the model it was trained with: Router.load(path, transformer_embedder({name!r}))"
    return "train it again with python -m router_models.training, or restore the embedder it was trained with"


def _stored(sample: CalibrationSample) -> sealed.Arrays:
    labels = np.where(np.isnan(sample.labels), UNKNOWN, sample.labels)
    parts = {"quality": sample.quality, "tokens": sample.output_tokens, "input": sample.input_tokens, "labels": labels}
    return {f"sample_{name}": array.astype(np.float32) for name, array in parts.items()}


def _rows(stored: sealed.Arrays, name: str) -> int:
    """How many rows an array has; 0 for one that is not there or no table, which its shape then gives away."""
    return stored[name].shape[0] if name in stored and stored[name].ndim else 0


def _sample(path: Path, stored: sealed.Arrays) -> CalibrationSample:
    count, tiers = _rows(stored, "sample_input"), len(TIERS)
    quality, tokens, labels = (
        sealed.taken(path, KIND, f"sample_{name}", stored, (count, tiers), "float64")
        for name in ("quality", "tokens", "labels")
    )
    given = sealed.taken(path, KIND, "sample_input", stored, (count,), "float64")
    try:
        return CalibrationSample(quality, tokens, given, np.where(labels == UNKNOWN, np.nan, labels))
    except TrainingDataError as error:
        raise sealed.corrupt(path, KIND, str(error)) from error
