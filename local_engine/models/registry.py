"""The families the decoder knows, and how a model finds its own; any other architecture is refused with this list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_engine.config import ModelConfig
from local_engine.errors import CorruptModelFile, UnknownArchitecture
from local_engine.models.families import gemma, llama, phi, qwen
from local_engine.models.family import Family, gguf_base, hub_base

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    qwen.QWEN2,
    qwen.QWEN3,
    qwen.QWEN3_MOE,
    gemma.GEMMA2,
    gemma.GEMMA3,
    phi.FAMILY,
)
_UNUSABLE = (KeyError, IndexError, TypeError, ValueError, ArithmeticError, AttributeError)  # what odd values lead to


def family_of_hub(values: Mapping[str, Any]) -> Family:
    """The family that config.json names. Raises UnknownArchitecture."""
    found = values.get("architectures")
    named = found[0] if isinstance(found, list) and found else None
    return _find(named, [family for family in FAMILIES if named in family.classes])


def family_of_gguf(metadata: Mapping[str, Any]) -> Family:
    """The family that GGUF metadata names. Raises UnknownArchitecture."""
    named = metadata.get("general.architecture")
    return _find(named, [family for family in FAMILIES if named == family.architecture])


def _find(named: object, found: list[Family]) -> Family:
    if found:
        return found[0]
    known = ", ".join(f"{family.architecture} ({', '.join(family.classes)})" for family in FAMILIES)
    raise UnknownArchitecture(f"architecture {named!r} is not supported; known: {known}")


def config_from_hub(values: Mapping[str, Any]) -> ModelConfig:
    """ModelConfig from the content of a Hugging Face config.json."""
    family = family_of_hub(values)
    try:
        # Checkpoints that see images as well have the text model's values in a place of their own.
        values = {**family.hub_defaults, **values, **(values.get("text_config") or {})}
        return family.from_hub(hub_base(family.architecture, values), values)
    except _UNUSABLE as error:
        raise CorruptModelFile(f"config.json cannot be used: {type(error).__name__} {error}") from error


def config_from_gguf(
    metadata: Mapping[str, Any], vocab_size: int, tied_embeddings: bool, factors: Mapping[str, tuple[float, ...]]
) -> ModelConfig:
    """ModelConfig from GGUF metadata; the last three come from the file's tensors, `factors` by their names."""
    family = family_of_gguf(metadata)
    prefix = f"{family.architecture}."
    values = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    try:
        values |= factors
        return family.from_gguf(gguf_base(family.architecture, values, vocab_size, tied_embeddings), values)
    except _UNUSABLE as error:
        raise CorruptModelFile(f"the GGUF metadata cannot be used: {type(error).__name__} {error}") from error
