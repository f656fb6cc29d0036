"""Write small random llamas as Hugging Face directories; `write_gguf` makes GGUF files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.local_engine.gguf_models import write_gguf as write_gguf
from tests.local_engine.tiny_tokenizer import write_tokenizer


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


def reference(directory: Path) -> LlamaForCausalLM:
    """transformers' own float32 model of a directory."""
    return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
