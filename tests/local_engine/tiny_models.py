"""Write small random llamas as Hugging Face directories and GGUF files, with a byte-level tokenizer trained on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_PAGE = [
    "The gate decides how much water reaches the turbine, and the turbine pays for the gate.",
    "A short answer may hide a long thought; count every token, the silent ones too.",
    "Überraschung: naïve café, 12 345 drops, 日本の水門, ένα φράγμα.",
]


def write_hub_directory(directory: Path, *, seed: int, **changes: Any) -> Path:
    """A LlamaForCausalLM with random weights; `changes` go to its LlamaConfig."""
    directory.mkdir(parents=True)
    shape: dict[str, Any] = {
        "vocab_size": write_tokenizer(directory),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).save_pretrained(directory)
    return directory


def write_tokenizer(directory: Path) -> int:
    """A small tokenizer's files. Returns the size of its vocabulary."""
    tokenizer = _train_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": CHAT_TEMPLATE, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(tokenizer.get_vocab_size())


def _train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_PAGE, trainer)
    return tokenizer


def reference(directory: Path) -> LlamaForCausalLM:
    """transformers' own float32 model of a directory."""
    return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def write_gguf(
    directory: Path,
    path: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    *,
    architecture: str = "llama",
    drop: str = "",
) -> Path:
    """The model of `directory` as GGUF, matrices stored as `kind`; a tensor named `drop` is left out."""
    config = json.loads((directory / "config.json").read_text())
    tensors = reference(directory).state_dict()
    if config["tie_word_embeddings"]:
        tensors.pop("lm_head.weight", None)
    writer = gguf.GGUFWriter(path, architecture)
    _write_metadata(writer, config, json.loads((directory / "tokenizer.json").read_text()))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for hub_name, tensor in tensors.items():
        name = names.get_name(hub_name, try_suffixes=(".weight",))
        if name == drop:
            continue
        values = tensor.numpy()
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            values = _pairs_from_halves(
                values, config["num_attention_heads" if "attn_q" in name else "num_key_value_heads"]
            )
        stored = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else kind
        data = gguf.quants.quantize(np.ascontiguousarray(values), stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _pairs_from_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Hugging Face's rotary row order to the one llama GGUF files use."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_metadata(writer: gguf.GGUFWriter, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    merges = [" ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
