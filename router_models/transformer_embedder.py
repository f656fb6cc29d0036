"""Any model of the sentence-transformers library as the router's embedder; milliseconds per text, so not for the serving path.

The library and torch are imported when a model is asked for, never before. Words and how rare they are still come from the
bundled table; only the meaning of a text is the model's. An artifact that was trained with a model refuses every other one: its
version holds the model's name and a checksum of what the model makes of fixed texts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models import embedder
from router_models.embedder import Embedder, Floats
from router_models.errors import EmbedderMissingError

PREFIX = "sentence-transformers/"
_PROBES = ("What is 2+2?", "Prove that the square root of two is irrational.", "Wie komme ich nach Hause?")


class TransformerEmbedder(Embedder):
    """A sentence model in the place of the bundled table's vectors; safe to share between threads as far as the model is."""

    def __init__(self, name: str, model: Any, table: Embedder) -> None:
        # What belongs to words is the table's own, not a copy.
        self.__dict__.update(vars(table))
        self._model = model
        self._dimensions = int(self._encoded("probe").size)
        digest = hashlib.sha256(
            b"".join(np.round(self._encoded(probe), 3).astype("<f4").tobytes() for probe in _PROBES)
        )
        # Where a folder lies is this machine's own business.
        name = Path(name).name if Path(name).is_dir() else name
        self.version = f"{PREFIX}{name}@{digest.hexdigest()[:8]}"
        self.source = {"model": name, "library": "sentence-transformers"}

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        return self._dimensions

    def embed(self, text: str) -> Floats:
        """The text as a vector (D,) of length 1; all 0 for a text without anything to read."""
        return self._encoded(text) if text.strip() else np.zeros(self._dimensions, dtype=np.float32)

    def meaning(self, text: str, tokens: NDArray[np.int64]) -> Floats:
        """The model's vector of the whole text."""
        return self.embed(text)

    def of_tokens(self, tokens: NDArray[np.int64]) -> Floats:
        """The model's vector of these tokens, one after the other."""
        return self.embed(" ".join(self.vocabulary[token] for token in tokens.tolist()))

    def _encoded(self, text: str) -> Floats:
        # Half a surrogate pair is no text to a tokenizer.
        plain = text.encode("utf-8", "replace").decode()
        found: Floats = np.asarray(self._model.encode(plain, show_progress_bar=False), dtype=np.float32)
        length = float(np.sqrt(found @ found))
        return found / np.float32(length) if length > 0.0 else found


def transformer_embedder(name: str, table: Embedder | None = None) -> TransformerEmbedder:
    """A model by its name in the library or by its folder. Raises EmbedderMissingError."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EmbedderMissingError(
            f"the embedder {name!r} needs the sentence-transformers library: pip install 'penstock[embedders]'"
        ) from error
    try:
        model = SentenceTransformer(name, device="cpu")
    except (OSError, ValueError, RuntimeError) as error:
        raise EmbedderMissingError(f"the embedder {name!r} cannot be loaded: {error}") from error
    return TransformerEmbedder(name, model, embedder.load() if table is None else table)
