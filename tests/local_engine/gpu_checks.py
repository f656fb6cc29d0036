"""Checks of whole steps on a GPU, for tests/gpu and for benchmarks that must be right before they are fast.

`python -m tests.local_engine.gpu_checks [DEVICE]` runs them without pytest and prints one JSON line each. On a CPU they run
with reference kernels, which says that the checks themselves work; those of real shapes are left to a GPU.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from benchmarks.engine_shapes import SHAPES, Load, engine_for, random_decoder
from local_engine.cache_size import CacheSize
from local_engine.engine import Engine
from local_engine.gpu_runner import GpuRunner
from local_engine.kernels.small_linear import MOST_ROWS
from local_engine.layers.attention_reference import PlainAttention
from local_engine.layers.linear import Linear
from local_engine.model_runner import ModelRunner
from local_engine.models.decoder import Decoder
from local_engine.models.load import load_decoder
from local_engine.models.weights import SafetensorsWeights
from local_engine.quantization.fp8 import Fp8Linear
from local_engine.request import SamplingParams
from local_engine.speculative.ngram import NgramDrafter
from local_engine.step_buffers import StepItem

Device = str
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float8": 8e-2}
"""Relative errors of logits; float8 is for activations rounded to e4m3 as well, about twice what a CPU shows of it."""


def runner_of(decoder: Decoder, graphs: bool = True, max_batch: int = 20, max_drafts: int = 3) -> GpuRunner:
    runner = GpuRunner(
        ModelRunner(decoder, CacheSize(80, 16, 0)), max_batch=max_batch, max_context=400, max_drafts=max_drafts,
        graphs=graphs,
    )  # fmt: skip
    with torch.inference_mode():
        runner.prepare()
    return runner


def random_model(shape: str, dtype: str, device: Device, quantize: str = "none", layers: int = 2) -> Decoder:
    return random_decoder(
        replace(SHAPES[shape], layers=layers), 400, getattr(torch, dtype), torch.device(device), quantize
    )


def assert_near(got: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    error = float((got.double() - expected.double()).norm() / expected.double().norm())
    assert error <= tolerance, f"relative error {error:.2e}, allowed is {tolerance:.0e}"


def plain_logits(decoder: Decoder, tokens: list[int]) -> torch.Tensor:
    """With attention written as its definition: [tokens, vocab]."""
    device = decoder.embeddings.device
    everything = torch.tensor(tokens, device=device)
    return decoder(everything, torch.arange(len(tokens), device=device), PlainAttention(), None)


@torch.inference_mode()
def steps_equal_the_plain_decoder(device: Device, shape: str, dtype: str, quantize: str = "none") -> None:
    decoder = random_model(shape, dtype, device, quantize)
    check_steps(decoder, decoder, TOLERANCE[dtype])


@torch.inference_mode()
def fp8_steps_are_near_their_weights_as_floats(device: Device, shape: str) -> None:
    check_fp8_steps(random_model(shape, "bfloat16", device, "fp8"))


def check_fp8_steps(decoder: Decoder) -> None:
    """A GPU's own float8 product, which many rows take, rounds activations too; the kernel for few rows does not.

    So the decoder's own modules are no truth for the kernel: the truth is what its weights stand for.
    """
    floats = weights_as_floats(decoder)
    check_steps(decoder, floats, TOLERANCE["bfloat16"], at_once=MOST_ROWS)
    check_steps(decoder, floats, TOLERANCE["float8"])


def weights_as_floats(decoder: Decoder) -> Decoder:
    """A copy whose float8 matrices are ordinary ones, in the dtype of its embeddings."""
    floats, dtype = copy.deepcopy(decoder), decoder.embeddings.dtype
    for parent in list(floats.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Fp8Linear):
                weight = nn.Parameter(child.dequantize().to(dtype), requires_grad=False)
                setattr(parent, name, Linear(child.rows, child.columns, dtype, weight.device, weight))
    return floats


def check_steps(decoder: Decoder, truth: Decoder, tolerance: float, at_once: int = 250) -> None:
    """Prefill by `at_once` tokens a step, decode and verification of one request; launch by launch and by graphs."""
    dice = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, decoder.config.vocab_size, (260,), generator=dice).tolist()
    expected = plain_logits(truth, tokens)
    steps = [(first, min(first + at_once, 250)) for first in range(0, 250, at_once)]
    steps += [(250, 251), (251, 255), (255, 260)]
    for graphs in (False, True):
        runner, blocks = runner_of(decoder, graphs, max_batch=1), [*range(40, 50), *range(3, 13)]
        for first, last in steps:
            wanted = 1 if first < 250 else last - first
            result = runner.step([StepItem(tokens[first:last], first, blocks, last)], [wanted])
            assert_near(result.logits, expected[last - wanted : last], tolerance)


@torch.inference_mode()
def a_crowd_equals_the_plain_decoder(device: Device, shape: str) -> None:
    """Prompts of many lengths in one step, then a token of each by the graph of so many; bf16."""
    decoder, dice = random_model(shape, "bfloat16", device), torch.Generator().manual_seed(4)
    prompts = [
        torch.randint(0, decoder.config.vocab_size, (2 + 3 * index,), generator=dice).tolist() for index in range(20)
    ]
    free = torch.randperm(80, generator=dice).tolist()
    blocks = [[free.pop() for _ in range(-(-len(prompt) // 16))] for prompt in prompts]
    expected = torch.cat([plain_logits(decoder, prompt)[-2:] for prompt in prompts]).view(20, 2, -1)
    items = [list[StepItem](), list[StepItem]()]
    for prompt, mine in zip(prompts, blocks, strict=True):
        known = len(prompt) - 1
        items[0].append(StepItem(prompt[:known], 0, mine, known))
        items[1].append(StepItem(prompt[known:], known, mine, known + 1))
    runner = runner_of(decoder, max_drafts=0)
    for step in range(2):
        assert_near(runner.step(items[step], [1] * 20).logits, expected[:, step], TOLERANCE["bfloat16"])


@torch.inference_mode()
def graphs_equal_launches(device: Device, requests: int) -> None:
    """The same kernels in the same shapes: equal up to the padding of the bucket."""
    decoder = random_model("tiny-qwen", "bfloat16", device)
    items = [StepItem([index + 1], 0, [index], 1) for index in range(requests)]
    results = [runner_of(decoder, graphs).step(items, [1] * requests) for graphs in (True, False)]
    assert_near(results[0].logits, results[1].logits, TOLERANCE["bfloat16"])


@torch.inference_mode()
def steps_ahead_equal_single_steps(device: Device) -> None:
    decoder = random_model("tiny", "float32", device)
    single, ahead = runner_of(decoder), runner_of(decoder)
    token, tokens = 7, []
    for at in range(30):
        token = int(single.step([StepItem([token], at, [5, 2], at + 1)], [1]).tokens[0])
        tokens.append(token)
    begun = ahead.run_ahead([StepItem([7], 0, [5, 2], 30)], 30)
    assert begun is not None
    assert [begun.tokens(step)[0] for step in range(30)] == tokens


def answers_do_not_depend_on_how_they_are_made(device: Device) -> None:
    """Greedy in float32: alone and together, with and without drafts, token for token."""
    where = torch.device(device)
    dice = torch.Generator().manual_seed(3)
    prompts = [torch.randint(0, 512, (length,), generator=dice).tolist() * 2 for length in (3, 40, 17, 64, 9, 100)]
    load = Load("tiny", 6, 400, 4096, dtype="float32", max_drafts=3)
    plain = answers(engine_for(load, where), prompts)
    engine = engine_for(load, where)
    assert [answers(engine, [prompt])[0] for prompt in prompts] == plain
    assert answers(engine_for(load, where, [NgramDrafter()]), prompts) == plain


def answers(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    params = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
    requests = [engine.new_request(prompt, params) for prompt in prompts]
    for request in requests:
        engine.add(request)
    while engine.busy:
        for output in engine.step():
            if output.error is not None:
                raise output.error
    engine.check_integrity()
    return [request.answer for request in requests]


@torch.inference_mode()
def logits_equal_transformers(device: Device) -> None:
    """A random Llama and a random Qwen3 of transformers' own, saved and loaded; float32."""
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

    sizes = {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 512, "head_dim": 32,
    }  # fmt: skip
    tokens = torch.randint(0, 512, (1, 90), generator=torch.Generator().manual_seed(2)).to(device)
    for config in (LlamaConfig(**sizes), Qwen3Config(**sizes)):
        model = AutoModelForCausalLM.from_config(config).eval().to(device)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            source = SafetensorsWeights(Path(folder))
            decoder = load_decoder(source, positions=400, dtype=torch.float32, device=torch.device(device))
        result = runner_of(decoder).step([StepItem(tokens[0].tolist(), 0, list(range(9, 15)), 90)], [90])
        assert_near(result.logits, model(tokens).logits[0].float(), TOLERANCE["float32"])


CHECKS: dict[str, Callable[[Device], None]] = {
    "steps equal the plain decoder, float32": partial(steps_equal_the_plain_decoder, shape="tiny", dtype="float32"),
    "steps equal the plain decoder, bf16": partial(steps_equal_the_plain_decoder, shape="tiny", dtype="bfloat16"),
    "steps equal the plain decoder, normed heads": partial(
        steps_equal_the_plain_decoder, shape="tiny-qwen", dtype="bfloat16"
    ),
    **{
        f"steps equal the plain decoder, {kind}": partial(
            steps_equal_the_plain_decoder, shape="tiny", dtype="bfloat16", quantize=kind
        )
        for kind in ("int8", "int4")
    },
    "steps are near their weights as floats, fp8": partial(fp8_steps_are_near_their_weights_as_floats, shape="tiny"),
    **{
        f"a crowd equals the plain decoder, {shape}": partial(a_crowd_equals_the_plain_decoder, shape=shape)
        for shape in ("tiny", "tiny-qwen")
    },
    **{
        f"graphs equal launches, {count} requests": partial(graphs_equal_launches, requests=count)
        for count in (1, 3, 19)
    },
    "steps ahead equal single steps": steps_ahead_equal_single_steps,
    "answers do not depend on how they are made": answers_do_not_depend_on_how_they_are_made,
    **({"logits equal transformers'": logits_equal_transformers} if find_spec("transformers") else {}),
}

REAL_SHAPES: dict[str, Callable[[Device], None]] = {
    **{
        f"steps equal the plain decoder, two layers of {shape}": partial(
            steps_equal_the_plain_decoder, shape=shape, dtype="bfloat16"
        )
        for shape in ("llama-3.1-8b", "qwen3-0.6b")
    },
    **{
        f"a crowd equals the plain decoder, two layers of {shape}": partial(
            a_crowd_equals_the_plain_decoder, shape=shape
        )
        for shape in ("llama-3.1-8b", "qwen3-0.6b")
    },
    **{
        f"steps equal the plain decoder, two layers of llama-3.1-8b, {kind}": partial(
            steps_equal_the_plain_decoder, shape="llama-3.1-8b", dtype="bfloat16", quantize=kind
        )
        for kind in ("int4", "int8")
    },
    "steps are near their weights as floats, two layers of llama-3.1-8b, fp8": partial(
        fp8_steps_are_near_their_weights_as_floats, shape="llama-3.1-8b"
    ),
}
"""With a vocabulary of real size, too: seconds on a GPU, minutes on a CPU."""


def main(device: Device) -> int:
    """Run all that suit the device; 1 when one fails."""
    failed = 0
    for name, check in (CHECKS if device == "cpu" else CHECKS | REAL_SHAPES).items():
        started, error = time.perf_counter(), None
        try:
            check(device)
        except Exception:
            error, failed = traceback.format_exc(), failed + 1
        print(
            json.dumps({"case": name, "error": error, "seconds": round(time.perf_counter() - started, 2)}), flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["cuda"]))
