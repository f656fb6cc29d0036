"""A broken model file ends in one clear ModelError that names the file and what is wrong with it, wherever it breaks."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from local_engine.config import EngineConfig
from local_engine.errors import CorruptModelFile, ModelError, ModelNotFound, UnknownArchitecture, WrongShape
from local_engine.loading import load_engine
from local_engine.models.gguf_file import GgufFile
from tests.local_engine.tiny_models import write_gguf


def load(path: Path) -> None:
    load_engine(path, EngineConfig(dtype="float32"))


@pytest.fixture
def directory(tiny_directory: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "model"))


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_gguf_cut_anywhere_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (0, 3, 4, 11, 23, 24, 60, 500, 3000, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(CorruptModelFile, match=r"cut\.gguf"):
            load(cut)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, b"PK\3\4", "starts with"),
        (4, struct.pack("<I", 99), "version is 99"),
        (8, struct.pack("<Q", 2**60), "axes|breaks off"),
        (16, struct.pack("<Q", 2**60), "breaks off|unknown"),
        (24, struct.pack("<Q", 2**63), "breaks off"),
    ],
    ids=["magic", "version", "tensor count", "metadata count", "string length"],
)
def test_a_gguf_with_a_wrong_header_is_refused(
    tiny_gguf: Path, tmp_path: Path, at: int, value: bytes, says: str
) -> None:
    raw = bytearray(tiny_gguf.read_bytes())
    raw[at : at + len(value)] = value
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(raw)
    with pytest.raises(CorruptModelFile, match=says):
        load(broken)


def test_a_gguf_of_a_few_bytes_is_refused_in_words_for_people(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\3\0\0\0\1")
    with pytest.raises(CorruptModelFile, match="its header breaks off at byte 8 of 9; fetch the model again"):
        load(broken)


def test_flipped_bytes_in_a_gguf_header_never_raise_anything_but_a_model_error(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    generator = torch.Generator().manual_seed(1)
    broken = tmp_path / "broken.gguf"
    refused = 0
    for _ in range(60):
        raw = bytearray(whole)
        at = int(torch.randint(0, 800, (), generator=generator))
        raw[at] ^= 0xFF
        broken.write_bytes(raw)
        try:
            load(broken)
        except ModelError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("kind", [GGMLQuantizationType[name] for name in ("F32", "F16", "Q8_0", "Q4_1")])
@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_noise_amid_the_tensors_is_refused_by_the_tensors_name_and_nothing_else_is_said(
    tiny_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: GGMLQuantizationType, quantize: Any
) -> None:
    path = write_gguf(tiny_directory, tmp_path / "noise.gguf", kind)
    tensor = GgufFile(path).tensors["blk.1.ffn_gate.weight"]
    raw = bytearray(path.read_bytes())
    noise = torch.randint(0, 256, (tensor.nbytes,), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    noise[::2] |= 0x7C
    raw[tensor.offset : tensor.offset + tensor.nbytes] = noise.numpy().tobytes()
    path.write_bytes(raw)
    with pytest.raises(CorruptModelFile, match=r"noise\.gguf.*'blk\.1\.ffn_gate\.weight' holds NaN or infinity"):
        load_engine(path, EngineConfig(dtype="float32", quantize=quantize))
    assert not caplog.messages


def test_an_unknown_gguf_architecture_is_named_with_the_known_ones(tiny_directory: Path, tmp_path: Path) -> None:
    path = write_gguf(tiny_directory, tmp_path / "other.gguf", architecture="mamba")
    with pytest.raises(UnknownArchitecture, match=r"'mamba'.*llama \(LlamaForCausalLM, .*phi3 \(Phi3ForCausalLM\)"):
        load(path)


@pytest.mark.parametrize(("kind", "says"), [(99, "type 99,"), (24, r"type 24 \(I8\)"), (4, "type 4,")])
def test_an_unknown_gguf_tensor_type_is_named_with_the_known_ones(
    tiny_gguf: Path, tmp_path: Path, kind: int, says: str
) -> None:
    raw = bytearray(tiny_gguf.read_bytes())
    entry = raw.index(b"blk.1.ffn_down.weight") + len(b"blk.1.ffn_down.weight")  # then axes, two sizes, type, offset
    assert struct.unpack_from("<IQQI", raw, entry) == (2, 96, 64, 0)
    raw[entry + 20 : entry + 24] = struct.pack("<I", kind)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(raw)
    with pytest.raises(
        CorruptModelFile, match=rf"'blk\.1\.ffn_down\.weight'.*{says}.*known: F32, F16, BF16, Q8_0.*Q6_K"
    ):
        load(broken)


def test_one_part_of_a_split_gguf_says_how_to_join_it(tiny_directory: Path, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x-00002-of-00003.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("blk.1.ffn_down.weight", np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CorruptModelFile, match="one of 3 parts: join them"):
        load(tmp_path / "x-00002-of-00003.gguf")


def test_a_missing_gguf_tensor_is_named(tiny_directory: Path, tmp_path: Path) -> None:
    path = write_gguf(tiny_directory, tmp_path / "less.gguf", drop="blk.1.ffn_down.weight")
    with pytest.raises(WrongShape, match=r"lacks 1 tensors: model\.layers\.1\.mlp\.down_proj\.weight"):
        load(path)


@pytest.mark.parametrize("length", [0, 4, 9, 2000, -1])
def test_a_cut_safetensors_file_is_refused(directory: Path, length: int) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CorruptModelFile, match=r"model\.safetensors"):
        load(directory)


def test_a_missing_shard_is_named(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "part-2.safetensors"}}))
    with pytest.raises(CorruptModelFile, match=r"part-2\.safetensors.*missing"):
        load(directory)


def test_the_same_weights_in_another_form_beside_the_model_are_left_alone(directory: Path) -> None:
    save_file({"layers.0.attention.wq.weight": torch.zeros(2)}, directory / "consolidated.safetensors")
    load(directory)


def test_shards_load_like_one_file(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, directory / file)
    (directory / "model.safetensors").unlink()
    weight_map = {name: file for file, members in parts.items() for name in members}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    load(directory)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"architectures": ["FalconForCausalLM"]}, UnknownArchitecture, r"'FalconForCausalLM'.*llama"),
        ({"architectures": []}, UnknownArchitecture, "None"),
        ({"attention_bias": True}, UnknownArchitecture, "attention_bias"),
        ({"hidden_act": "gelu"}, UnknownArchitecture, "'gelu'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, UnknownArchitecture, "by 'gptq'.*--quantize"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, UnknownArchitecture, "'yarn'"),
        ({"hidden_size": 32}, WrongShape, r"\[400, 64\].*\[400, 32\]|expected"),
        ({"num_key_value_heads": 3}, CorruptModelFile, "multiple of kv_heads"),
        ({"num_hidden_layers": 2}, WrongShape, "no place for"),
        ({"num_hidden_layers": 4}, WrongShape, "lacks 9 tensors"),
        ({"num_hidden_layers": "many"}, CorruptModelFile, "many"),
        ({"num_attention_heads": 0}, CorruptModelFile, "config.json"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_is_refused_by_name(
    directory: Path, changes: dict[str, Any], error: type[ModelError], says: str
) -> None:
    change_config(directory, **changes)
    with pytest.raises(error, match=says):
        load(directory)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_json_file_that_is_none_is_refused(directory: Path, file: str) -> None:
    (directory / file).write_text('{"half": ')
    with pytest.raises(CorruptModelFile, match=file):
        load(directory)


def test_missing_files_are_named(directory: Path, tmp_path: Path) -> None:
    (directory / "tokenizer.json").unlink()
    with pytest.raises(CorruptModelFile, match=r"tokenizer\.json.*missing"):
        load(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"no \*\.safetensors"):
        load(directory)
    (directory / "config.json").unlink()
    with pytest.raises(CorruptModelFile, match=r"config\.json.*missing"):
        load(directory)
    with pytest.raises(ModelNotFound, match="neither"):
        load(tmp_path / "nowhere")


def test_a_malformed_chat_template_is_refused(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(CorruptModelFile, match="chat template"):
        load(directory)
