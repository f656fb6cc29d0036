"""What stands beside our engine on the card: transformers on the same shapes, and other cuts of our own small products."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.engine_shapes import SHAPES
from local_engine.config import ModelConfig


@torch.inference_mode()
def transformers_rate(device: torch.device, shape: str, requests: int, tokens: int, prompt: int = 32) -> dict[str, Any]:
    """Tokens per second of `generate`, greedy, bf16, random weights of the shape; prompts of one length, no padding."""
    import transformers

    model = _transformers_model(SHAPES[shape], device)
    ids = torch.randint(0, SHAPES[shape].vocab_size, (requests, prompt), device=device)
    options = {"do_sample": False, "attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
    model.generate(ids, max_new_tokens=4, **options)
    _wait(device)
    begun = time.perf_counter()
    made = model.generate(ids, max_new_tokens=tokens, **options)
    _wait(device)
    span = time.perf_counter() - begun
    assert made.shape[1] == prompt + tokens, "an answer ended early"
    return {
        "peer": f"transformers {transformers.__version__}", "shape": shape, "requests": requests,
        "answer_tokens": requests * tokens, "seconds": round(span, 2), "tokens_per_s": round(requests * tokens / span, 1),
    }  # fmt: skip


def _transformers_model(shape: ModelConfig, device: torch.device) -> Any:
    """Made on the device without its own slow initialisation."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=shape.max_positions, tie_word_embeddings=shape.tied_embeddings,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device=device).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter.shape[1] ** -0.5)
        else:
            parameter.fill_(1.0 if "norm" in name else 0.0)
    rotary = model.model.rotary_emb  # its tables are no parameters and were left empty
    model.model.rotary_emb = type(rotary)(config=config).to(device)
    return model


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def tune(device: torch.device, shape: str) -> Iterator[dict[str, Any]]:
    """GB/s of each product of a layer, one row, under other cuts than the chosen one: the best one and the chosen one.

    A graph of 8 calls on 8 copies of the weights, which together are larger than the cache.
    """
    if device.type != "cuda":
        yield {"note": "only a GPU can be tuned"}
        return
    from local_engine.kernels.small_linear import Cut, choose_cut

    config = SHAPES[shape]
    q_rows = (config.heads + 2 * config.kv_heads) * config.head_dim
    sizes = {
        "qkv": (q_rows, config.hidden_size), "attention_out": (config.hidden_size, config.heads * config.head_dim),
        "gate_up": (2 * config.intermediate_size, config.hidden_size),
        "down": (config.hidden_size, config.intermediate_size),
    }  # fmt: skip
    cuts = [
        Cut(block_n, block_k, warps, 1)
        for block_n in (2, 4, 8, 16)
        for block_k in (256, 512, 1024, 2048)
        for warps in (2, 4, 8)
        if 1024 <= block_n * block_k <= 8192
    ]
    for dtype in (torch.bfloat16, torch.int8):
        for name, (rows, columns) in sizes.items():
            weights = [
                torch.randint(-99, 99, (rows, columns), dtype=torch.int8, device=device).to(dtype) for _ in range(8)
            ]
            x = torch.randn(1, columns, dtype=torch.bfloat16, device=device)
            chosen = choose_cut(1, rows, weights[0].element_size())
            call = partial(_product, x)
            speeds = {
                cut: 8 * weights[0].nbytes / _graph_seconds(partial(call, cut), weights) / 1e9
                for cut in {*cuts, chosen}
            }
            best = max(speeds, key=lambda cut: speeds[cut])
            yield {
                "product": name, "weights": str(dtype), "chosen": str(chosen), "chosen_gb_s": round(speeds[chosen]),
                "best": str(best), "best_gb_s": round(speeds[best]),
            }  # fmt: skip


def _product(x: torch.Tensor, cut: Any, weight: torch.Tensor) -> torch.Tensor:
    from local_engine.kernels.small_linear import small_linear

    return small_linear(x, weight, None, cut=cut)


def _graph_seconds(call: Any, weights: list[torch.Tensor]) -> float:
    """Of one replay with each of the weights once."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for weight in weights:
            call(weight)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for weight in weights:
            call(weight)
    spans = []
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        spans.append(begin.elapsed_time(end) / 1e3)
    return sorted(spans)[2]
