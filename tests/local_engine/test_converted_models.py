"""Quantised and pruned directories: what was written loads, says the same, and is refused when it was damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from click.testing import CliRunner

from local_engine.__main__ import main
from local_engine.config import EngineConfig, Quantization
from local_engine.errors import CannotPrune, CannotQuantize, CorruptModelFile, ModelError
from local_engine.kernels.cpu.build import NoKernel
from local_engine.kernels.cpu.library import open_library
from local_engine.loading import choose_format, load_engine, load_runner
from local_engine.models.open import open_model
from local_engine.perplexity import perplexity, windows
from local_engine.pruning.influence import block_influence, drop_layers, least_influential
from local_engine.pruning.prune import prune_model
from local_engine.quantization.convert import quantize_model
from local_engine.quantization.places import Format
from local_engine.request import SamplingParams
from local_engine.speculative.draft import ModelDrafter
from tests.local_engine.scripted_drafters import eager
from tests.local_engine.tiny_models import write_gguf, write_hub_directory

GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
PAGE = "The gate decides how much water reaches the turbine, and the turbine pays for the gate. "


def _config(**options: object) -> EngineConfig:
    return EngineConfig(**{"dtype": "float32", "max_context": 128, "cache_tokens": 256, **options})


@pytest.mark.parametrize("quantize", ["int8", "int4", "fp8"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_quantised_directory_answers_as_a_model_quantised_while_loading(
    quantize: Format, tied: bool, tmp_path: Path
) -> None:
    original = write_hub_directory(tmp_path / "model", seed=8, tie_word_embeddings=tied)
    saved = quantize_model(original, quantize, tmp_path / "small")
    assert saved.bytes_after < saved.bytes_before / 2
    now, offline = (
        load_engine(original, _config(quantize=quantize)).generate([5, 6, 7], GREEDY),
        load_engine(tmp_path / "small", _config()).generate([5, 6, 7], GREEDY),
    )
    assert now.tokens == offline.tokens
    assert now.text == offline.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "int8"),
        ({"cpu_kernel": "off"}, "none"),
        ({"dtype": "float32"}, "none"),
        ({"kv_dtype": "int8"}, "none"),
        ({"quantize": "none"}, "none"),
        ({"quantize": "int4"}, "int4"),
    ],
)
def test_matrices_become_int8_where_the_kernel_computes_with_them(
    tiny_directory: Path, changes: dict[str, Any], expected: str
) -> None:
    try:
        open_library()
    except NoKernel as reason:
        pytest.skip(f"no native kernel here: {reason}")
    source, _ = open_model(tiny_directory)
    config = _config(**{"dtype": "bfloat16", **changes})
    assert choose_format(source, config) == expected
    engine = load_engine(tiny_directory, config)
    assert engine.runner.native is not None or expected != "int8"
    assert len(engine.generate([5, 6, 7], GREEDY).tokens) == GREEDY.max_tokens


def test_a_directory_keeps_its_format_unless_another_is_asked_for(tiny_directory: Path, tmp_path: Path) -> None:
    quantize_model(tiny_directory, "int4", tmp_path / "small")
    source, _ = open_model(tmp_path / "small")
    assert choose_format(source, _config(dtype="bfloat16")) == "int4"


def test_a_q4_1_file_becomes_a_directory_that_says_the_same(tiny_directory: Path, tmp_path: Path) -> None:
    file = write_gguf(tiny_directory, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.Q4_1)
    quantize_model(file, "int4", tmp_path / "small")
    now, offline = (load_engine(path, _config(quantize="int4")) for path in (file, tmp_path / "small"))
    assert offline.generate([5, 6, 7], GREEDY) == now.generate([5, 6, 7], GREEDY)
    assert offline.tokenizer.end_ids == now.tokenizer.end_ids
    chat = [{"role": "user", "content": PAGE}]
    assert offline.tokenizer.encode_chat(chat) == now.tokenizer.encode_chat(chat)
    assert offline.tokenizer.encode(PAGE) == now.tokenizer.encode(PAGE)


def test_what_is_quantised_already_is_refused(tiny_directory: Path, tmp_path: Path) -> None:
    quantize_model(tiny_directory, "int8", tmp_path / "small")
    with pytest.raises(CannotQuantize, match="int8 already: quantise the original"):
        quantize_model(tmp_path / "small", "int4", tmp_path / "smaller")
    with pytest.raises(CannotQuantize, match="stored as int8 and cannot become int4"):
        load_runner(tmp_path / "small", _config(quantize="int4"))
    with pytest.raises(CannotPrune, match="prune the original"):
        prune_model(tmp_path / "small", PAGE, 1, tmp_path / "shorter")
    with pytest.raises(CannotQuantize, match="not an empty folder"):
        quantize_model(tiny_directory, "int8", tmp_path / "small")


def _flip_a_bit(directory: Path) -> None:
    content = bytearray((directory / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (directory / "model.safetensors").write_bytes(content)


def _shorten(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:-10])


def _change(**values: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        manifest = json.loads((directory / "penstock.json").read_text())
        (directory / "penstock.json").write_text(json.dumps({**manifest, **values}))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_flip_a_bit, "SHA-256 differs"),
        (_shorten, "bytes, .* were written"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "is missing"),
        (lambda directory: (directory / "penstock.json").write_text("{"), "cannot be used"),
        (lambda directory: (directory / "penstock.json").write_text("[]"), "cannot be used"),
        (_change(version=99), "version 99"),
        (_change(quantize="int2"), "'int2'"),
        (_change(group=64), "groups of 64"),
        (_change(model={"layers": 3}), "missing"),
        (_change(files={}), "KeyError"),
    ],
)
def test_a_damaged_directory_is_refused(
    damage: Callable[[Path], None], said: str, tiny_directory: Path, tmp_path: Path
) -> None:
    quantize_model(tiny_directory, "int4", tmp_path / "small")
    damage(tmp_path / "small")
    with pytest.raises(CorruptModelFile, match=said):
        load_engine(tmp_path / "small", _config())


def test_windows_count_every_token_once_with_half_a_window_before_it() -> None:
    parts = list(windows(100, 16))
    counted = [token for first, scored, last in parts for token in range(scored, last)]
    assert counted == list(range(1, 100))
    assert all(scored - first >= 8 for first, scored, _ in parts[1:])
    assert all(last - first <= 16 for first, _, last in parts)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_perplexity_is_that_of_the_whole_text_when_one_window_holds_it(
    quantize: Quantization, tiny_directory: Path
) -> None:
    runner, tokenizer = load_runner(tiny_directory, _config(quantize=quantize))
    tokens = tokenizer.encode(PAGE)
    result = perplexity(runner, tokens, context=128)
    engine = load_engine(tiny_directory, _config(quantize=quantize))
    lost = 0.0
    for end in range(1, len(tokens)):  # every token by itself, from scratch
        request = engine.new_request(tokens[:end], SamplingParams(max_tokens=1), cache_salt=str(end))
        engine.add(request)
        logits = engine.runner.run(engine.scheduler.schedule(0.0).chunks).logits
        lost -= logits.log_softmax(-1)[-1, tokens[end]].item()
        engine.abort(request)
    assert result.tokens == len(tokens) - 1
    assert result.nats == pytest.approx(lost / (len(tokens) - 1), abs=2e-4)


def test_a_text_without_a_pair_of_tokens_has_no_perplexity(tiny_directory: Path) -> None:
    runner, _ = load_runner(tiny_directory, _config())
    with pytest.raises(ModelError, match="at least 2"):
        perplexity(runner, [5])


def test_a_layer_that_does_nothing_has_no_influence_and_goes_without_a_trace(tiny_directory: Path) -> None:
    runner, _ = load_runner(tiny_directory, _config())
    idle = runner.decoder.layers[1]
    idle.attention_out.weight.zero_()
    idle.down.weight.zero_()
    window = torch.arange(5, 45)
    influence = block_influence(runner.decoder, [window])
    assert influence[1] == pytest.approx(0.0, abs=1e-6)
    assert min(influence[0], influence[2]) > 1e-3
    before = perplexity(runner, window.tolist(), context=64)
    drop_layers(runner.decoder, least_influential(influence, 1))
    assert runner.decoder.config.layers == 2
    assert perplexity(runner, window.tolist(), context=64).nats == pytest.approx(before.nats, abs=1e-5)


def test_all_layers_or_none_cannot_be_dropped() -> None:
    for count in (0, 3, 4):
        with pytest.raises(CannotPrune, match="at least one must go and one must stay"):
            least_influential([0.1, 0.2, 0.3], count)


def test_a_pruned_model_is_recovered_by_distillation_and_loads(tiny_directory: Path, tmp_path: Path) -> None:
    done = prune_model(tiny_directory, PAGE * 60, 1, tmp_path / "short", steps=40, context=48, learning_rate=3e-3)
    assert done.recovered is not None
    assert len(done.losses) == done.steps == 40
    assert sum(done.losses[-5:]) < 0.7 * sum(done.losses[:5])
    assert done.pruned.parameters < done.before.parameters
    source, _ = open_model(tmp_path / "short")
    assert source.config.layers == 2
    assert json.loads((tmp_path / "short" / "config.json").read_text())["num_hidden_layers"] == 2
    engine = load_engine(tmp_path / "short", _config(quantize="int8"))
    assert len(engine.generate([5, 6, 7], GREEDY).tokens) == 12


def test_a_pruned_model_drafts_for_the_whole_one(tiny_directory: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    prune_model(tiny_directory, PAGE * 60, 1, short, steps=40, context=48, learning_rate=3e-3)
    plain = load_engine(tiny_directory, _config())
    engine = load_engine(tiny_directory, _config(speculate="draft", draft_model=short))
    assert engine.speculator is not None
    (drafter,) = engine.speculator.drafters
    assert isinstance(drafter, ModelDrafter)
    eager(engine, drafter)
    for prompt in ([5, 6, 7], [40, 41], [9] * 30):
        assert engine.generate(prompt, GREEDY).tokens == plain.generate(prompt, GREEDY).tokens
    assert engine.speculator.counts.accepted > 0, "it was distilled from the whole one and says some of what that says"
    engine.check_integrity()
    drafter.check_integrity()


def test_commands_print_what_they_did(tiny_directory: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text(PAGE * 30)
    small, short = tmp_path / "small", tmp_path / "short"
    quantized = _run("quantize", str(tiny_directory), "--to", "int8", "--out", str(small), "--json")
    assert quantized["bytes_after"] < quantized["bytes_before"]
    measured = _run("perplexity", str(small), "--text", str(page), "--tokens", "200", "--context", "64", "--json")
    assert measured["tokens"] == 199
    assert measured["value"] > 1
    pruned = _run(
        "prune",
        str(tiny_directory),
        "--text",
        str(page),
        "--layers",
        "1",
        "--context",
        "32",
        "--out",
        str(short),
        "--json",
    )
    assert len(pruned["influence"]) == 3
    assert len(pruned["dropped"]) == 1


def test_a_command_that_cannot_says_why_in_one_line(tiny_directory: Path, tmp_path: Path) -> None:
    page, taken = tmp_path / "page.txt", tmp_path / "taken"
    page.write_text(PAGE * 30)
    taken.mkdir()
    (taken / "file").touch()
    text, model = ("--text", str(page)), str(tiny_directory)
    # Those with a model that is not there show that what is given is looked at before the model.
    for arguments, says in (
        (("perplexity", "none/there", "--text", str(tmp_path / "missing.txt")), "cannot be read as UTF-8 text"),
        (("perplexity", model, *text, "--context", "513"), "--context is 513, the model was made for 512 tokens"),
        (("quantize", "none/there", "--to", "int8", "--out", str(taken)), "is there already"),
        (("quantize", "none/there", "--to", "int8", "--out", "/proc/x/y"), "cannot be written"),
        (("quantize", "none/there", "--to", "int8", "--out", str(page / "x")), "cannot be written"),
        (("prune", "none/there", *text, "--layers", "1", "--out", str(taken)), "is there already"),
        (("prune", model, *text, "--layers", "99", "--out", str(tmp_path / "new")), "99 of 3 layers cannot be dropped"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert re.fullmatch(rf"Error: .*{re.escape(says)}.*\n", result.stderr), result.stderr


def _run(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    document: dict[str, object] = json.loads(result.stdout)
    return document
