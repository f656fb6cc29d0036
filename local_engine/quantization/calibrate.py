"""A decoder's int4 matrices chosen anew for a text, layer by layer, each for what the rounded layers before it say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from local_engine.errors import CannotQuantize
from local_engine.layers.linear import Linear
from local_engine.models.decoder import Decoder, DecoderLayer
from local_engine.models.load import Progress
from local_engine.models.streams import WholeWindow
from local_engine.quantization.gptq import choose_groups
from local_engine.quantization.int4 import Int4Linear


def read_windows(tokens: Sequence[int], context: int, most: int) -> list[Tensor]:
    """The first `most` tokens as windows [context] int64, shorter only where `most` is.

    Raises CannotQuantize for a text that does not fill one.
    """
    context = min(context, most)
    count = min(len(tokens), most) // context
    if not count:
        raise CannotQuantize(
            f"the text has {len(tokens)} tokens: calibrating needs {context} at least, and tens of thousands to do well"
        )
    return list(torch.tensor(tokens[: count * context]).view(count, context))


@torch.inference_mode()
def calibrate(
    decoder: Decoder, rounded: Decoder, windows: Sequence[Tensor], progress: Progress = lambda done, total: None
) -> None:
    """Choose the int4 values of `rounded`'s layers for the text in `windows` ([n] int64 each, all as long).

    `decoder` is the same model in floats; its layers become what the rounded ones say. Matrices that were 4 bits in the same
    groups stay as they are, and so do those that the text never reaches: an expert that nobody asks.
    """
    streams = [rounded.embed(tokens).to(decoder.embeddings.dtype) for tokens in windows]
    positions = torch.arange(len(windows[0]), device=streams[0].device)
    turns = {table: table.rows(positions) for table in {decoder.rotary, decoder.local_rotary}}
    for index, (layer, target) in enumerate(zip(decoder.layers, rounded.layers, strict=True)):
        assert isinstance(layer, DecoderLayer)
        turn = turns[decoder.rotary if layer.window is None else decoder.local_rotary]
        with _inputs_of(layer) as products:
            for stream in streams:
                layer(stream, *turn, WholeWindow())
        for name, total in products.items():
            _choose(layer.get_submodule(name), target.get_submodule(name), total)
        streams = [layer(stream, *turn, WholeWindow()) for stream in streams]
        progress(index + 1, len(decoder.layers))


def _choose(linear: nn.Module, rounded: nn.Module, products: Tensor) -> None:
    assert isinstance(linear, Linear)
    assert isinstance(rounded, Int4Linear)
    weight = linear.weight
    if not products.isfinite().all():
        raise CannotQuantize("the model computes NaN or infinity on this text: its weights are damaged")
    if not torch.equal(rounded.dequantize(weight.dtype), weight):
        rounded.keep(0, choose_groups(weight, products))
        weight.copy_(rounded.dequantize(weight.dtype))


@contextmanager
def _inputs_of(layer: DecoderLayer) -> Iterator[dict[str, Tensor]]:
    """While it is open: x^T x, [columns, columns] float32, of all that goes into each `Linear` of the layer, by its name."""
    products: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].float()
            if name in products:
                products[name].addmm_(x.t(), x)
            else:
                products[name] = x.t() @ x

        return add

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in layer.named_modules()
        if isinstance(module, Linear)
    ]
    try:
        yield products
    finally:
        for hook in hooks:
            hook.remove()
