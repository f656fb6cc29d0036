"""The GPU path's own logic on a CPU, with reference kernels: buffers, padding, buckets, steps ahead, families."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton has no wheel for this system")

from local_engine.cache_size import CacheSize
from local_engine.config import ModelConfig
from local_engine.cuda_graphs import GraphSet, batch_buckets, verify_rows
from local_engine.gpu_runner import GpuRunner
from local_engine.kernels.kernel_set import reference_kernels
from local_engine.kernels.small_linear import MOST_ROWS
from local_engine.layers.attention_reference import PlainAttention
from local_engine.layers.fused_decoder import can_fuse
from local_engine.model_runner import ModelRunner
from local_engine.models.decoder import Decoder
from local_engine.quantization.int4 import Int4Linear
from local_engine.quantization.int8 import Int8Linear
from local_engine.request import SamplingParams
from local_engine.step_buffers import StepBuffers, StepItem, chosen_on_device

CPU = torch.device("cpu")


def config(**flags: object) -> ModelConfig:
    return ModelConfig("llama", 200, 64, 96, 2, 4, 2, 16, 128, 1e4, 1e-5, False, **flags)  # type: ignore[arg-type]


def random_decoder(shape: ModelConfig) -> Decoder:
    torch.manual_seed(1)
    decoder = Decoder(shape, 128, torch.float32, CPU)
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3)
        else:
            parameter.data.uniform_(0.5, 1.5)
    return decoder


def runner_for(decoder: Decoder, *, max_batch: int = 3, graphs: bool = True, taps: tuple[int, ...] = ()) -> GpuRunner:
    runner = GpuRunner(
        ModelRunner(decoder, CacheSize(40, 4, 0)), max_batch=max_batch, max_context=60, max_drafts=3, graphs=graphs,
        taps=taps,
    )  # fmt: skip
    runner.prepare()
    return runner


@torch.inference_mode()
def plain_logits(decoder: Decoder, tokens: list[int]) -> Tensor:
    return decoder(torch.tensor(tokens), torch.arange(len(tokens)), PlainAttention(), None)


def answer(decoder: Decoder, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(plain_logits(decoder, tokens)[-1].argmax()))
    return tokens


FAMILIES = {
    "llama": config(),
    "qwen2, qwen3 and mistral": config(qkv_bias=True, qk_norm=True, windows=(5, None)),
    "gemma 2": config(
        post_norms=True, wide_norms=True, activation="gelu_tanh", attention_softcap=5.0, logit_softcap=9.0,
        query_scale=1.5, embedding_scale=8.0, windows=(6, None),
    ),
    "part of each head turns": config(rotary_dim=8),
    "mixture of experts": config(experts=4, experts_per_token=2, expert_size=32),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_decode_and_verification_give_the_plain_decoders_logits(family: str) -> None:
    decoder = random_decoder(FAMILIES[family])
    runner = runner_for(decoder)
    one, other = list(range(3, 24)), [7, 7, 9]
    blocks, elsewhere = [30, 2, 17, 5, 8, 21, 9], [12, 3, 26]
    first = runner.step([StepItem(one, 0, blocks, 21), StepItem(other, 0, elsewhere, 3)], [1, 3])
    torch.testing.assert_close(first.logits[:1], plain_logits(decoder, one)[-1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.logits[1:], plain_logits(decoder, other), atol=1e-4, rtol=1e-4)
    second = runner.step([StepItem([5], 21, blocks, 22), StepItem([4, 6, 1], 3, elsewhere, 6)], [1, 3])
    torch.testing.assert_close(second.logits[:1], plain_logits(decoder, [*one, 5])[-1:], atol=1e-4, rtol=1e-4)
    expected = plain_logits(decoder, [*other, 4, 6, 1])[-3:]
    torch.testing.assert_close(second.logits[1:], expected, atol=1e-4, rtol=1e-4)
    assert second.tokens.tolist() == second.logits.argmax(-1).tolist()


def test_steps_ahead_write_what_one_step_at_a_time_writes_and_end_at_their_limits() -> None:
    decoder = random_decoder(config())
    runner = runner_for(decoder)
    one, other = answer(decoder, [1, 5, 9, 2, 7, 7, 3], 8), answer(decoder, [4, 4, 8], 5)
    runner.step([StepItem(one[:7], 0, [3, 7, 1, 9], 7), StepItem(other[:3], 0, [2, 5, 0], 3)], [1, 1])
    kept = runner.pool.tensor.clone()
    ahead = runner.run_ahead([StepItem([one[7]], 7, [3, 7, 1, 9], 12), StepItem([other[3]], 3, [2, 5, 0], 5)], 4)
    assert ahead is not None
    steps = [ahead.tokens(step) for step in range(4)]
    assert [tokens[0] for tokens in steps] == one[8:12]
    assert [tokens[1] for tokens in steps][:2] == other[4:6]
    written = (runner.pool.tensor != kept).flatten(3).any(-1).any(0).any(0).nonzero()[:, 0]
    assert set(written.tolist()) == {7 * 4 + 3, 1 * 4, 1 * 4 + 1, 1 * 4 + 2, 2 * 4 + 3, 5 * 4}


def test_a_graph_padded_to_its_bucket_gives_what_the_eager_step_gives() -> None:
    decoder = random_decoder(config())
    items = [StepItem([index + 1], 0, [index], 1) for index in range(3)]
    results = []
    for graphs in (True, False):
        runner = runner_for(decoder, max_batch=7, graphs=graphs)
        assert (runner.graphs is not None) == graphs
        results.append(runner.step(items, [1, 1, 1]))
    torch.testing.assert_close(results[0].logits, results[1].logits)
    assert results[0].tokens.tolist() == results[1].tokens.tolist()


@torch.inference_mode()
@pytest.mark.parametrize("taps", [(0, 1), (1,)], ids=["by a graph", "launch by launch"])
def test_the_streams_that_are_wanted_come_with_the_step(taps: tuple[int, ...]) -> None:
    decoder = random_decoder(config())
    runner = runner_for(decoder, taps=(0, 1))
    result = runner.step([StepItem([token], 0, [token], 1) for token in (7, 9, 3)], [1, 1, 1], taps)
    for token, row in zip((7, 9, 3), result.streams, strict=False):  # a graph's buffer has rows for more
        tapped: dict[int, Tensor] = {}
        decoder.hidden(torch.tensor([token]), torch.tensor([0]), PlainAttention(), taps, tapped)
        torch.testing.assert_close(row, torch.cat([tapped[layer][0] for layer in taps]), atol=1e-5, rtol=1e-4)


def test_more_rows_than_the_fused_products_take_give_the_same_stream() -> None:
    decoder = random_decoder(config(qk_norm=True))
    prompt = list(range(10, 10 + MOST_ROWS + 3))
    result = runner_for(decoder).step([StepItem(prompt, 0, [4, 9, 1, 0, 3], len(prompt))], [len(prompt)])
    torch.testing.assert_close(result.logits, plain_logits(decoder, prompt), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_quantised_layers_run_fused_and_apart(kind: type[Int8Linear] | type[Int4Linear]) -> None:
    decoder = random_decoder(config())
    for layer in decoder.layers:
        for name in ("qkv", "attention_out", "gate_up", "down"):
            setattr(layer, name, kind.from_weight(getattr(layer, name).weight))
    prompt = list(range(1, 8))
    result = runner_for(decoder).step([StepItem(prompt, 0, [4, 9], len(prompt))], [1])
    torch.testing.assert_close(result.logits, plain_logits(decoder, prompt)[-1:], atol=5e-3, rtol=5e-3)


def test_buckets_hold_every_number_of_requests_and_drafts() -> None:
    assert batch_buckets(1) == [1]
    assert batch_buckets(3) == [1, 2, 3]
    assert batch_buckets(40) == [1, 2, 4, 8, 16, 32, 40]
    assert verify_rows(0) == [1]
    assert verify_rows(1) == [1, 2]
    assert verify_rows(5) == [1, 2, 4, 8]


def test_the_smallest_bucket_that_holds_the_step_is_picked_and_none_for_a_prompt() -> None:
    seen: list[StepBuffers] = []
    graphs = GraphSet(seen.append, most_requests=5, most_drafts=1, width=4, block_size=4, device=CPU)
    graphs.capture_all()

    def shape(*lengths: int, blocks: int = 1) -> tuple[int, int] | None:
        items = [StepItem(list(range(length)), 0, list(range(blocks)), length) for length in lengths]
        picked = graphs.pick(items)
        return None if picked is None else (picked[0].requests, picked[0].rows_each)

    assert shape(1) == (1, 1)
    assert shape(1, 1, 1) == (4, 1)
    assert shape(1, 2) == (2, 2)
    assert shape(3) is None
    assert shape(*[1] * 6) is None
    assert shape(1, blocks=5) is None


def test_buffers_forget_the_requests_of_the_step_before() -> None:
    buffers = StepBuffers(3, 2, 4, 4, CPU)
    buffers.fill([StepItem([5, 6], 3, [2, 1], 5, 9, 0.5), StepItem([7], 0, [3], 1)])
    assert buffers.slots.tolist() == [2 * 4 + 3, 4, 3 * 4, -1, -1, -1]
    assert buffers.rows.first_rows.tolist() == [0, 2, 4]
    assert buffers.contexts.tolist() == [5, 1, 0]
    assert buffers.seeds.tolist()[0] == 9
    assert buffers.temperatures.tolist()[0] == 0.5
    buffers.fill([StepItem([8], 1, [0, 3], 2)])
    assert buffers.lengths.tolist() == [1, 0, 0]
    assert buffers.slots.tolist() == [1, -1, -1, -1, -1, -1]
    assert buffers.tables[0].tolist()[:2] == [0, 3]


def test_families_that_fused_layers_compute_are_told_apart() -> None:
    assert [name for name, shape in FAMILIES.items() if can_fuse(shape)] == ["llama", "qwen2, qwen3 and mistral"]


def test_the_device_chooses_for_plain_requests_only() -> None:
    assert chosen_on_device(SamplingParams(9, 0.0, stop=("x",)))
    assert chosen_on_device(SamplingParams(9, 0.7, seed=3, markup=True))
    assert not chosen_on_device(SamplingParams(9, 0.7, top_p=0.9))
    assert not chosen_on_device(SamplingParams(9, 0.0, presence_penalty=1.0))


def test_a_drawn_token_is_the_same_alone_and_in_company() -> None:
    kernels = reference_kernels()
    logits = torch.randn(2, 50)
    seeds, positions, warm = torch.tensor([3, 4]), torch.tensor([7, 1]), torch.tensor([0.9, 1.1])
    both = kernels.sample(logits, seeds, positions, warm).tolist()
    assert both[1:] == kernels.sample(logits[1:], seeds[1:], positions[1:], warm[1:]).tolist()
