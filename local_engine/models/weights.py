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
from local_engine.models.family import LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS
from local_engine.models.gguf_file import GgufFile
from local_engine.models.names import hub_name, parts, without_prefix
from local_engine.models.registry import config_from_gguf, config_from_hub, family_of_gguf, family_of_hub

_FACTORS = (ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS)  # tensors of a GGUF file that belong to the configuration


class WeightSource(Protocol):
    """A configuration and the tensors that go with it."""

    config: ModelConfig

    def __len__(self) -> int:
        """How many tensors `tensors` will give."""
        ...

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Hugging Face name and value, one at a time, so that only one full-precision tensor is in memory."""
        ...


class GgufWeights:
    """Tensors of a GGUF file, dequantised to float32."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        if file.metadata.get("split.count", 1) != 1:
            raise CorruptModelFile(
                f"{str(file.path)!r} is one of {file.metadata['split.count']} parts: join them (llama-gguf-split --merge)"
            )
        embeddings = file.tensors.get("token_embd.weight")
        if embeddings is None:
            raise CorruptModelFile(f"{str(file.path)!r} has no tensor 'token_embd.weight': it holds no language model")
        self.family = family_of_gguf(file.metadata)
        self.config = config_from_gguf(
            file.metadata,
            vocab_size=embeddings.shape[0],
            tied_embeddings="output.weight" not in file.tensors,
            factors={name: tuple(file.read(name).ravel().tolist()) for name in _FACTORS if name in file.tensors},
        )

    def __len__(self) -> int:
        return len(self.file.tensors)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See WeightSource."""
        for name in self.file.tensors:
            if name in _FACTORS:
                continue
            tensor = torch.tensor(self.file.read(name))
            if self.family.rotary_pairs and name.endswith("attn_q.weight"):
                tensor = halves_from_pairs(tensor, self.config.heads)
            elif self.family.rotary_pairs and name.endswith("attn_k.weight"):
                tensor = halves_from_pairs(tensor, self.config.kv_heads)
            yield from parts(self.config, hub_name(name, self.family.gguf_names), tensor)


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
        values = read_json(directory / "config.json")
        self.family = family_of_hub(values)
        self.config = config_from_hub(values)
        self._files = self._list_files()
        self._count = 0
        for file in self._files:
            with self._open(file) as opened:
                self._count += len(opened.keys())

    def __len__(self) -> int:
        return self._count

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See WeightSource."""
        for file in self._files:
            with self._open(file) as opened:
                for name in opened.keys():  # noqa: SIM118  (not a mapping)
                    if name.endswith("rotary_emb.inv_freq") or name.startswith(self.family.skipped):
                        continue  # a derived buffer of old checkpoints; another modality
                    tensor = opened.get_tensor(name)
                    if self.family.norm_offset and name.endswith("norm.weight"):
                        tensor = tensor.float() + self.family.norm_offset
                    yield from parts(self.config, without_prefix(name, self.family.prefixes), tensor)

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
