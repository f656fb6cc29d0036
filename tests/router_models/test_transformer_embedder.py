"""A sentence model by name stands in for the bundled embedder; artifacts made with it refuse every other one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from router_models import Router
from router_models.artifact import load
from router_models.errors import EmbedderMismatchError, EmbedderMissingError
from router_models.request import RequestText
from router_models.training.data import load_tables
from router_models.training.train import train
from router_models.transformer_embedder import TransformerEmbedder, transformer_embedder
from tests.router_models.small_tables import made_up
from tests.router_models.tiny_sentence_model import save_tiny_model

TEXTS = ["what is 2 + 2 ?", "", " \n", "東京", "half a pair \ud800", "word " * 5000, "\x00"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TransformerEmbedder:
    return transformer_embedder(str(save_tiny_model(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def artifact(tiny: TransformerEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artifact") / "tiny.npz"
    tables = load_tables(made_up(tmp_path_factory.mktemp("tables"), per_pattern=30))
    train(tables, out, table=tiny)
    return out


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_any_text_has_a_vector_of_length_one_or_zero(tiny: TransformerEmbedder, text: str) -> None:
    vector = tiny.embed(text)
    assert vector.shape == (tiny.dimensions,) == (16,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0 if text.strip() else 0.0, abs=1e-5)
    np.testing.assert_array_equal(vector, tiny.embed(text))


def test_word_order_counts_for_a_sentence_model(tiny: TransformerEmbedder) -> None:
    assert not np.allclose(tiny.embed("prove that 2"), tiny.embed("2 that prove"), atol=1e-4)


def test_an_artifact_trained_with_a_model_scores_with_it_and_says_which(
    tiny: TransformerEmbedder, artifact: Path
) -> None:
    router = Router.load(artifact, tiny)
    assert router.artifact.card["embedder"]["version"] == tiny.version
    assert tiny.version.startswith("sentence-transformers/model@")
    easy, hard = (router.score_prompt(text) for text in ("add the small numbers 91 and 12", "derive the spectrum of 3"))
    assert easy.quality["economy"].p > hard.quality["economy"].p
    for text in TEXTS:
        assert 0.0 < router.score_prompt(text).difficulty < 1.0
    assert router.explain(RequestText.from_prompt("prove that 2")).parts


def test_the_bundled_embedder_is_refused_by_it_with_what_to_do(artifact: Path) -> None:
    with pytest.raises(EmbedderMismatchError, match=r"sentence-transformers/model@.*transformer_embedder\('model'\)"):
        Router.load(artifact)


def test_another_model_of_the_same_name_is_refused(artifact: Path, tmp_path: Path) -> None:
    other = transformer_embedder(str(save_tiny_model(tmp_path, seed=1)))
    with pytest.raises(EmbedderMismatchError):
        Router.load(artifact, other)


def test_the_bundled_artifact_refuses_a_sentence_model(tiny: TransformerEmbedder) -> None:
    with pytest.raises(EmbedderMismatchError, match="minilm"):
        load(table=tiny)


def test_a_model_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EmbedderMissingError, match="cannot be loaded"):
        transformer_embedder(str(tmp_path))


def test_the_library_is_not_in_memory_until_a_model_is_asked_for() -> None:
    program = (
        "import sys, router_models.transformer_embedder; from router_models import Router; Router.load().score_prompt('x'); "
        "assert not {'sentence_transformers', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
