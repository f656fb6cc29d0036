"""A sentence model of a few thousand random weights in the layout of the sentence-transformers library, made in a second."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = "the of and to in what is prove that how do i go home 2 + ? . a number"


def save_tiny_model(folder: Path, seed: int = 0, dimensions: int = 16) -> Path:
    """Write the model to `folder`; another seed gives another model of the same shape."""
    inner = folder / "inner"
    inner.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *(f"##{c}" for c in "abcdefghij")]
    (inner / "vocab.txt").write_text("\n".join([*vocabulary, *"abcdefghijklmnopqrstuvwxyz"]))
    size = len(vocabulary) + 26
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size, hidden_size=dimensions, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(inner)
    BertTokenizerFast(str(inner / "vocab.txt")).save_pretrained(inner)
    model = SentenceTransformer(modules=[Transformer(str(inner), max_seq_length=64), Pooling(dimensions)], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"
