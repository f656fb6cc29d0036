"""A head distilled from a small target guesses its answers; a file that does not fit or is damaged is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

from local_engine.__main__ import main
from local_engine.config import EngineConfig
from local_engine.errors import BadTrainingData, CorruptModelFile, DraftModelUnfit
from local_engine.loading import load_engine
from local_engine.request import SamplingParams
from local_engine.speculative.head_model import HeadConfig, initialise, load_head, target_of
from local_engine.training.acceptance import measure_acceptance
from local_engine.training.answers import Answerer, Task
from local_engine.training.distil import distil
from local_engine.training.outputs import ShardFolder, read_prompts
from local_engine.training.warm_start import warm_start
from tests.local_engine.taught_head import PLAN, Taught, load
from tests.local_engine.tiny_models import write_gguf, write_hub_directory


def test_a_taught_head_guesses_far_more_than_an_untaught_one(taught: Taught) -> None:
    decoder = load(taught).runner.decoder
    head = load_head(taught.head, decoder)
    initialise(head, decoder.norm.weight, seed=3)
    folder = ShardFolder(taught.work, target_of(decoder).name, (2,))
    held_out = [text for shard in folder.shards() for text in shard.windows(held_out=True)]
    untaught = measure_acceptance(head, held_out)
    assert untaught.places == taught.result.acceptance.places > 50
    assert untaught.reached[0] < 0.1
    warm_start(head, (text for shard in folder.shards() for text in shard.windows(held_out=False)), decoder.norm)
    warm = measure_acceptance(head, held_out)
    assert warm.reached[0] > untaught.reached[0] + 0.15
    assert taught.result.acceptance.reached[1] > untaught.reached[1] + 0.1
    reached = taught.result.acceptance.reached
    assert list(reached) == sorted(reached, reverse=True)
    assert taught.result.acceptance.tokens_per_step(2) == pytest.approx(1 + reached[0] + reached[1])


def test_the_same_seed_and_steps_give_the_same_head(taught: Taught, tmp_path: Path) -> None:
    again = tmp_path / "head.safetensors"
    distil(taught.target, [taught.prompts], again, PLAN, dtype="float32", device="cpu", work=tmp_path / "work")
    with safe_open(again, "pt") as mine, safe_open(taught.head, "pt") as first:
        names = set(mine.keys())
        assert names == set(first.keys())
        assert all(torch.equal(mine.get_tensor(name), first.get_tensor(name)) for name in names)


def test_quantised_forms_of_a_target_are_the_same_target(taught: Taught, tmp_path: Path) -> None:
    import gguf

    path = write_gguf(taught.target, tmp_path / "model.gguf", gguf.GGMLQuantizationType.Q8_0)
    decoder = load_engine(path, EngineConfig(dtype="bfloat16", max_context=64)).runner.decoder
    assert load_head(taught.head, decoder).config.taps == (decoder.config.layers - 1,)


def test_a_head_of_another_target_is_refused(taught: Taught, tmp_path: Path) -> None:
    for name, changes in (
        ("seed", {"seed": 8}),
        ("layers", {"seed": 7, "num_hidden_layers": 2, "tie_word_embeddings": False}),
    ):
        other = load_engine(write_hub_directory(tmp_path / name, **changes), EngineConfig(max_context=64))
        with pytest.raises(DraftModelUnfit, match=r"another target.*train-drafter"):
            load_head(taught.head, other.runner.decoder)


@pytest.mark.parametrize("damage", ["truncated", "text", "tensor", "shape", "vocabulary", "config", "format"])
def test_a_damaged_head_is_refused(taught: Taught, tmp_path: Path, damage: str) -> None:
    decoder = load_engine(taught.target, EngineConfig(max_context=64)).runner.decoder
    path = tmp_path / "head.safetensors"
    with safe_open(taught.head, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if damage == "tensor":
        del tensors["fuse.weight"]
    elif damage == "shape":
        tensors["fuse.weight"] = tensors["fuse.weight"][:, 1:].contiguous()
    elif damage == "vocabulary":
        tensors["vocabulary"][3] = 10**6
    elif damage == "config":
        metadata["config"] = '{"hidden": 64}'
    elif damage == "format":
        metadata["format"] = "something else"
    save_file(tensors, path, metadata=metadata)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("no tensors")
    with pytest.raises(CorruptModelFile, match=r"head\.safetensors"):
        load_head(path, decoder)


def test_a_missing_head_is_named(taught: Taught, tmp_path: Path) -> None:
    decoder = load_engine(taught.target, EngineConfig(max_context=64)).runner.decoder
    with pytest.raises(CorruptModelFile, match="nowhere"):
        load_head(tmp_path / "nowhere", decoder)


def test_a_stopped_run_goes_on_with_the_answers_it_has(taught: Taught, tmp_path: Path) -> None:
    target = target_of(load_engine(taught.target, EngineConfig(max_context=64)).runner.decoder)
    folder = ShardFolder(taught.work, target.name, (2,))
    assert folder.done() == set(range(96))
    shard = next(folder.shards())
    assert shard.streams.shape == (len(shard.tokens), 64)
    with pytest.raises(BadTrainingData, match="another target"):
        ShardFolder(taught.work, "another", (2,)).done()
    broken = ShardFolder(tmp_path, target.name, (2,))
    (tmp_path / "texts-00000.safetensors").write_bytes(b"junk")
    with pytest.raises(BadTrainingData, match="damaged"):
        broken.done()


def test_measured_acceptance_is_that_of_the_engine(taught: Taught) -> None:
    decoder = load_engine(taught.target, EngineConfig(dtype="float32", max_context=256)).runner.decoder
    folder = ShardFolder(taught.work, target_of(decoder).name, (2,))
    texts = [text for shard in folder.shards() for text in shard.windows(held_out=True)]
    measured = measure_acceptance(load_head(taught.head, decoder), texts)
    assert measured.places == taught.result.acceptance.places
    assert measured.reached == pytest.approx(taught.result.acceptance.reached, abs=0.03)


@pytest.mark.parametrize(("lanes", "cache_tokens"), [(1, None), (5, None), (5, 80)])
def test_answers_to_learn_from_are_those_of_the_engine(taught: Taught, lanes: int, cache_tokens: int | None) -> None:
    """Whatever is answered together, and also when the cache is too small for that."""
    prompts = [tuple(range(5 + number, 25 + 2 * number)) for number in range(7)]
    tasks = [Task(number, prompts[number], 20, 0.0) for number in (3, 0, 6, 1, 5, 2, 4)]
    config = EngineConfig(dtype="float32", max_batch=5, max_context=64, cache_tokens=cache_tokens)
    engine = load_engine(taught.target, config)
    texts = {
        text.number: text
        for text in Answerer(engine.runner, engine.tokenizer.end_ids, lanes=lanes, taps=(2,)).answer(tasks)
    }
    assert set(texts) == set(range(7))
    params = SamplingParams(max_tokens=20, temperature=0)
    for number, prompt in enumerate(prompts):
        text = texts[number]
        assert text.tokens == [*prompt, *engine.generate(list(prompt), params).tokens]
        assert text.prompt == len(prompt)
        assert text.streams.shape == (len(text.tokens) - 1, 64)
        said = engine.runner.decoder.logits(text.streams[text.prompt - 1 :]).argmax(-1)
        assert said.tolist() == text.tokens[text.prompt :]


def test_answers_that_were_cut_off_are_kept_whole(taught: Taught, tmp_path: Path) -> None:
    """Stopped at the first text that ends, while others of the same step are under way and some wait."""
    engine = load_engine(taught.target, EngineConfig(dtype="float32", max_batch=4, max_context=64))
    answerer = Answerer(engine.runner, frozenset(), lanes=4, taps=(2,))
    tasks = [Task(number, tuple(range(5, 12 + number)), 3 + 4 * number, 0.0) for number in range(9)]
    texts = [next(answerer.answer(tasks)), *answerer.unfinished()]
    assert len(texts) == 4
    assert all(len(text.streams) == len(text.tokens) - 1 for text in texts)
    assert not answerer.unfinished()
    folder = ShardFolder(tmp_path, "target", (2,))
    folder.write(texts)
    for text, window in zip(texts, next(folder.shards()).all_windows(), strict=True):
        assert window.tokens.tolist() == text.tokens
        assert torch.equal(window.streams, text.streams)
    with pytest.raises(ValueError, match="rows"):
        folder.write([replace(texts[0], streams=texts[0].streams[:-1])])


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.jsonl", '{"prompt": "x"}\n{no', "line 2"),
        ("b.jsonl", '{"a": 1}', "has none of"),
        ("c.txt", "\n", "no prompts"),
    ],
)
def test_prompts_that_cannot_be_used_are_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadTrainingData, match=complaint):
        read_prompts([path])


def test_prompts_come_in_several_forms(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    rows = [{"question": "a"}, {"turns": ["b", "c"]}, {"messages": [{"role": "system", "content": "d"}]}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "plain.txt").write_text("e\n\nf\n")
    found = [conversation[0]["content"] for conversation in read_prompts([path, tmp_path / "plain.txt"])]
    assert found == ["a", "b", "d", "e", "f"]


def test_a_head_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        HeadConfig(8, (1,), 0, 1, 1e-5)
    with pytest.raises(ValueError, match="taps"):
        HeadConfig(8, (2, 1), 4, 1, 1e-5)


def test_the_command_trains_from_prompts_the_model_invents(tiny_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    arguments = ["train-drafter", str(tiny_directory), "--out", str(out), "--dtype", "float32", "--answer-tokens", "12"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "--invent" in refused.output
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"count {number} drops" for number in range(20)))
    sizes = [
        "--steps",
        "3",
        "--vocabulary",
        "200",
        "--width",
        "32",
        "--prompts",
        str(prompts),
        "--invent",
        "8",
        "--json",
    ]
    done = CliRunner().invoke(main, [*arguments, *sizes])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout.strip().splitlines()[-1])
    assert values["steps"] == 3
    assert values["texts"] >= 20
    assert out.is_file()
    assert (tmp_path / "head.safetensors.work" / "invented.jsonl").is_file()
