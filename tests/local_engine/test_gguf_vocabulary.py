"""Tokenizers read from GGUF give transformers' tokens, for every way of splitting text and for SentencePiece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, Qwen2Tokenizer

from local_engine.models.gguf_file import GgufFile
from local_engine.tokenizer import tokenizer_from_directory, tokenizer_from_gguf

PAGE = [
    "The gate decides how much water reaches the turbine, and the turbine pays for the gate. " * 3,
    "We'll see: it's 12345 drops, I'd say; THEY'RE HereAndThere, camelCase and snake_case.\n\n\n  def f(x):\n\t\treturn x",
    "Überraschung: naïve café, 12 345 drops, 日本の水門, ένα φράγμα. don't DON'T /path//to\r\n\r\n  x = y   \n",
]
TEXTS = [
    *PAGE,
    " one leading space",
    "a  b   c    d",
    "12345678 1 22",
    "e\u0301 caf\u00e9 🎉🎉",
    "",
    "word's 'S x'LL",
    "\n\n \n",
]
SPLITS = (
    "default",
    "gpt-2",
    "llama-bpe",
    "llama3",
    "dbrx",
    "smaug-bpe",
    "qwen2",
    "deepseek-r1-qwen",
    "tekken",
    "gpt-4o",
)


def write_metadata(path: Path, architecture: str, **values: Any) -> Path:
    """A GGUF file with one tensor and a tokenizer; `values` are those of tokenizer.ggml."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        name = f"tokenizer.ggml.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.add_tensor("some.weight", np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def trained_bpe(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        PAGE, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


@pytest.fixture(scope="module")
def byte_level() -> dict[str, Any]:
    """Vocabulary and merges of words that no split cuts alike."""
    loose = pre_tokenizers.Split(Regex(r"\s*\S+"), behavior="isolated")
    tokenizer = trained_bpe(
        pre_tokenizers.Sequence([loose, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    )
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in _merges(tokenizer)]
    end, think = len(tokens), len(tokens) + 1
    return {
        "model": "gpt2", "tokens": [*tokens, "<|im_end|>", "<think>"], "merges": merges,
        "token_type": [1] * len(tokens) + [3, 4], "bos_token_id": end, "eos_token_id": end, "add_bos_token": False,
        "think": think,
    }  # fmt: skip


def _merges(tokenizer: Tokenizer) -> list[Any]:
    import json

    return list(json.loads(tokenizer.to_str())["model"]["merges"])


@pytest.mark.parametrize("split", SPLITS)
def test_byte_level_tokens_are_those_of_transformers(tmp_path: Path, byte_level: dict[str, Any], split: str) -> None:
    values = {key: value for key, value in byte_level.items() if key != "think"}
    path = write_metadata(tmp_path / "x.gguf", "qwen2", pre=split, **values)
    ours = tokenizer_from_gguf(GgufFile(path).metadata)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in [*TEXTS, "<think>a<|im_end|>b</think>"]:
        if split in ("qwen2", "deepseek-r1-qwen") and "\u0301" in text:
            continue  # the file's reader leaves out the composition that Qwen's own tokenizer does: see below
        assert ours.encode(text) == theirs.encode(text), text
    ids = ours.encode("<think>a<|im_end|>b")
    assert byte_level["think"] in ids
    assert ours.decode(ids) == "<think>ab"
    assert ours.end_ids == {byte_level["eos_token_id"]}


def test_qwen_composes_characters_as_its_own_tokenizer_does(tmp_path: Path, byte_level: dict[str, Any]) -> None:
    values = {key: value for key, value in byte_level.items() if key != "think"}
    path = write_metadata(tmp_path / "x.gguf", "qwen2", pre="qwen2", **values)
    tokens = byte_level["tokens"]
    theirs = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in byte_level["merges"]],
        unk_token=None, eos_token="<|im_end|>", pad_token="<|im_end|>",
    )  # fmt: skip
    for text in TEXTS:
        assert tokenizer_from_gguf(GgufFile(path).metadata).encode(text) == theirs.encode(text), text


def sentencepiece_values(*, gemma: bool = False) -> dict[str, Any]:
    """A vocabulary as SentencePiece would train it: special tokens, bytes, pieces scored by their rank."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(PAGE, trainers.BpeTrainer(vocab_size=420, show_progress=False))
    letters = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    pieces = [token for token in letters if len(token) > 1] + [token for token in letters if len(token) == 1]
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<end_of_turn>" if gemma else "<|end|>"]
    runs = ["\n\n", "\n\n\n", "  ", "   "] if gemma else []
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokens = [*special, *bytes_, *runs, *pieces]
    scores = [0.0] * (len(tokens) - len(pieces)) + [-float(rank) for rank in range(len(pieces))]
    types = [2, 3, 3, 3, 3] + [6] * 256 + [4] * len(runs) + [1] * len(pieces)
    return {
        "model": "llama", "pre": "default", "tokens": tokens, "scores": scores, "token_type": types, "bos_token_id": 1,
        "eos_token_id": 2, "unknown_token_id": 0,
    }  # fmt: skip


def test_sentencepiece_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    path = write_metadata(tmp_path / "x.gguf", "llama", **sentencepiece_values())
    ours = tokenizer_from_gguf(GgufFile(path).metadata)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in TEXTS:
        assert ours.encode(text) == [1, *theirs.encode(text, add_special_tokens=False)], text
        assert ours.decode(ours.encode(text)) == text.removeprefix(" ")
    assert ours.end_ids == {2, 4}


def test_gemmas_runs_of_spaces_and_lines_are_tokens(tmp_path: Path) -> None:
    values = sentencepiece_values(gemma=True)
    path = write_metadata(tmp_path / "x.gguf", "gemma3", add_space_prefix=False, **values)
    ours = tokenizer_from_gguf(GgufFile(path).metadata)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in TEXTS:
        assert ours.encode(text) == [1, *theirs.encode(text, add_special_tokens=False)], text
        assert ours.decode(ours.encode(text)) == text
    tokens = values["tokens"]
    assert tokens.index("   ") in ours.encode("a   b")
    assert tokens.index("\n\n\n") in ours.encode("a\n\n\nb")
    assert ours.end_ids == {2, 4}, "</s> and <end_of_turn>"


def test_phi_3_swallows_the_line_break_behind_a_role(tmp_path: Path) -> None:
    path = write_metadata(tmp_path / "x.gguf", "phi3", **sentencepiece_values())
    ours = tokenizer_from_gguf(GgufFile(path).metadata)
    assert ours.encode("<|user|>\nthe gate<|end|>") == ours.encode("<|user|>the gate<|end|>")
    assert ours.encode("<s> the gate")[1:] == ours.encode("the gate"), "BOS swallows nothing, the space is the prefix"


@pytest.mark.parametrize("split", ["llama-bpe", "tekken"])
def test_llama_3_and_tekken_begin_plain_text_with_bos_unless_told_otherwise(
    tmp_path: Path, byte_level: dict[str, Any], split: str
) -> None:
    values = {key: value for key, value in byte_level.items() if key not in ("think", "add_bos_token")}
    metadata = GgufFile(write_metadata(tmp_path / "x.gguf", "llama", pre=split, **values)).metadata
    assert tokenizer_from_gguf(metadata).encode("gate")[0] == byte_level["bos_token_id"]
    told = tokenizer_from_gguf({**metadata, "tokenizer.ggml.add_bos_token": False})
    assert told.encode("gate")[0] != byte_level["bos_token_id"]


def test_end_tokens_of_a_directory_are_all_that_its_files_name(tiny_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text((tiny_directory / "tokenizer.json").read_text())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    assert tokenizer_from_directory(tmp_path).end_ids == {5, 7, 9, 0, 2}, "0 and 2 by their names"
