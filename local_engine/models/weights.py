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

from local_engine.config import ModelConfig, Quantization
from local_engine.errors import CorruptModelFile, ModelNotFound
from local_engine.models.family import LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS, Family
from local_engine.models.gguf_file import GgufFile
from local_engine.models.names import hub_name, parts, without_prefix
from local_engine.models.registry import config_from_gguf, config_from_hub, family_of_gguf, family_of_hub
from local_engine.quantization.gguf_blocks import FOUR_BIT, int4_from_gguf
from local_engine.quantization.int4 import Int4Rows
from local_engine.quantization.saved import read_manifest

_FACTORS = (ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS)  # tensors of a GGUF file that belong to the configuration


class WeightSource(Protocol):
    """A configuration and the tensors that go with it; `stored` other than "none": quantised, and named as the decoder's."""

    config: ModelConfig
    stored: Quantization

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

    stored: Quantization = "none"

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

    def tensors(self, four_bit: bool = False) -> Iterator[tuple[str, Tensor | Int4Rows]]:
        """See WeightSource."""
        for name in self.file.tensors:
            if name in _FACTORS:
                continue
            stored = self._four_bit(name) if four_bit else None
            if stored is None:
                yield from self._parts(name, torch.tensor(self.file.read(name)))
                continue
            sides = [self._parts(name, side) for side in (stored.packed, stored.scale, stored.minimum)]
            for (part, packed), (_, scale), (_, minimum) in zip(*sides, strict=True):
                yield part, Int4Rows(packed, scale, minimum)

    def _parts(self, name: str, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Under canonical names and in Hugging Face's order: what a file tensor's rows, of whatever kind, belong to."""
        if self.family.rotary_pairs and name.endswith("attn_q.weight"):
            rows = halves_from_pairs(rows, self.config.heads)
        elif self.family.rotary_pairs and name.endswith("attn_k.weight"):
            rows = halves_from_pairs(rows, self.config.kv_heads)
        return parts(self.config, hub_name(name, self.family.gguf_names), rows)

    def _four_bit(self, name: str) -> Int4Rows | None:
        stored = self.file.tensors[name]
        if stored.kind not in FOUR_BIT or len(stored.shape) < 2:
            return None
        raw = torch.tensor(self.file.read_raw(name))
        rows = int4_from_gguf(raw.view(-1, raw.shape[-1]), stored.kind)
        if rows is None:
            return None
        shape = (*stored.shape[:-1], -1)  # experts are stored in one tensor of three axes
        return Int4Rows(rows.packed.view(shape), rows.scale.view(shape), rows.minimum.view(shape))


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
    """Tensors of a Hugging Face model directory, from one file or from the shards of its index; or of one we have written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        saved = read_manifest(directory)
        self.stored: Quantization = "none" if saved is None else saved.quantize
        self.family: Family | None = None
        if saved is None:
            values = read_json(directory / "config.json")
            self.family, self.config = family_of_hub(values), config_from_hub(values)
        else:
            self.config = saved.config
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
                    if self.family is None:
                        yield name, opened.get_tensor(name)
                        continue
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
        elif (self.directory / "model.safetensors").is_file():
            files = [self.directory / "model.safetensors"]  # others are another form of the same weights
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
