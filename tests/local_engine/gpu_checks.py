"""Checks of whole steps on a GPU, for tests/gpu and for benchmarks that must be right before they are fast.

`python -m tests.local_engine.gpu_checks [DEVICE]` runs them without pytest and prints one JSON line each. On a CPU they run
with reference kernels, which says that the checks themselves work.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.engine_shapes import SHAPES, Load, engine_for, random_decoder
from local_engine.cache_size import CacheSize
from local_engine.engine import Engine
from local_engine.gpu_runner import GpuRunner
from local_engine.layers.attention_reference import PlainAttention
from local_engine.model_runner import ModelRunner
from local_engine.models.decoder import Decoder
from local_engine.models.load import load_decoder
from local_engine.models.weights import SafetensorsWeights
from local_engine.request import SamplingParams
from local_engine.speculative.ngram import NgramDrafter
from local_engine.step_buffers import StepItem

Device = str
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}


def runner_of(decoder: Decoder, graphs: bool = True) -> GpuRunner:
    runner = GpuRunner(
        ModelRunner(decoder, CacheSize(80, 16, 0)), max_batch=20, max_context=400, max_drafts=3, graphs=graphs
    )
    with torch.inference_mode():
        runner.prepare()
    return runner


def assert_near(got: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    error = float((got.double() - expected.double()).norm() / expected.double().norm())
    assert error <= TOLERANCE[dtype], f"relative error {error:.2e} in {dtype}"


@torch.inference_mode()
def steps_equal_the_plain_decoder(device: Device, shape: str, dtype: str, quantize: str = "none") -> None:
    """Prefill, decode and verification of one request, against attention written as its definition."""
    decoder = random_decoder(SHAPES[shape], 400, getattr(torch, dtype), torch.device(device), quantize)
    tokens = torch.randint(0, 512, (260,), generator=torch.Generator().manual_seed(1)).tolist()
    everything = torch.tensor(tokens, device=device)
    expected = decoder(everything, torch.arange(260, device=device), PlainAttention(), None)
    for graphs in (False, True):
        runner, blocks = runner_of(decoder, graphs), [*range(40, 50), *range(3, 13)]
        first = runner.step([StepItem(tokens[:250], 0, blocks, 250)], [1])
        assert_near(first.logits, expected[249:250], dtype)
        assert_near(runner.step([StepItem(tokens[250:251], 250, blocks, 251)], [1]).logits, expected[250:251], dtype)
        verified = runner.step([StepItem(tokens[251:255], 251, blocks, 255)], [4])
        assert_near(verified.logits, expected[251:255], dtype)
        last = runner.step([StepItem(tokens[255:], 255, blocks, 260)], [5])
        assert_near(last.logits, expected[255:], dtype)


@torch.inference_mode()
def graphs_equal_launches(device: Device, requests: int) -> None:
    """The same kernels in the same shapes: equal up to the padding of the bucket."""
    decoder = random_decoder(SHAPES["tiny-qwen"], 400, torch.bfloat16, torch.device(device))
    items = [StepItem([index + 1], 0, [index], 1) for index in range(requests)]
    results = [runner_of(decoder, graphs).step(items, [1] * requests) for graphs in (True, False)]
    assert_near(results[0].logits, results[1].logits, "bfloat16")


@torch.inference_mode()
def steps_ahead_equal_single_steps(device: Device) -> None:
    decoder = random_decoder(SHAPES["tiny"], 400, torch.float32, torch.device(device))
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
        assert_near(result.logits, model(tokens).logits[0].float(), "float32")


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
        for kind in ("int8", "int4", "fp8")
    },
    **{
        f"graphs equal launches, {count} requests": partial(graphs_equal_launches, requests=count)
        for count in (1, 3, 19)
    },
    "steps ahead equal single steps": steps_ahead_equal_single_steps,
    "answers do not depend on how they are made": answers_do_not_depend_on_how_they_are_made,
    **({"logits equal transformers'": logits_equal_transformers} if find_spec("transformers") else {}),
}


def main(device: Device) -> int:
    """Run all; 1 when one fails."""
    failed = 0
    for name, check in CHECKS.items():
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
