"""The CPU's native step beside the torch decoder: equal within rounding, and the same bits whatever shares the step."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest
import torch

from local_engine.kernels.cpu.build import NoKernel, build, processor_features, target_for
from local_engine.kernels.cpu.library import Library, open_library
from local_engine.kernels.cpu.packed_linear import pack
from local_engine.layers.linear import Linear
from local_engine.layers.paged_attention import PagedAttention, make_span
from local_engine.native_step import NativeStep, Piece, check_model
from local_engine.step_faults import BrokenLogits, check_logits
from tests.local_engine.native_models import (
    CPU,
    KINDS,
    in_kind,
    new_pool,
    random_decoder,
    reference_logits,
    shape,
    widened,
)

# Head widths and groups that fill tiles, half of them, and neither.
SHAPES = [
    shape(),
    shape(head_dim=64, heads=3, kv_heads=1),
    shape(head_dim=40, heads=4, kv_heads=4, hidden_size=160, vocab_size=64),
    shape(head_dim=128, heads=5, kv_heads=1, layers=1, intermediate_size=64),
    shape(tied_embeddings=True, intermediate_size=416),
]
PROMPT = [(index * 37 + 5) % 61 for index in range(75)]


@pytest.fixture(params=["tiles", "vectors", "vectors without bfloat16"])
def library(request: pytest.FixtureRequest) -> Library:
    try:
        if request.param == "vectors without bfloat16":  # AVX-512 before Cooper Lake and Zen 4
            return Library(build(target_for(processor_features() - {"avx512_bf16"}, tiles=False)), tiles=False)
        found = open_library(tiles=request.param == "tiles")
    except NoKernel as reason:
        pytest.skip(f"no native kernel here: {reason}")
    if request.param == "tiles" and not found.tiles:
        pytest.skip("this processor has no AMX")
    return found


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns", "parts"), [(48, 96, 1), (37, 64, 1), (70, 160, 2), (16, 32, 1)])
def test_a_product_is_that_of_the_unpacked_weights_and_does_not_depend_on_its_neighbours(
    library: Library, threads: int, kind: str, rows: int, columns: int, parts: int
) -> None:
    torch.manual_seed(rows)
    linear = Linear(rows, columns, torch.bfloat16, CPU)
    linear.weight.data.copy_(torch.randn(rows, columns))
    module = in_kind(linear, kind)
    weight = linear.weight.float() if kind == "bfloat16" else module.dequantize(torch.float32)
    packed = pack(library, module, parts)
    x = torch.randn(50, columns) * torch.logspace(-3, 3, 50)[:, None]
    x[7] = 0
    exact = x.double() @ weight.double().T
    bound = x.double().abs() @ weight.double().abs().T
    tolerance = 2**-8 if kind == "bfloat16" else 2**-10  # activations are rounded to 8 bits, 16 and 12 by row and group
    whole = packed(x)
    assert ((whole - exact).abs() <= tolerance * bound).all()
    for first, last in ((0, 1), (3, 5), (9, 13), (14, 17), (20, 26), (21, 28), (20, 33)):
        assert torch.equal(packed(x[first:last]), whole[first:last])


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_tiles_and_vectors_give_the_same_bits(kind: str) -> None:
    try:
        tiles, vectors = open_library(tiles=True), open_library(tiles=False)
    except NoKernel as reason:
        pytest.skip(f"no native kernel here: {reason}")
    linear = Linear(200, 96, torch.bfloat16, CPU)
    linear.weight.data.copy_(torch.randn(200, 96, generator=torch.Generator().manual_seed(1)))
    x = torch.randn(70, 96, generator=torch.Generator().manual_seed(2))
    assert torch.equal(pack(tiles, in_kind(linear, kind))(x), pack(vectors, in_kind(linear, kind))(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("count", [1, 16])
def test_a_number_that_is_none_is_seen_in_the_result(library: Library, kind: str, value: float, count: int) -> None:
    linear = Linear(48, 96, torch.bfloat16, CPU)
    linear.weight.data.copy_(torch.randn(48, 96))
    x = torch.ones(count, 96)
    x[0, 70] = value
    result = pack(library, in_kind(linear, kind))(x)
    assert not result[0].isfinite().any()
    assert result[1:].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_whose_stream_overflows_gives_no_finite_logits(library: Library, kind: str) -> None:
    config = shape()
    decoder = random_decoder(config, kind)
    decoder.embeddings.data[PROMPT[40]] = float("inf")
    native = NativeStep(decoder, new_pool(config), library)
    pieces = [Piece(PROMPT, 0, range(5)), Piece(PROMPT[:40], 0, range(5, 10))]
    logits, _, likeliest = native.run(pieces, [40, 75 + 39])
    assert likeliest == [-1, int(logits[1].argmax())]
    for known in (None, likeliest):
        with pytest.raises(BrokenLogits):
            check_logits(logits[:1], known and known[:1])
        check_logits(logits[1:], known and known[1:])  # another request's


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [5, 16, 403])
def test_the_step_says_which_logit_of_each_row_is_the_largest_and_of_equals_the_first(
    library: Library, threads: int, kind: str, vocabulary: int
) -> None:
    config = shape(vocab_size=vocabulary)
    decoder = random_decoder(config, kind)
    twins = Linear(vocabulary, config.hidden_size, torch.bfloat16, CPU)
    torch.manual_seed(3)
    weight = torch.randn((vocabulary + 1) // 2, config.hidden_size)
    twins.weight.data.copy_(torch.cat([weight, weight])[:vocabulary])
    decoder.output = in_kind(twins, kind)
    native = NativeStep(decoder, new_pool(config), library)
    logits, _, likeliest = native.run([Piece([at % vocabulary for at in PROMPT], 0, range(5))], range(75))
    assert likeliest == logits.numpy().argmax(-1).tolist()
    assert sum((row == row.max()).sum() == 2 for row in logits) > 20
    assert native.run([Piece([1], 0, [9])], [])[2] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", SHAPES, ids=lambda config: f"heads of {config.head_dim}")
def test_a_step_is_the_float32_decoder_within_rounding(library: Library, threads: int, kind: str, config) -> None:
    decoder = random_decoder(config, kind)
    wide = widened(decoder)
    expected = reference_logits(wide, PROMPT)
    native = NativeStep(decoder, new_pool(config), library)
    logits, *_ = native.run([Piece(PROMPT, 0, range(3, 8))], range(len(PROMPT)))
    assert (logits - expected).abs().max() < 0.06 * expected.abs().max()
    assert (logits - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", SHAPES, ids=lambda config: f"heads of {config.head_dim}")
def test_a_row_has_the_same_bits_whatever_shares_its_step(library: Library, threads: int, kind: str, config) -> None:
    native = NativeStep(random_decoder(config, kind), new_pool(config), library)
    table, other, third = [9, 2, 30, 11, 5], [0, 1, 3, 4, 6], [20, 7, 8, 10, 12]
    whole, *_ = native.run([Piece(PROMPT, 0, table)], range(len(PROMPT)))
    # In pieces, beside another prompt and between drafts of a third request.
    native.run([Piece(PROMPT[:20], 0, other)], [])
    native.run([Piece(PROMPT[::-1][:41], 0, third)], [])
    mixed, *_ = native.run(
        [Piece([4, 5, 6], 41, third), Piece(PROMPT[20:70], 20, other), Piece(PROMPT[10:50], 0, [13, 14, 15])],
        range(3, 53),
    )
    assert torch.equal(mixed, whole[20:70])
    for position in range(70, 75):
        alone, *_ = native.run([Piece([PROMPT[position]], position, other)], [0])
        assert torch.equal(alone[0], whole[position])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_wanted_are_the_same_whichever_others_are_and_whatever_is_tapped(
    library: Library, threads: int, kind: str
) -> None:
    config = shape(layers=3)
    native = NativeStep(random_decoder(config, kind), new_pool(config), library)
    pieces = [Piece(PROMPT[:40], 0, [1, 2, 3]), Piece(PROMPT[40:], 0, [4, 5, 6])]
    whole, streams, _ = native.run(pieces, range(75), [0, 2])
    for wanted in ([], [74], [0, 1, 2], [3, 39, 40, 74], [74, 3, 3]):
        for taps in ([], [1], [2]):
            logits, tapped, _ = native.run(pieces, wanted, taps)
            assert torch.equal(logits, whole[wanted])
            if taps == [2]:
                assert torch.equal(tapped, streams[:, config.hidden_size :])


def test_a_request_may_read_blocks_that_another_one_fills_in_the_same_step(library: Library) -> None:
    config = shape()
    native = NativeStep(random_decoder(config, "int8"), new_pool(config), library)
    whole, *_ = native.run([Piece(PROMPT, 0, [1, 2, 3, 4, 5])], [74])
    shared, *_ = native.run(
        [Piece(PROMPT[64:], 64, [6, 7, 8, 9, 11]), Piece(PROMPT[:64], 0, [6, 7, 8, 9, 10])], [len(PROMPT) - 65]
    )
    assert torch.equal(shared, whole)


def test_streams_behind_layers_are_given_as_the_decoder_gives_them(library: Library) -> None:
    config = shape(layers=4)
    decoder = random_decoder(config, "bfloat16")
    wide, tapped = widened(decoder), {}
    native = NativeStep(decoder, new_pool(config), library)
    logits, streams, _ = native.run([Piece(PROMPT, 0, range(5))], [74], taps=[1, 3])
    pool = new_pool(config, 16, torch.float32)
    attention = PagedAttention(pool, torch.arange(75), [make_span(0, 75, 75, range(16), True, 16, CPU)])
    wide.hidden(torch.tensor(PROMPT), torch.arange(75), attention, (1, 3), tapped)
    expected = torch.cat([tapped[1], tapped[3]], dim=-1)
    assert streams.shape == expected.shape == (75, 2 * config.hidden_size)
    assert streams.dtype == torch.bfloat16
    assert (streams.float() - expected).norm() < 0.02 * expected.norm()
    assert logits.shape == (1, config.vocab_size)


def test_the_decoder_can_still_be_called_through_torch_once_its_weights_are_packed(library: Library) -> None:
    config = shape()
    decoder = random_decoder(config, "int8")
    native = NativeStep(decoder, new_pool(config), library)
    logits, *_ = native.run([Piece(PROMPT, 0, range(5))], range(75))
    pool = new_pool(config)
    attention = PagedAttention(pool, torch.arange(75), [make_span(0, 75, 75, range(16), True, 16, CPU)])
    with torch.inference_mode():
        through_torch = decoder(torch.tensor(PROMPT), torch.arange(75), attention, None)
    assert (logits - through_torch).norm() < 0.03 * logits.norm()


def test_the_kernel_keeps_the_weights_it_reads_whoever_replaces_the_modules(library: Library) -> None:
    decoder, pool = random_decoder(shape(), "int8"), new_pool(shape())
    native = NativeStep(decoder, pool, library)
    modules = [weakref.ref(layer.down) for layer in decoder.layers] + [weakref.ref(decoder.output)]
    decoder.layers = torch.nn.ModuleList()
    decoder.output = torch.nn.Identity()
    gc.collect()
    assert all(module() is not None for module in modules)
    del native
    gc.collect()
    assert not any(module() is not None for module in modules)


def test_models_that_the_kernel_does_not_know_are_left_to_torch_with_the_reason() -> None:
    with pytest.raises(NoKernel, match="qkv_bias = True"):
        check_model(random_decoder(shape(qkv_bias=True), "bfloat16"), new_pool(shape()))
    with pytest.raises(NoKernel, match="wants bfloat16 cache, these are float32"):
        check_model(random_decoder(shape(), "bfloat16"), new_pool(shape(), dtype=torch.float32))
    with pytest.raises(NoKernel, match="heads of 144 elements"):
        check_model(random_decoder(shape(head_dim=144), "bfloat16"), new_pool(shape(head_dim=144)))


@pytest.mark.parametrize("where", ["thread", "step"])
def test_a_step_without_memory_fails_and_the_next_one_is_right(where: str) -> None:
    command = [sys.executable, "-m", "tests.local_engine.short_of_memory", where]
    # With arenas of their own, threads hold 64 MiB of address space in reserve, which no limit takes from them.
    env = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    if done.returncode == 77:
        pytest.skip("no native kernel here")
    assert done.returncode == 0, done.stderr
