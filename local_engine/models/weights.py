"""Tensors of a model under one set of names (Hugging Face's), whatever file they come from.

A broken file raises CorruptModelFile here, before anything is served.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from local_engine.config import ModelConfig
from local_engine.errors import CorruptModelFile, ModelNotFound
from local_engine.models.gguf_file import GgufFile
from local_engine.models.registry import config_from_gguf, config_from_hub
from local_engine.quantization.gguf_blocks import int4_from_gguf
from local_engine.quantization.int4 import Int4Rows

_GGUF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_GGUF_LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_ROPE_FACTORS = "rope_freqs.weight"


class WeightSource(Protocol):
    """A configuration and the tensors that go with it."""

    config: ModelConfig

    def __len__(self) -> int:
        """How many tensors `tensors` will give."""
        ...

    def tensors(self, four_bit: bool = False) -> Iterator[tuple[str, Tensor | Int4Rows]]:
        """Hugging Face name and value, one at a time, so that only one full-precision tensor is in memory.

        With `four_bit` values that the file holds in groups of 4 bits come as such.
        """
        ...


class GgufWeights:
    """Tensors of a GGUF file, dequantised to float32."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        embeddings = file.tensors.get("token_embd.weight")
        if embeddings is None:
            raise CorruptModelFile(f"{str(file.path)!r} has no tensor 'token_embd.weight': it holds no language model")
        factors = tuple(file.read(_ROPE_FACTORS).tolist()) if _ROPE_FACTORS in file.tensors else None
        self.config = config_from_gguf(
            file.metadata,
            vocab_size=embeddings.shape[0],
            tied_embeddings="output.weight" not in file.tensors,
            rope_factors=factors,
        )

    def __len__(self) -> int:
        return len(self.file.tensors)

    def tensors(self, four_bit: bool = False) -> Iterator[tuple[str, Tensor | Int4Rows]]:
        """See WeightSource."""
        for name in self.file.tensors:
            if name == _ROPE_FACTORS:
                continue
            rows = self._four_bit(name) if four_bit else None
            yield _hub_name(name), rows or self._in_order(name, torch.tensor(self.file.read(name)))

    def _four_bit(self, name: str) -> Int4Rows | None:
        stored = self.file.tensors[name]
        if len(stored.shape) != 2:
            return None
        rows = int4_from_gguf(torch.tensor(self.file.read_raw(name)), stored.kind)
        if rows is None:
            return None
        return Int4Rows(*(self._in_order(name, part) for part in (rows.packed, rows.scale, rows.minimum)))

    def _in_order(self, name: str, rows: Tensor) -> Tensor:
        """The rows in Hugging Face's order."""
        if name.endswith("attn_q.weight"):
            return halves_from_pairs(rows, self.config.heads)
        if name.endswith("attn_k.weight"):
            return halves_from_pairs(rows, self.config.kv_heads)
        return rows


def _hub_name(name: str) -> str:
    if name in _GGUF_NAMES:
        return _GGUF_NAMES[name]
    _, _, rest = name.partition(".")
    layer, _, kind = rest.partition(".")
    return f"model.layers.{layer}.{_GGUF_LAYER_NAMES.get(kind, kind)}"


def halves_from_pairs(weight: Tensor, heads: int) -> Tensor:
    """Reorder rows from Meta's rotary layout to Hugging Face's.

    Meta (and llama-architecture GGUF) rotates neighbouring rows 2i and 2i + 1 of each head together, Hugging Face rows
    i and i + head_dim / 2. `weight` [heads * head_dim, columns].
    """
    if weight.dim() != 2 or weight.shape[0] % (2 * heads):
        return weight  # wrong anyway: the decoder refuses it with both shapes in the message
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


class SafetensorsWeights:
    """Tensors of a Hugging Face model directory, from one file or from the shards of its index."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = config_from_hub(read_json(directory / "config.json"))
        self._files = self._list_files()
        self._count = 0
        for file in self._files:
            with self._open(file) as opened:
                self._count += len(opened.keys())

    def __len__(self) -> int:
        return self._count

    def tensors(self, four_bit: bool = False) -> Iterator[tuple[str, Tensor | Int4Rows]]:
        """See WeightSource."""
        for file in self._files:
            with self._open(file) as opened:
                for name in opened.keys():  # noqa: SIM118  (not a mapping)
                    if not name.endswith("rotary_emb.inv_freq"):  # old checkpoints carry this derived buffer
                        yield name, opened.get_tensor(name)

    def _list_files(self) -> list[Path]:
        index = self.directory / "model.safetensors.index.json"
        if index.is_file():
            names = sorted(set(read_json(index).get("weight_map", {}).values()))
            files = [self.directory / name for name in names]
        else:
            files = sorted(self.directory.glob("*.safetensors"))
        if not files:
            raise ModelNotFound(f"{str(self.directory)!r} holds no *.safetensors file")
        for file in files:
            if not file.is_file():
                raise CorruptModelFile(f"{str(file)!r} is named by the index but missing: fetch the model again")
        return files

    def _open(self, file: Path) -> Any:
        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CorruptModelFile(
                f"{str(file)!r} is not a usable safetensors file: {error}; fetch it again"
            ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; CorruptModelFile when it is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorruptModelFile(f"{str(path)!r} is missing: a model directory needs it") from error
    except (ValueError, OSError) as error:
        raise CorruptModelFile(f"{str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptModelFile(f"{str(path)!r} holds {type(value).__name__}, not an object")
    return value
