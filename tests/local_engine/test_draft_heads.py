"""A head distilled from a small target guesses its answers; whatever it guesses, the answers stay the target's own."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

from local_engine.__main__ import main
from local_engine.config import EngineConfig
from local_engine.engine import Engine, load_engine
from local_engine.errors import BadTrainingData, CorruptModelFile, DraftModelUnfit
from local_engine.request import Request, SamplingParams
from local_engine.speculative.head_model import HeadConfig, load_head, target_of
from local_engine.speculative.heads import HeadDrafter, drafted_shares
from local_engine.training.acceptance import measure_acceptance
from local_engine.training.distil import Distilled, DistilPlan, distil
from local_engine.training.outputs import ShardFolder, read_prompts
from tests.local_engine.test_speculation import drive, eager, prompt
from tests.local_engine.tiny_models import reference, write_gguf, write_hub_directory

PLAN = DistilPlan(minutes=5, vocabulary=300, width=96, answer_tokens=40, lanes=16, steps=50, seed=1)


@dataclass(frozen=True)
class Taught:
    target: Path
    prompts: Path
    head: Path
    work: Path
    result: Distilled


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """A head for a tiny model, distilled in a few seconds.

    Random weights say nothing that can be learned from a thousand tokens. Here the token itself outweighs its context, so
    that the model's text has a pattern, as text has.
    """
    folder = tmp_path_factory.mktemp("taught")
    target = write_hub_directory(folder / "model", seed=7, tie_word_embeddings=False)
    model = reference(target)
    model.model.embed_tokens.weight.data *= 30
    model.save_pretrained(target)
    prompts = folder / "prompts.jsonl"
    chance = random.Random(2)
    words = [
        "the",
        "gate",
        "turbine",
        "water",
        "pays",
        "count",
        "every",
        "token",
        "short",
        "long",
        "answer",
        "hides",
        "drops",
        "silent",
        "ones",
    ]
    lines = [json.dumps({"prompt": " ".join(chance.choices(words, k=chance.randint(2, 9)))}) for _ in range(40)]
    prompts.write_text("\n".join(lines))
    head, work = folder / "head.safetensors", folder / "work"
    result = distil(target, [prompts], head, PLAN, dtype="float32", device="cpu", work=work)
    return Taught(target, prompts, head, work, result)


def load(taught: Taught, **options: Any) -> Engine:
    return load_engine(taught.target, EngineConfig(**{"dtype": "float32", "max_context": 256, **options}))


@pytest.fixture
def engine(taught: Taught) -> Iterator[Engine]:
    """The model in a tight cache; it always drafts with its head."""
    made = load(taught, max_batch=3, step_tokens=12, cache_tokens=192)
    yield eager(made, HeadDrafter(load_head(taught.head, made.runner.decoder)), most=4)
    made.check_integrity()


def head_of(engine: Engine) -> HeadDrafter:
    assert engine.speculator is not None
    drafter = engine.speculator.drafters[0]
    assert isinstance(drafter, HeadDrafter)
    return drafter


def test_a_taught_head_guesses_far_more_than_an_untaught_one(taught: Taught, tmp_path: Path) -> None:
    untaught = DistilPlan(**{**{name: getattr(PLAN, name) for name in PLAN.__slots__}, "steps": 1})
    before = distil(
        taught.target, [taught.prompts], tmp_path / "head", untaught, dtype="float32", device="cpu", work=taught.work
    )
    assert before.acceptance.places == taught.result.acceptance.places > 50
    assert before.acceptance.reached[0] < 0.15
    assert taught.result.acceptance.reached[0] > before.acceptance.reached[0] + 0.25
    assert taught.result.trained.loss < before.trained.loss
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


def test_greedy_answers_with_a_head_are_the_same_through_preemption(taught: Taught, engine: Engine) -> None:
    plain = load(taught)
    prompts = [prompt(length, salt) for salt, length in enumerate((1, 9, 40, 17, 60, 33))]
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    expected = [plain.generate(each, params).tokens for each in prompts]
    requests = [engine.new_request(each, params) for each in prompts]
    drive(engine, requests)
    assert [request.answer for request in requests] == expected
    assert engine.scheduler.preemptions > 0
    assert engine.speculator is not None
    assert engine.speculator.counts.accepted > 0
    assert not head_of(engine).owners


def test_seeded_answers_with_a_head_are_the_same(taught: Taught, engine: Engine) -> None:
    params = [SamplingParams(max_tokens=30, temperature=t, top_p=0.9, seed=7, ignore_eos=True) for t in (0.2, 0.7, 1.0)]
    plain = load(taught)
    expected = [plain.generate(prompt(11), wish).tokens for wish in params]
    requests = [engine.new_request(prompt(11), wish) for wish in params]
    drive(engine, requests)
    assert [request.answer for request in requests] == expected


def test_together_and_alone_a_request_gets_the_same_draft(engine: Engine) -> None:
    drafter = head_of(engine)
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    requests = [engine.new_request(prompt(length, length), params) for length in (5, 14, 23)]
    for request in requests:
        engine.add(request)
    for _ in range(9):
        engine.step()
    running = [request for request in engine.scheduler.running if request.gap == 1 and request.answered]
    assert len(running) >= 2
    together = drafter.propose(running, [4, 2, 3][: len(running)])
    alone = [drafter.propose([request], [4])[0] for request in running]
    for joint, single, wanted in zip(together, alone, (4, 2, 3), strict=False):
        assert joint.tokens == single.tokens[:wanted]
        assert joint.probabilities is None
    while engine.busy:
        engine.step()


def test_a_draft_is_what_the_head_says_after_the_targets_own_states(taught: Taught) -> None:
    engine = load(taught)
    head = load_head(taught.head, engine.runner.decoder)
    eager(engine, HeadDrafter(head), most=3)
    request = engine.new_request(prompt(10), SamplingParams(max_tokens=12, temperature=0, ignore_eos=True))
    engine.add(request)
    while engine.busy:
        drafts = []
        if request.gap == 1 and request.answered:
            drafts = list(head_of(engine).propose([request], [3])[0].tokens)
            fresh = load(taught)
            chunked = fresh.new_request(request.tokens[:-1], SamplingParams(max_tokens=1, temperature=0))
            fresh.add(chunked)
            stream = fresh.runner.run(fresh.scheduler.schedule(0.0).chunks, head.config.taps).streams
            assert stream is not None
            state, said = head.start(stream[-1:]), []
            token = request.tokens[-1]
            for _ in range(3):
                state = head.advance(state, torch.tensor([token]))
                token = int(head.vocabulary[head.logits(state).argmax()])
                said.append(token)
            assert drafts == said
        engine.step()


def test_drawn_drafts_carry_the_shares_they_were_drawn_from(engine: Engine) -> None:
    params = SamplingParams(max_tokens=30, temperature=0.8, top_p=0.9, ignore_eos=True)
    request = engine.new_request(prompt(12), params)
    engine.add(request)
    engine.step()
    engine.step()
    draft = head_of(engine).propose([request], [3])[0]
    assert draft.probabilities is not None
    assert draft.probabilities.shape == (len(draft.tokens), engine.model_config.vocab_size)
    assert torch.allclose(draft.probabilities.sum(-1), torch.ones(len(draft.tokens)))
    assert all(draft.probabilities[place, token] > 0 for place, token in enumerate(draft.tokens))
    outside = torch.ones(engine.model_config.vocab_size, dtype=torch.bool)
    outside[head_of(engine).head.vocabulary] = False
    assert not draft.probabilities[:, outside].any()
    engine.abort(request)
    assert not head_of(engine).owners


def test_drawn_answers_with_a_head_are_distributed_as_without(taught: Taught) -> None:
    """Two tokens, the second of which was drafted: counts against the exact probabilities, at a fixed seed."""
    engine = load(taught, max_batch=8)
    eager(engine, HeadDrafter(load_head(taught.head, engine.runner.decoder)), most=3)
    params = SamplingParams(max_tokens=3, temperature=0.9, top_k=4, ignore_eos=True)
    plain = load(taught, max_batch=8)
    runs, counts = 400, []
    torch.manual_seed(0)
    for made in (engine, plain):
        requests = [made.new_request(prompt(7), params) for _ in range(runs)]
        drive(made, requests)
        found: dict[tuple[int, ...], int] = {}
        for request in requests:
            found[tuple(request.answer[1:])] = found.get(tuple(request.answer[1:]), 0) + 1
        counts.append(found)
    keys = set(counts[0]) | set(counts[1])
    distance = sum(abs(counts[0].get(key, 0) - counts[1].get(key, 0)) for key in keys) / (2 * runs)
    chance = sum((2 * max(counts[0].get(key, 0), counts[1].get(key, 0))) ** 0.5 for key in keys) / (2 * runs)
    assert distance < 1.5 * chance


def test_shares_follow_the_requests_own_cuts() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    assert drafted_shares(logits, SamplingParams(max_tokens=1, temperature=0.5)).argmax() == 0
    assert (drafted_shares(logits, SamplingParams(max_tokens=1, top_k=2)) > 0).tolist() == [True, True, False, False]
    assert drafted_shares(logits, SamplingParams(max_tokens=1, top_p=0.5)).tolist() == [1.0, 0.0, 0.0, 0.0]


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
        with pytest.raises(DraftModelUnfit, match="another target.*train-drafter"):
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
    assert folder.done() == set(range(40))
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


def test_a_request_without_a_state_gets_no_draft(engine: Engine) -> None:
    stranger = Request(999, [1, 2, 3], SamplingParams(max_tokens=4))
    assert head_of(engine).propose([stranger], [3])[0].tokens == ()
