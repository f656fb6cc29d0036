"""What quantisation costs: perplexity and greedy answers of SmolLM2 in every number format, side by side; prints JSON.

    python -m benchmarks.engine_quality [--write] [--tokens N] [--threads N] [--text NAME=FILE ...]

The text everyone has is Python's own reference, as `help()` shows it (pydoc_data.topics); --text adds others. Targets: int8
within 0.5 % of bfloat16, int4 within 6 %. The model's file is 4-bit already, so its own groups are kept and int4 costs
almost nothing; "int4 regrouped" shuffles channels first (the same function in floats), so that no group is one of the
file's: that is what int4 costs a model of full precision. "int4 calibrated" is the same, its values chosen for a text
(`quantize --text`): docstrings of Python's standard library. "int8 activations" rounds what goes into each product as well,
by token.
Needs SmolLM2's weights (`python -m local_engine fetch`); --write keeps the numbers in benchmarks/results/engine_quality.json.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

from benchmarks.results_file import machine_facts, write
from local_engine.config import EngineConfig, KvDtype, Quantization
from local_engine.engine import Engine
from local_engine.kernels.cpu.packed_linear import PackedLinear
from local_engine.layers.linear import Linear
from local_engine.loading import load_runner
from local_engine.model_files import Hub, resolve_model
from local_engine.model_runner import ModelRunner
from local_engine.models.decoder import Decoder, DecoderLayer
from local_engine.perplexity import perplexity
from local_engine.quantization.calibrate import calibrate, read_windows
from local_engine.quantization.int4 import Int4Linear
from local_engine.quantization.int8 import Int8Linear, quantize_rows
from local_engine.request import SamplingParams
from local_engine.tokenizer import Tokenizer

CONTEXT = 512
CALIBRATION_TOKENS = 32768
TARGETS = {"int8": 0.005, "int4": 0.06, "int4 calibrated": 0.06}
QUESTIONS = (
    "What is the capital of France?",
    "How many days are there in a week?",
    "Name three colours of the rainbow.",
    "What is 7 plus 5?",
    "Who wrote Romeo and Juliet?",
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the model: `change` is made to the decoder after it was loaded."""

    dtype: str
    quantize: Quantization = "none"
    kv_dtype: KvDtype = "auto"
    change: Callable[[Decoder, Tokenizer], None] | None = None


def main() -> None:
    """Measure everything once and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of each text")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--text", action="append", default=[], metavar="NAME=FILE", help="a further text")
    parser.add_argument("--weights-dir", type=Path, default=Path("~/.penstock/weights").expanduser())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    facts = machine_facts()
    path = resolve_model("smollm2-135m-instruct", arguments.weights_dir, Hub()).path
    texts = {"python reference": python_reference()}
    texts |= {name: Path(file).read_text("utf-8") for name, _, file in (each.partition("=") for each in arguments.text)}
    numbers: dict[str, Any] = {"model": "smollm2-135m-instruct (Q4_1)", "context": CONTEXT, "variants": {}}
    for name, variant in variants().items():
        numbers["variants"][name] = measure(path, variant, texts, arguments.tokens)
        print(name, json.dumps(numbers["variants"][name]["perplexity"]), file=sys.stderr, flush=True)
        compare(numbers["variants"])
        if arguments.write:  # after each, as it takes long
            write("engine_quality", numbers, facts)
    print(json.dumps(numbers, indent=2))


def variants() -> dict[str, Variant]:
    """Name -> how to run, the most telling first; all but the last in bfloat16."""
    return {
        "bfloat16": Variant("bfloat16"),
        "int8": Variant("bfloat16", "int8"),
        "int4": Variant("bfloat16", "int4"),
        "int8 activations": Variant("bfloat16", "int8", change=round_activations),
        "int8 cache": Variant("bfloat16", kv_dtype="int8"),
        "int4 regrouped": Variant("bfloat16", change=regroup),
        "int4 calibrated": Variant("bfloat16", change=regroup_calibrated),
        "fp8": Variant("bfloat16", "fp8"),
        "fp8 cache": Variant("bfloat16", kv_dtype="fp8"),
        "int8, int8 cache": Variant("bfloat16", "int8", "int8"),
        "int4 regrouped, output too": Variant("bfloat16", change=regroup_all),
        "float32": Variant("float32"),
    }


def measure(path: Path, variant: Variant, texts: dict[str, str], tokens: int) -> dict[str, Any]:
    """Perplexity of every text, bytes of the matrices, and greedy answers."""
    config = EngineConfig(
        dtype="float32" if variant.dtype == "float32" else "bfloat16",
        quantize=variant.quantize, kv_dtype=variant.kv_dtype, cache_tokens=1024, max_context=1024, max_batch=1,
        cpu_kernel="auto" if variant.change is None else "off",  # the kernel would not see the change
    )  # fmt: skip
    runner, tokenizer = load_runner(path, config)
    if variant.change is not None:
        with torch.inference_mode():
            variant.change(runner.decoder, tokenizer)
    scores = {
        name: perplexity(runner, tokenizer.encode(text)[:tokens], context=CONTEXT) for name, text in texts.items()
    }
    return {
        "perplexity": {name: round(each.value, 4) for name, each in scores.items()},
        "tokens": {name: each.tokens for name, each in scores.items()},
        "matrix_mib": round(sum(bytes_of(each) for each in matrices(runner.decoder)) / 2**20, 1),
        "answers": answers(runner, tokenizer, config),
    }


def compare(measured: dict[str, Any]) -> None:
    """Add the loss against bfloat16, and whether a target was met."""
    plain = measured["bfloat16"]["perplexity"]
    for name, each in measured.items():
        each["over_bfloat16"] = {text: round(value / plain[text] - 1, 5) for text, value in each["perplexity"].items()}
        if name in TARGETS:
            each["target"] = TARGETS[name]
            each["target_met"] = max(each["over_bfloat16"].values()) <= TARGETS[name]


def answers(runner: ModelRunner, tokenizer: Tokenizer, config: EngineConfig) -> dict[str, str]:
    """Greedy answers, the template's own system message before the question."""
    engine = Engine(runner, tokenizer, config)
    params = SamplingParams(max_tokens=32, temperature=0)
    asked = ((text, tokenizer.encode_chat([{"role": "user", "content": text}])) for text in QUESTIONS)
    return {text: engine.generate(prompt, params).text for text, prompt in asked}


def python_reference() -> str:
    """The language reference that comes with every Python: prose, tables and code."""
    from pydoc_data import topics

    return "\n\n".join(topics.topics[name] for name in sorted(topics.topics))


def matrices(decoder: Decoder) -> Iterator[nn.Module]:
    """Every module that is a product with a matrix, the output's included."""
    yield from (
        each
        for each in decoder.modules()
        if isinstance(each, Linear | Int8Linear | Int4Linear | PackedLinear) or hasattr(each, "scale")
    )


def bytes_of(module: nn.Module) -> int:
    """Bytes of its weights and scales."""
    if isinstance(module, PackedLinear):
        return module.nbytes
    return sum(each.nbytes for each in module.state_dict().values())


class RoundedInput(nn.Module):
    """A product whose input is rounded to int8 first, each token with its own scale."""

    def __init__(self, product: nn.Module) -> None:
        super().__init__()
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of `x`."""
        values, scale = quantize_rows(x)
        out: Tensor = self.product((values.float() * scale[:, None]).to(x.dtype))
        return out


def round_activations(decoder: Decoder, _: Tokenizer) -> None:
    """Round what goes into each product, the last one excepted."""
    for layer in decoder.layers:
        for name in ("qkv", "attention_out", "gate_up", "down"):
            setattr(layer, name, RoundedInput(getattr(layer, name)))


def regroup(decoder: Decoder, _: Tokenizer) -> None:
    """Shuffle channels, then int4 layers and an int8 output."""
    shuffle(decoder)
    for layer in decoder.layers:
        for name in ("qkv", "attention_out", "gate_up", "down"):
            setattr(layer, name, Int4Linear.from_weight(getattr(layer, name).weight))
    decoder.output = Int8Linear.from_weight(decoder.embeddings)


def regroup_all(decoder: Decoder, tokenizer: Tokenizer) -> None:
    """The same with an int4 output."""
    regroup(decoder, tokenizer)
    decoder.output = Int4Linear.from_weight(decoder.embeddings)


def regroup_calibrated(decoder: Decoder, tokenizer: Tokenizer) -> None:
    """As `regroup`, with values chosen for the standard library's docstrings."""
    exact = copy.deepcopy(decoder)
    shuffle(exact)
    regroup(decoder, tokenizer)
    calibrate(exact, decoder, read_windows(tokenizer.encode(docstrings()), CONTEXT, CALIBRATION_TOKENS))


def docstrings() -> str:
    """What the modules of Python's standard library say of themselves, their classes and functions."""
    found = []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.append(ast.get_docstring(node) or "")
    return "\n\n".join(text for text in found if len(text) > 200)


def shuffle(decoder: Decoder) -> None:
    """Reorder the stream's channels, the feed-forwards' and the values', so that the model computes what it did."""
    random = torch.Generator().manual_seed(0)
    config = decoder.config
    stream = torch.randperm(config.hidden_size, generator=random)
    decoder.embeddings.copy_(decoder.embeddings[:, stream])
    decoder.norm.weight.copy_(decoder.norm.weight[stream])
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        inner = torch.randperm(config.intermediate_size, generator=random)
        value = torch.randperm(config.head_dim, generator=random)
        for norm in (layer.attention_norm, layer.feed_forward_norm):
            norm.weight.copy_(norm.weight[stream])
        first_value = (config.heads + config.kv_heads) * config.head_dim
        rows = torch.arange(layer.qkv.weight.shape[0])
        rows[first_value:] = first_value + _within_heads(config.kv_heads, value)
        layer.qkv.weight.copy_(layer.qkv.weight[rows][:, stream])
        columns = _within_heads(config.heads, value)
        layer.attention_out.weight.copy_(layer.attention_out.weight[stream][:, columns])
        both = torch.cat((inner, config.intermediate_size + inner))
        layer.gate_up.weight.copy_(layer.gate_up.weight[both][:, stream])
        layer.down.weight.copy_(layer.down.weight[stream][:, inner])


def _within_heads(heads: int, order: Tensor) -> Tensor:
    """The same order in each head, as indices over all."""
    return (torch.arange(heads)[:, None] * len(order) + order).flatten()


if __name__ == "__main__":
    main()
