"""Meaning of a text as 256 numbers from a bundled table of token vectors: numpy alone, tens of microseconds, no network.

The table is distilled from all-MiniLM-L6-v2 (Apache-2.0) by `router_models.training.distil`: the vector of a token is what that
model makes of the token alone, reduced by PCA (after model2vec, Minish Lab 2024). A text is the mean of its distinct tokens'
vectors, rarer tokens counting more, scaled to length 1. `transformer_embedder` offers any other model by name.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from router_models import sealed
from router_models.errors import ArtifactVersionError
from router_models.wordpiece import WordPiece, words_of

FORMAT = 1
KIND = "embedder"
BUNDLED = Path(__file__).parent / "artifacts" / "embedder.npz"

Floats = NDArray[np.float32]


class TextEmbedder(Protocol):
    """Anything that turns a text into a vector of length 1."""

    @property
    def version(self) -> str:
        """Changes whenever the same text may get another vector."""
        ...

    def embed(self, text: str) -> Floats:
        """The text as a vector, shape (D,), of length 1, or all 0 for a text without words."""
        ...


class Embedder:
    """A loaded table; immutable and safe to share between threads.

    `vectors` int8 (V, D), `scale` float32 (V,): token v is vectors[v] * scale[v]; `weight` float32 (V,): how much it counts.
    """

    def __init__(
        self, version: str, vocabulary: list[str], vectors: NDArray[np.int8], scale: Floats, source: dict[str, Any]
    ) -> None:
        self.version = version
        self.vocabulary = vocabulary
        self.source = source
        self.pieces = WordPiece(vocabulary)
        # A BERT vocabulary is sorted by how frequent its tokens are, so the place says how rare one is (Zipf 1935).
        self.rarity: Floats = np.log1p(np.arange(len(vocabulary))).astype(np.float32)
        self.rarest = float(np.log1p(len(vocabulary)))
        self.is_word = np.array([token.isalpha() for token in vocabulary], dtype=bool)
        self._vectors = vectors
        self._factor: Floats = scale * self.rarity

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        return int(self._vectors.shape[1])

    def embed(self, text: str) -> Floats:
        """The text as a vector (D,) of length 1; all 0 for a text without words."""
        return self.of_tokens(self.distinct(list(dict.fromkeys(words_of(text)))))

    def meaning(self, text: str, tokens: NDArray[np.int64]) -> Floats:
        """What the router takes as the meaning of a text: that of its distinct tokens. A sentence model reads the text."""
        return self.of_tokens(tokens)

    def distinct(self, words: list[str]) -> NDArray[np.int64]:
        """Numbers of the distinct tokens of some words, ascending."""
        return np.unique(np.array(self.pieces.numbers(words), dtype=np.int64))

    def of_tokens(self, tokens: NDArray[np.int64]) -> Floats:
        """The weighted mean of distinct tokens' vectors, scaled to length 1."""
        if tokens.size == 0:
            return np.zeros(self.dimensions, dtype=np.float32)
        # dot gives what @ gives, in half the time for arrays this small.
        total: Floats = self._factor.take(tokens).dot(self._vectors.take(tokens, 0).astype(np.float32))
        length = sqrt(total.dot(total))
        return total / np.float32(length) if length > 0.0 else total


@lru_cache(maxsize=4)
def load(path: Path = BUNDLED) -> Embedder:
    """Read and check a table; the same file is read once. Raises subclasses of ArtifactError."""
    header, arrays = sealed.read(path, KIND)
    if header.get("format") != FORMAT:
        raise ArtifactVersionError(
            f"embedder {str(path)!r} has format {header.get('format')!r}, this release reads {FORMAT}; "
            "make it again with python -m router_models.training.distil"
        )
    sealed.verify(path, KIND, header, arrays)
    vocabulary = bytes(arrays["vocabulary"]).decode().split("\n")
    dimensions = int(header["dimensions"])
    vectors = sealed.taken(path, KIND, "vectors", arrays, (len(vocabulary), dimensions), "int8")
    scale = sealed.taken(path, KIND, "scale", arrays, (len(vocabulary),), "float32")
    return Embedder(str(header["version"]), vocabulary, vectors, scale, dict(header.get("source", {})))


def save(
    path: Path,
    vocabulary: list[str],
    vectors: NDArray[np.floating[Any]],
    source: dict[str, Any],
    prefix: str = "minilm",
) -> str:
    """Write token vectors (V, D) as int8 with one scale per token; returns the version, which begins with `prefix`."""
    scale = (np.abs(vectors).max(axis=1) / 127.0 + 1e-12).astype(np.float16).astype(np.float32)
    scale = np.maximum(scale, np.float32(1e-6))
    arrays: sealed.Arrays = {
        "vocabulary": np.frombuffer("\n".join(vocabulary).encode(), dtype=np.uint8),
        "vectors": np.clip(np.rint(vectors / scale[:, None]), -127, 127).astype(np.int8),
        "scale": scale.astype(np.float32),
    }
    version = f"{prefix}-{sealed.checksum(arrays)[:8]}"
    header = {"format": FORMAT, "version": version, "dimensions": int(vectors.shape[1]), "source": source}
    sealed.write(path, header, arrays)
    return version
