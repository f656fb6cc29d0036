"""Whatever a head guesses, and whatever happens in between, the answers stay the target's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import torch

from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.loading import load_engine
from local_engine.quantization.int8 import Int8Linear
from local_engine.request import Request, SamplingParams
from local_engine.speculative.drafter import Seen
from local_engine.speculative.head_model import load_head
from local_engine.speculative.heads import HeadDrafter, drafted_shares
from local_engine.speculative.native_head import native_head
from local_engine.speculative.shipped import find_head, shipped_heads
from tests.local_engine.scripted_drafters import eager
from tests.local_engine.taught_head import Taught, load
from tests.local_engine.test_speculation import drive, prompt


@pytest.fixture
def engine(taught: Taught) -> Iterator[Engine]:
    """The model in a tight cache; it always drafts with its head."""
    made = load(taught, max_batch=3, step_tokens=12, cache_tokens=128)
    yield eager(made, HeadDrafter(load_head(taught.head, made.runner.decoder)), most=4)
    made.check_integrity()


def head_of(engine: Engine) -> HeadDrafter:
    assert engine.speculator is not None
    drafter = engine.speculator.drafters[0]
    assert isinstance(drafter, HeadDrafter)
    return drafter


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


def test_the_kernel_drafts_what_torch_drafts_alone_and_together(taught: Taught) -> None:
    engine = load(taught, dtype="bfloat16", quantize="none")
    if engine.runner.native is None:
        pytest.skip("no native kernel here")
    head = find_head(engine.runner.decoder, taught.head, "auto")
    plain = find_head(engine.runner.decoder, taught.head, "off")
    assert head is not None
    assert plain is not None
    assert native_head(plain) is None
    native = native_head(head)
    assert native is not None
    generator = torch.Generator().manual_seed(5)
    streams = torch.randn(40, 64, generator=generator).bfloat16()
    newest = torch.randint(0, engine.model_config.vocab_size, (40,), generator=generator)
    drafted = native.draft(streams, newest.tolist(), 3)
    assert drafted == [native.draft(streams[i : i + 1], [int(newest[i])], 3)[0] for i in range(40)]
    with torch.inference_mode():
        state = plain.advance(plain.start(streams), newest)
        for depth in range(3):
            places = plain.logits(state).argmax(-1)
            said, sure = plain.vocabulary[places].tolist(), plain.logits(state).float().softmax(-1).amax(-1)
            alike = sum(tokens[depth] == token for (tokens, _), token in zip(drafted, said, strict=True))
            assert alike >= 38 - 3 * depth  # torch rounds to bfloat16 between layers, which turns near ties
            assert torch.allclose(torch.tensor([chances[depth] for _, chances in drafted]), sure, atol=0.03)
            places = torch.tensor([plain.vocabulary.tolist().index(tokens[depth]) for tokens, _ in drafted])
            state = plain.advance_drafted(state, places)
    least = median(chances[0] for _, chances in drafted)
    stopped = native.draft(streams, newest.tolist(), 3, least)
    assert len({len(tokens) for tokens, _ in stopped}) > 1
    for (tokens, chances), (whole, sure_of) in zip(stopped, drafted, strict=True):
        assert (tokens, chances) == (whole[: len(tokens)], sure_of[: len(tokens)])
        assert len(tokens) == next((n for n in (1, 2) if math.prod(sure_of[:n]) < least), 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_draft_ends_where_it_is_no_longer_likely(taught: Taught, dtype: str) -> None:
    engine = load(taught, dtype=dtype)
    head = find_head(engine.runner.decoder, taught.head, "auto")
    assert head is not None
    drafter = HeadDrafter(head)
    generator = torch.Generator().manual_seed(5)
    requests = [
        Request(number, [3, 5, 7 + number], SamplingParams(max_tokens=9, temperature=0)) for number in range(40)
    ]
    drafter.observe([Seen(request, 1, torch.randn(1, 64, generator=generator), 0) for request in requests])
    whole = drafter.propose(requests, [3] * 40)
    assert {len(draft.tokens) for draft in whole} == {3}
    least = median(draft.chances[0] for draft in whole if draft.chances)
    cut = drafter.propose(requests, [3] * 40, least)
    assert len({len(draft.tokens) for draft in cut}) > 1
    for short, long in zip(cut, whole, strict=True):
        assert long.chances is not None
        assert all(0 < chance <= 1 for chance in long.chances)
        assert len(short.tokens) == next((n for n in (1, 2) if math.prod(long.chances[:n]) < least), 3)
        assert short.tokens == long.tokens[: len(short.tokens)]
        assert short.chances == pytest.approx(long.chances[: len(short.tokens)])


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


def test_a_chance_that_is_no_number_is_none(taught: Taught) -> None:
    engine = load(taught)
    head = load_head(taught.head, engine.runner.decoder)
    head.norm.weight.fill_(torch.nan)
    drafter = HeadDrafter(head)
    request = Request(1, [3, 5, 7], SamplingParams(max_tokens=9, temperature=0))
    drafter.observe([Seen(request, 1, torch.randn(1, 64), 0)])
    assert drafter.propose([request], [3], least=0.1)[0].chances == (0.0,)


def test_the_kernel_drafts_nothing_from_a_stream_that_is_no_number(taught: Taught) -> None:
    engine = load(taught, dtype="bfloat16", quantize="none")
    head = find_head(engine.runner.decoder, taught.head, "auto")
    native = head and native_head(head)
    if not native:
        pytest.skip("no native kernel here")
    streams = torch.randn(3, 64, generator=torch.Generator().manual_seed(5)).bfloat16()
    whole = native.draft(streams, [3, 5, 7], 3)
    streams[1] = torch.nan
    assert native.draft(streams, [3, 5, 7], 3) == [whole[0], ([], []), whole[2]]


def test_what_was_drawn_does_not_decide_how_much_is_drafted(taught: Taught) -> None:
    """Else the tokens that are used would not be distributed as those that were drawn."""
    engine = load(taught)
    head = find_head(engine.runner.decoder, taught.head)
    assert head is not None
    drafter = HeadDrafter(head)
    params = SamplingParams(max_tokens=9, temperature=1.5)
    requests = [Request(number, [3, 5, 7 + number], params) for number in range(40)]
    drafter.observe([Seen(request, 1, torch.randn(1, 64), 0) for request in requests])
    drafts = drafter.propose(requests, [3] * 40, least=0.9)
    assert {len(draft.tokens) for draft in drafts} == {3}
    assert {draft.chances for draft in drafts} == {None}


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


def test_a_request_without_a_state_gets_no_draft(engine: Engine) -> None:
    stranger = Request(999, [1, 2, 3], SamplingParams(max_tokens=4))
    assert head_of(engine).propose([stranger], [3])[0].tokens == ()


def test_a_head_is_left_to_torch_where_the_native_kernel_is_off(
    taught: Taught, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\necho . >> {calls}\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    for kernel in ("off", "auto"):
        engine = load(taught, dtype="bfloat16", speculate="head", draft_model=taught.head, cpu_kernel=kernel)
        assert isinstance(head_of(engine).head.fuse, Int8Linear)
        assert not calls.exists() or kernel == "auto"


def test_the_shipped_drafter_is_that_of_smollm2(smollm2_path: Path, taught: Taught) -> None:
    engine = load_engine(smollm2_path, EngineConfig(max_context=128, cache_tokens=128, speculate="head"))
    tokens = engine.tokenizer.encode_chat([{"role": "user", "content": "Count from one to ten."}])
    engine.generate(tokens, SamplingParams(max_tokens=40, temperature=0, ignore_eos=True))
    assert head_of(engine).head.config.taps == (29,)
    assert find_head(load(taught).runner.decoder) is None
    assert sum(path.stat().st_size for path in shipped_heads()) < 20_000_000
