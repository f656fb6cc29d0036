"""From a path to a model's weights and tokenizer, whatever kind of file or directory it is."""

from __future__ import annotations

from pathlib import Path

from local_engine.errors import ModelNotFound
from local_engine.models.gguf_file import GgufFile
from local_engine.models.weights import GgufWeights, SafetensorsWeights, WeightSource
from local_engine.tokenizer import Tokenizer, tokenizer_from_directory, tokenizer_from_gguf


def open_model(path: Path) -> tuple[WeightSource, Tokenizer]:
    """Weights, not read yet, and tokenizer of a .gguf file or a model directory. Raises ModelError."""
    if path.is_dir():
        return SafetensorsWeights(path), tokenizer_from_directory(path)
    if path.is_file():
        weights = GgufWeights(GgufFile(path))
        return weights, tokenizer_from_gguf(weights.file.metadata)
    raise ModelNotFound(f"{str(path)!r} is neither a .gguf file nor a model directory")
