"""int4 values chosen for a text: nearer on it than the nearest values, nothing moved that was 4 bits, served as others are."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from local_engine.__main__ import main
from local_engine.config import EngineConfig
from local_engine.errors import CannotQuantize
from local_engine.loading import load_engine
from local_engine.models.decoder import Decoder
from local_engine.models.load import load_decoder
from local_engine.models.open import open_model
from local_engine.models.streams import run_window
from local_engine.quantization.calibrate import calibrate, read_windows
from local_engine.quantization.convert import quantize_model
from local_engine.quantization.gptq import choose_groups
from local_engine.quantization.int4 import Int4Rows, quantize_groups
from local_engine.request import SamplingParams
from tests.local_engine.families import write_family
from tests.local_engine.tiny_models import write_gguf, write_hub_directory

PAGE = "The gate decides how much water reaches the turbine, and the turbine pays for the gate. " * 40


def _activations(tokens: int, columns: int, seed: int) -> Tensor:
    """Rows that lie near a few directions, as those of a model do."""
    random = torch.Generator().manual_seed(seed)
    directions = torch.randn(6, columns, generator=random)
    mixed = torch.randn(tokens, 6, generator=random) @ directions
    return mixed + 0.1 * torch.randn(tokens, columns, generator=random)


def _error(weight: Tensor, rounded: Int4Rows, x: Tensor) -> float:
    return float((x @ (weight - rounded.dequantize()).t()).square().sum())


@pytest.mark.parametrize("columns", [32, 96, 288])
def test_products_with_like_activations_are_nearer_than_those_of_nearest_values(columns: int) -> None:
    weight = torch.randn(24, columns, generator=torch.Generator().manual_seed(1))
    x, later = _activations(2048, columns, 2)[:1024], _activations(2048, columns, 2)[1024:]
    nearest, chosen = quantize_groups(weight), choose_groups(weight, x.t() @ x)
    assert _error(weight, chosen, x) < 0.3 * _error(weight, nearest, x)
    assert _error(weight, chosen, later) < 0.3 * _error(weight, nearest, later)


def test_columns_that_are_never_used_and_groups_of_one_value_do_no_harm() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(5))
    weight[:, :32] = 0.25
    x = _activations(128, 64, 6)
    x[:, 40:] = 0.0
    chosen = choose_groups(weight, x.t() @ x)
    assert torch.equal(chosen.dequantize()[:, :32], weight[:, :32])
    assert chosen.dequantize().isfinite().all()


def _decoders(path: Path) -> tuple[Decoder, Decoder]:
    source, _ = open_model(path)
    cpu = torch.device("cpu")
    exact = load_decoder(source, positions=64, dtype=torch.float32, device=cpu)
    return exact, load_decoder(source, positions=64, dtype=torch.float32, device=cpu, quantize="int4")


@pytest.mark.parametrize("family", ["llama3", "qwen3 moe", "gemma3"])
def test_a_calibrated_model_is_nearer_to_the_exact_one(family: str, tmp_path: Path) -> None:
    path = write_family(tmp_path / "model", family)
    random = torch.Generator().manual_seed(7)
    vocabulary = open_model(path)[0].config.vocab_size
    windows = list(torch.randint(0, vocabulary, (24, 48), generator=random))
    exact, rounded = _decoders(path)
    unseen = torch.randint(0, vocabulary, (48,), generator=random)
    with torch.inference_mode():
        said, plain = run_window(exact, unseen), run_window(rounded, unseen)
        calibrate(exact, rounded, windows)
        calibrated = run_window(rounded, unseen)
    assert (calibrated - said).square().mean() < (plain - said).square().mean()


def _stored(directory: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(directory / "model.safetensors").items()}


def test_a_calibrated_directory_serves_and_a_four_bit_file_keeps_its_groups(tmp_path: Path) -> None:
    original = write_hub_directory(tmp_path / "model", seed=8)
    done = quantize_model(original, "int4", tmp_path / "small", text=PAGE, tokens=256)
    assert done.calibrated == 256
    config = EngineConfig(dtype="float32", max_context=64, cache_tokens=128)
    assert load_engine(tmp_path / "small", config).generate([5, 6, 7], SamplingParams(max_tokens=8, temperature=0)).text
    quantize_model(original, "int4", tmp_path / "plain")
    assert _stored(tmp_path / "plain") != _stored(tmp_path / "small")
    file = write_gguf(original, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.Q4_1)
    quantize_model(file, "int4", tmp_path / "kept", text=PAGE, tokens=256)
    quantize_model(file, "int4", tmp_path / "nearest")
    assert _stored(tmp_path / "kept") == _stored(tmp_path / "nearest")


def test_a_text_that_does_not_fit_is_refused(tiny_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotQuantize, match=r"for int4: int8 rounds .* leave it out"):
        quantize_model(tiny_directory, "int8", tmp_path / "small", text=PAGE)
    with pytest.raises(CannotQuantize, match="calibrating needs"):
        quantize_model(tiny_directory, "int4", tmp_path / "small", text="short")
    assert not (tmp_path / "small").exists()
    assert [len(window) for window in read_windows(range(100), 32, 70)] == [32, 32]


def test_the_command_says_on_how_much_it_calibrated(tiny_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text(PAGE)
    arguments = ["quantize", str(tiny_directory), "--to", "int4", "--out", str(tmp_path / "small")]
    result = CliRunner().invoke(main, [*arguments, "--text", str(tmp_path / "page.txt"), "--tokens", "300", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert 0 < document["calibrated"] <= 300
    missing = CliRunner().invoke(main, [*arguments, "--text", str(tmp_path / "none.txt")])
    assert missing.exit_code == 1
    assert "cannot be read" in missing.output
