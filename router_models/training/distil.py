"""python -m router_models.training.distil --model DIR [--out FILE]: make the embedder's table of token vectors.

DIR holds a BERT-like sentence model in the usual layout (config.json, model.safetensors, tokenizer.json), such as
all-MiniLM-L6-v2; one installed from a package is found there. Needs torch and transformers, takes about 20 seconds on one core.
Exits with 1 and one line on standard error when the model cannot be used; nothing is written then.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.embedder import BUNDLED, save
from router_models.errors import RouterError, TrainingDataError

DIMENSIONS = 256
BATCH = 1024
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of all-MiniLM-L6-v2's weights, which the bundled table is made of."""

Doubles = NDArray[np.float64]


def distil(
    model: Path, out: Path, dimensions: int = DIMENSIONS, name: str | None = None, licence: str | None = None
) -> str:
    """Write the table of a model's token vectors; returns its version. Raises TrainingDataError.

    `name` and `licence` are what the table says of its source: those of all-MiniLM-L6-v2 when these are its weights, else
    by default the folder's name and "not stated".
    """
    vocabulary, vectors = token_vectors(model)
    reduced = principal(vectors, dimensions)
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    known = ("sentence-transformers/all-MiniLM-L6-v2", "Apache-2.0") if weights == MINILM else None
    source = {
        "model": name or (known[0] if known else model.resolve().name),
        "licence": licence or (known[1] if known else "not stated"),
        "weights_sha256": weights,
        "method": "token alone, its own last hidden state, PCA",
    }
    return save(out, vocabulary, reduced, source, prefix="minilm" if known else "own")


def token_vectors(model: Path) -> tuple[list[str], Doubles]:
    """The vocabulary and, for every token, the last hidden state (V, H) of that token between the start and end marks."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise TrainingDataError(f"distilling needs torch and transformers: {error}") from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        network: Any = AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"{str(model)!r} holds no model that can be read: {error}") from error
    numbered = sorted(tokenizer.get_vocab().items(), key=lambda entry: int(entry[1]))
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    rows = torch.tensor([[start, number, end] for number in range(len(numbered))])
    found = []
    with torch.inference_mode():
        for begin in range(0, len(rows), BATCH):
            part = rows[begin : begin + BATCH]
            state = network(input_ids=part, attention_mask=torch.ones_like(part)).last_hidden_state
            found.append(state[:, 1].double().numpy())
    return [token for token, _ in numbered], np.concatenate(found)


def principal(vectors: Doubles, dimensions: int) -> Doubles:
    """The vectors about their mean on their first principal axes, shape (V, dimensions)."""
    centred = vectors - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    chosen = axes[:, np.argsort(-values)[:dimensions]]
    # The sign of an axis is arbitrary; fixed, so that two machines agree.
    result: Doubles = centred @ (chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])]))
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router_models.training.distil", description="Make the embedder.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the sentence model")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="table to write (default: the bundled one)")
    parser.add_argument("--name", help="what the table calls its source (default: MiniLM's name or the folder's)")
    parser.add_argument("--licence", help="of the model's weights (default: MiniLM's, or 'not stated')")
    chosen = parser.parse_args(arguments)
    try:
        version = distil(chosen.model, chosen.out, name=chosen.name, licence=chosen.licence)
    except RouterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {version} to {chosen.out.name!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
