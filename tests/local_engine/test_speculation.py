"""Answers with drafts are the answers without, whoever drafts and whatever happens in between."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import pytest
import torch

from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.errors import DraftModelUnfit, ModelNotFound
from local_engine.loading import load_engine
from local_engine.request import Output, Request, SamplingParams
from local_engine.speculative.draft import ModelDrafter
from local_engine.speculative.drafter import Draft, Drafter, Seen
from local_engine.speculative.ngram import NgramDrafter
from local_engine.speculative.speculator import Speculator
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.scripted_drafters import Scripted, eager
from tests.local_engine.tiny_models import reference, write_hub_directory

DRAFTERS = ["ngram", "perfect", "junk", "half", "weighed", "draft"]


@pytest.fixture(scope="module")
def blurred(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft model: the tiny model with noise on its weights, so that it is often right and often wrong."""
    directory = tmp_path_factory.mktemp("blurred") / "model"
    shutil.copytree(tiny_directory, directory)
    model = reference(tiny_directory)
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.05 * parameter.std() * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return directory


def prompt(length: int, salt: int = 0) -> list[int]:
    return [(index * 37 + salt * 11 + 3) % (11 if salt % 2 else 300) for index in range(length)]


def drive(engine: Engine, requests: Sequence[Request]) -> dict[int, list[Output]]:
    outputs: dict[int, list[Output]] = {}
    for request in requests:
        engine.add(request)
    while engine.busy:
        for output in engine.step():
            outputs.setdefault(output.request.id, []).append(output)
        engine.check_integrity()
        if engine.speculator is not None and isinstance(engine.speculator.drafters[0], ModelDrafter):
            engine.speculator.drafters[0].check_integrity()
    return outputs


def make_drafter(
    name: str, answers: dict[tuple[int, ...], list[int]], blurred: Path, engine: EngineMaker, **options: object
) -> Drafter:
    if name == "ngram":
        return NgramDrafter()
    if name == "draft":
        made = engine(speculate="draft", draft_model=blurred, **options).speculator
        assert made is not None
        return made.drafters[0]
    return Scripted(answers, name)


@pytest.mark.parametrize("name", DRAFTERS)
@pytest.mark.parametrize(
    "options", [{}, {"max_batch": 3, "step_tokens": 12, "cache_tokens": 128}], ids=["roomy", "tight"]
)
def test_greedy_answers_are_the_same_with_drafts(
    tiny_engine: EngineMaker, blurred: Path, name: str, options: dict[str, int]
) -> None:
    prompts = [prompt(length, salt) for salt, length in enumerate((1, 9, 40, 17, 60, 33))]
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    plain = tiny_engine()
    answers = {tuple(each): plain.generate(each, params).tokens for each in prompts}
    engine = eager(tiny_engine(**options), make_drafter(name, answers, blurred, tiny_engine))
    requests = [engine.new_request(each, params) for each in prompts]
    outputs = drive(engine, requests)
    assert [request.answer for request in requests] == list(answers.values())
    assert engine.speculator is not None
    counts = engine.speculator.counts
    assert counts.tokens > 0 or name == "ngram", "the tiny model never repeats itself"
    for request in requests:
        assert sum(output.tokens for output in outputs[request.id]) == 40
    if name == "perfect" and not options:
        assert counts.accepted == counts.tokens
        assert len(outputs[requests[0].id]) <= 1 + -(-39 // 6), "every step gives five drafts and one more"
    if name == "draft":
        assert 0.1 < counts.accepted / counts.tokens < 0.95
    if options:
        assert engine.scheduler.preemptions > 0


@pytest.mark.parametrize("seed", range(8))
def test_greedy_answers_of_any_small_model_are_the_same_with_its_own_text_as_drafts(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    heads = chance.choice([2, 4])
    directory = write_hub_directory(
        tmp_path / "model", seed=seed, num_hidden_layers=chance.randint(1, 3), hidden_size=32, intermediate_size=48,
        num_attention_heads=heads, num_key_value_heads=chance.choice([1, heads]), initializer_range=0.13,
    )  # fmt: skip
    make: Callable[[], Engine] = lambda: load_engine(directory, EngineConfig(dtype="float32", max_context=256))  # noqa: E731
    params = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
    plain = make()
    prompts = [prompt(chance.randint(1, 50), salt) for salt in range(3)]
    expected = [plain.generate(each, params).tokens for each in prompts]
    engine = eager(make(), NgramDrafter(), most=7)
    requests = [engine.new_request(each, params) for each in prompts]
    drive(engine, requests)
    assert [request.answer for request in requests] == expected


@pytest.mark.parametrize("name", ["ngram", "half", "weighed", "draft"])
def test_a_seeded_answer_is_the_same_with_drafts(tiny_engine: EngineMaker, blurred: Path, name: str) -> None:
    prompts = [prompt(length, salt) for salt, length in enumerate((5, 21, 48))]
    params = [SamplingParams(max_tokens=40, temperature=t, top_p=0.9, seed=7, ignore_eos=True) for t in (0.2, 0.7, 1.0)]
    plain = tiny_engine()
    answers = {tuple(each): plain.generate(each, wish).tokens for each, wish in zip(prompts, params, strict=True)}
    engine = eager(tiny_engine(max_batch=3), make_drafter(name, answers, blurred, tiny_engine))
    requests = [engine.new_request(each, wish) for each, wish in zip(prompts, params, strict=True)]
    drive(engine, requests)
    assert [request.answer for request in requests] == list(answers.values())


def test_penalties_count_accepted_drafts(tiny_engine: EngineMaker) -> None:
    params = SamplingParams(max_tokens=50, temperature=0, frequency_penalty=1.1, presence_penalty=0.4, ignore_eos=True)
    answer = tiny_engine().generate(prompt(12), params).tokens
    for how in ("perfect", "half"):
        engine = eager(tiny_engine(), Scripted({tuple(prompt(12)): answer}, how))
        assert engine.generate(prompt(12), params).tokens == answer


def test_an_end_inside_a_run_ends_the_answer_there(tiny_engine: EngineMaker) -> None:
    free = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    whole = tiny_engine().generate(prompt(6), free)
    know = {tuple(prompt(6)): whole.tokens}
    engine = eager(tiny_engine(), Scripted(know, "perfect"))
    for end in range(3, 9):
        engine.tokenizer.end_ids = frozenset({whole.tokens[end]})
        cut = whole.tokens.index(whole.tokens[end]) + 1
        request = engine.new_request(prompt(6), SamplingParams(max_tokens=30, temperature=0))
        outputs = drive(engine, [request])[request.id]
        assert request.answer == whole.tokens[:cut]
        assert (sum(output.tokens for output in outputs), outputs[-1].finish) == (cut, "stop")
        assert sum(output.accepted_drafts for output in outputs) < cut
    engine.tokenizer.end_ids = frozenset()
    stop = whole.text.replace("\ufffd", "")[5:8]
    plain = tiny_engine().generate(prompt(6), SamplingParams(max_tokens=30, temperature=0, stop=(stop,)))
    drafted = engine.generate(prompt(6), SamplingParams(max_tokens=30, temperature=0, stop=(stop,)))
    assert (drafted.text, drafted.tokens, drafted.finish) == (plain.text, plain.tokens, plain.finish)
    short = engine.generate(prompt(6), SamplingParams(max_tokens=3, temperature=0, ignore_eos=True))
    assert (short.tokens, short.finish) == (whole.tokens[:3], "length")


def test_blocks_with_rejected_drafts_are_never_shared(tiny_engine: EngineMaker) -> None:
    params = SamplingParams(max_tokens=50, temperature=0, ignore_eos=True)
    plain = tiny_engine(prefix_sharing=False)
    answer = plain.generate(prompt(14), params).tokens
    again = [*prompt(14), *answer, *prompt(9, 3)]
    expected = plain.generate(again, params).tokens
    engine = eager(tiny_engine(block_size=4), Scripted({tuple(prompt(14)): answer, tuple(again): expected}, "half"))
    assert engine.generate(prompt(14), params).tokens == answer
    request = engine.new_request(again, params)
    drive(engine, [request])
    assert request.cached_tokens >= 14 + 50 - 4 - 3, "the answer's blocks are shared, accepted drafts among them"
    assert request.answer == expected


def test_choices_deadlines_and_aborts_leave_nothing_behind(tiny_engine: EngineMaker, blurred: Path) -> None:
    engine = tiny_engine(max_batch=4, step_tokens=20, speculate="draft", draft_model=blurred, cache_tokens=400)
    assert engine.speculator is not None
    eager(engine, engine.speculator.drafters[0])
    drafter = engine.speculator.drafters[0]
    assert isinstance(drafter, ModelDrafter)
    chance = random.Random(5)
    open_ones: list[Request] = []
    for _ in range(120):
        if chance.random() < 0.3:
            params = SamplingParams(
                max_tokens=chance.randint(1, 25), temperature=chance.choice([0, 0.7]), ignore_eos=True
            )
            tokens = prompt(chance.randint(1, 60), chance.randint(0, 2))
            seconds = 0.02 if chance.random() < 0.2 else None
            for _choice in range(chance.choice([1, 1, 3])):
                open_ones.append(engine.new_request(list(tokens), params, seconds=seconds))
                engine.add(open_ones[-1])
        if open_ones and chance.random() < 0.2:
            engine.abort(open_ones.pop(chance.randrange(len(open_ones))))
        engine.step()
        engine.check_integrity()
        drafter.check_integrity()
    while engine.busy:
        engine.step()
        engine.check_integrity()
    assert drafter.followed == 0
    assert engine.blocks.used == 0


def test_a_drafter_that_raises_costs_drafts_and_no_answer(tiny_engine: EngineMaker) -> None:
    class Broken(NgramDrafter):
        calls = 0

        def propose(self, requests: Sequence[Request], wanted: Sequence[int]) -> list[Draft]:
            self.calls += 1
            raise RuntimeError("no idea")

    params = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    expected = tiny_engine().generate(prompt(8), params).tokens
    drafter = Broken()
    assert eager(tiny_engine(), drafter).generate(prompt(8), params).tokens == expected
    assert drafter.calls == 3


def test_a_drafter_that_cannot_learn_costs_drafts_and_no_answer(tiny_engine: EngineMaker) -> None:
    class Forgetful(NgramDrafter):
        taps = (1,)
        calls = 0

        def observe(self, seen: Sequence[Seen]) -> None:
            self.calls += 1
            raise RuntimeError("no memory")

    params = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    expected = tiny_engine().generate(prompt(8), params).tokens
    drafter = Forgetful()
    assert eager(tiny_engine(), drafter).generate(prompt(8), params).tokens == expected
    assert drafter.calls == 3, "in a row, and then it is left alone"


@pytest.mark.parametrize("speculate", ["auto", "draft", "both"])
def test_planned_speculation_answers_the_same(tiny_engine: EngineMaker, blurred: Path, speculate: str) -> None:
    """With the real plan, which drafts when the machine's own timing says so."""
    greedy = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
    seeded = SamplingParams(max_tokens=60, temperature=0.8, seed=3, ignore_eos=True)
    wishes = [(prompt(20, 1), greedy), (prompt(33, 3), seeded), (prompt(8), greedy)]
    plain = tiny_engine()
    expected = [plain.generate(tokens, params).tokens for tokens, params in wishes]
    if speculate == "auto":
        engine = tiny_engine(speculate="auto")
    else:
        engine = tiny_engine(speculate="draft", draft_model=blurred)
        assert engine.speculator is not None
        if speculate == "both":
            engine.speculator = Speculator([NgramDrafter(), *engine.speculator.drafters], 5)
    for _ in range(2):
        requests = [engine.new_request(tokens, params) for tokens, params in wishes]
        drive(engine, requests)
        assert [request.answer for request in requests] == expected


def test_a_draft_model_stops_where_it_is_no_longer_sure_unless_it_draws(
    tiny_engine: EngineMaker, blurred: Path
) -> None:
    speculator = tiny_engine(speculate="draft", draft_model=blurred).speculator
    assert speculator is not None
    drafter = speculator.drafters[0]
    requests = [Request(salt, prompt(9, salt), SamplingParams(max_tokens=50, temperature=0)) for salt in range(20)]
    whole = drafter.propose(requests, [5] * 20)
    assert {len(draft.tokens) for draft in whole} == {5}
    least = median(draft.chances[0] for draft in whole if draft.chances)
    cut = drafter.propose(requests, [5] * 20, least)
    assert len({len(draft.tokens) for draft in cut}) > 1
    for long, short in zip(whole, cut, strict=True):
        assert short.chances is not None
        assert len(short.tokens) == next((n for n in range(1, 5) if math.prod(short.chances[:n]) <= least), 5)
        assert short.tokens == long.tokens[: len(short.tokens)]
    drawing = Request(99, prompt(9), SamplingParams(max_tokens=50, temperature=2.0))
    draft = drafter.propose([drawing], [5], least=0.9)[0]
    assert len(draft.tokens) == 5
    assert draft.chances is None


def test_a_draft_model_of_another_vocabulary_is_refused(tiny_engine: EngineMaker, tmp_path: Path) -> None:
    larger = write_hub_directory(tmp_path / "larger", seed=1, vocab_size=500)
    with pytest.raises(DraftModelUnfit, match=r"the draft model has 500 tokens, the model \d+: take a draft model"):
        tiny_engine(speculate="draft", draft_model=larger)
    other = write_hub_directory(tmp_path / "other", seed=1)
    document = json.loads((other / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    first, second = list(vocabulary)[40:42]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(DraftModelUnfit, match=r"another vocabulary: .* take a draft model of the same family"):
        tiny_engine(speculate="draft", draft_model=other)
    with pytest.raises(ValueError, match="--draft-model must name the files"):
        tiny_engine(speculate="draft")
    with pytest.raises(ModelNotFound, match=r"neither a .gguf file nor a model directory"):
        tiny_engine(speculate="draft", draft_model=tmp_path / "nowhere")
