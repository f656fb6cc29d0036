"""Whatever stands in a configuration, reading it ends in a usable ModelConfig or a ModelError, soon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from local_engine.errors import ModelError
from local_engine.models.gguf_file import GgufFile
from local_engine.models.registry import config_from_gguf, config_from_hub
from local_engine.models.size import check_fits
from tests.local_engine.families import read_config, write_family
from tests.local_engine.gguf_models import write_gguf

ODD: list[Any] = [-1, 0, 1, 3, 10**12, 1e400, 0.5, "x", "", None, [], [1], {}, {"rope_type": "llama3"}, True]
NAMES = ["llama3", "qwen2 windowed", "qwen3 moe", "gemma3", "phi3 long"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_values_in_config_json_are_refused_or_used(tmp_path: Path, name: str) -> None:
    whole = read_config(write_family(tmp_path / "model", name))
    refused = 0
    for key in [*whole, "text_config", "rope_scaling", "quantization_config"]:
        for value in ODD:
            try:
                config = config_from_hub({**whole, key: value})
                check_fits(config, torch.bfloat16, "none", 1 << 40)
            except ModelError:
                refused += 1
        try:
            config_from_hub({other: whole[other] for other in whole if other != key})
        except ModelError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("name", [name for name in NAMES if name != "qwen2 windowed"])
def test_odd_values_in_gguf_metadata_are_refused_or_used(tmp_path: Path, name: str) -> None:
    file = GgufFile(write_gguf(write_family(tmp_path / "model", name), tmp_path / "x.gguf"))
    factors = {key: tuple(file.read(key).tolist()) for key in file.tensors if key.startswith("rope_f")}
    refused = 0
    for key in [key for key in file.metadata if not key.startswith("tokenizer.")]:
        for value in ODD:
            try:
                config = config_from_gguf({**file.metadata, key: value}, 400, True, factors)
                check_fits(config, torch.bfloat16, "none", 1 << 40)
            except ModelError:
                refused += 1
    assert refused > 50
