"""A distilled table says which model it was made of, and says the bundled model's name of its own weights only."""

from __future__ import annotations

from pathlib import Path

from router_models import embedder
from router_models.training.distil import MINILM, distil, main
from tests.router_models.tiny_sentence_model import save_tiny_model


def test_a_table_names_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path)
    version = distil(model, tmp_path / "own.npz", dimensions=8)
    made = embedder.load(tmp_path / "own.npz")
    assert version == made.version
    assert version.startswith("own-")
    assert (made.source["model"], made.source["licence"]) == (model.name, "not stated")
    assert made.source["weights_sha256"] != MINILM
    assert (
        main(["--model", str(model), "--out", str(tmp_path / "b.npz"), "--name", "acme/tiny", "--licence", "MIT"]) == 0
    )
    named = embedder.load(tmp_path / "b.npz")
    assert (named.source["model"], named.source["licence"]) == ("acme/tiny", "MIT")


def test_the_bundled_table_was_made_of_the_weights_that_carry_its_name() -> None:
    bundled = embedder.load()
    assert bundled.source["weights_sha256"] == MINILM
    assert bundled.source["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert bundled.version.startswith("minilm-")
