"""The CPU's fast path: one call into C++ computes a whole step; `load_native` says in the log why it cannot, and torch does it.

Weights are repacked where they stand (`PackedLinear`), so they exist once and the decoder can still be called through
torch. Sums are float32 throughout. For int8 and int4 weights activations become 16-bit integers per row and the products
are exact; what a row gives does not depend on the other rows of its step, whatever their number, nor on the threads.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields

import torch
from torch import Tensor, nn

from local_engine.config import ModelConfig
from local_engine.kernels.cpu.build import NoKernel
from local_engine.kernels.cpu.library import LayerParts, Library, ModelParts, StepParts, open_library
from local_engine.kernels.cpu.packed_linear import PackedLinear, can_pack, pack
from local_engine.kv_cache import KVPool
from local_engine.models.decoder import Decoder, DecoderLayer

log = logging.getLogger("local_engine")

_WIDEST_HEAD = 128
_HANDLED = ("rope_factors",)  # flags of a model that may have any value: they are in the rotary table


@dataclass(frozen=True, slots=True)
class Piece:
    """What a step computes of one request: `tokens` from position `start` on, whose blocks are `table`."""

    tokens: Sequence[int]
    start: int
    table: Sequence[int]


class NativeStep:
    """A decoder and its pool behind one call. Keeps what the kernel points to alive."""

    def __init__(self, decoder: Decoder, pool: KVPool, library: Library) -> None:
        self._library, self._decoder, self._pool = library, decoder, pool
        self._config = decoder.config
        self._kept: list[object] = []
        layers = [_pack_layer(layer, library, self._kept) for layer in decoder.layers]
        output = _packed(decoder.output, library, self._kept)
        setattr(decoder, "output", output)  # noqa: B010  (declared as the layer it was)
        each_layer = (LayerParts * len(layers))(*layers)
        self._kept.append(each_layer)
        config = self._config
        parts = ModelParts(
            layers=config.layers, hidden=config.hidden_size, inner=config.intermediate_size, heads=config.heads,
            kv_heads=config.kv_heads, head_dim=config.head_dim, block_size=pool.block_size, tiles=library.tiles,
            slots=pool.blocks * pool.block_size, eps=config.norm_eps, embeddings=decoder.embeddings.data_ptr(),
            cos=decoder.rotary.cos.data_ptr(), sin=decoder.rotary.sin.data_ptr(),
            norm=_wide(decoder.norm, self._kept), output=output.matrix,
            each_layer=ctypes.cast(each_layer, ctypes.POINTER(LayerParts)), pool=pool.tensor.data_ptr(),
        )  # fmt: skip
        self._model = library.make_model(parts)
        weakref.finalize(self, library.free_model, self._model)

    def run(
        self, pieces: Sequence[Piece], wanted: Sequence[int], taps: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Compute the pieces end to end; keys and values go to the pool.

        Returns logits [len(wanted), vocab] float32 of those rows, the streams behind the layers `taps` (ascending)
        side by side, bfloat16 [rows, len(taps) * hidden], and the place of each wanted row's largest logit, the first of
        equals, -1 where the row is not all finite.
        """
        tokens, first_row, start, offsets, tables = (array("i") for _ in range(5))
        for piece in pieces:
            first_row.append(len(tokens))
            start.append(piece.start)
            offsets.append(len(tables))
            tokens.extend(piece.tokens)
            tables.extend(piece.table)
        first_row.append(len(tokens))
        wanted_rows, tapped_layers = array("i", wanted), array("i", taps)
        rows, hidden = len(tokens), self._config.hidden_size
        stream = torch.empty(rows, hidden)
        tapped = torch.empty(rows, len(taps) * hidden, dtype=torch.bfloat16)
        logits = torch.empty(len(wanted), self._config.vocab_size)
        likeliest = array("i", bytes(4 * len(wanted)))
        self._library.step(self._model, StepParts(
            rows=rows, requests=len(pieces), wanted=len(wanted), taps=len(taps), threads=torch.get_num_threads(),
            tokens=_address(tokens), first_row=_address(first_row), start=_address(start),
            table_offset=_address(offsets), tables=_address(tables), wanted_rows=_address(wanted_rows),
            tapped_layers=_address(tapped_layers),
            stream=stream.data_ptr(), tapped=tapped.data_ptr(), logits=logits.data_ptr(),
            likeliest=_address(likeliest),
        ))  # fmt: skip
        return logits, tapped, likeliest.tolist()


def load_native(decoder: Decoder, pool: KVPool) -> NativeStep | None:
    """The fast path for this decoder on this machine; None, and a line in the log, where there is none."""
    try:
        check_model(decoder, pool)
        native = NativeStep(decoder, pool, open_library())
    except (NoKernel, MemoryError) as reason:  # what is packed already can still be called through torch
        log.info("steps are computed by torch: %s", reason)
        return None
    log.info("steps are computed by the native CPU kernel, %s AMX", "with" if native._library.tiles else "without")
    return native


def has_native(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a model of this shape has the fast path on this machine, with a cache of its own `dtype`."""
    try:
        check_shape(config)
        _check_tensor("weights", device, dtype)
        open_library()
    except NoKernel:
        return False
    return True


def check_model(decoder: Decoder, pool: KVPool) -> None:
    """Raise NoKernel for a model that the kernel cannot compute."""
    _check_tensor("weights", decoder.embeddings.device, decoder.embeddings.dtype)
    _check_tensor("cache", pool.tensor.device, pool.tensor.dtype)
    check_shape(decoder.config)
    for module in (decoder.output, *(part for layer in decoder.layers for part in _linears(layer))):
        if not isinstance(module, PackedLinear) and not can_pack(module):
            raise NoKernel(f"the kernel knows no weights of the kind {type(module).__name__}")


def _check_tensor(what: str, device: torch.device, dtype: torch.dtype) -> None:
    if device.type != "cpu":
        raise NoKernel(f"the model is on {device.type!r}")
    if dtype != torch.bfloat16:
        raise NoKernel(f"the kernel wants bfloat16 {what}, these are {str(dtype).removeprefix('torch.')}")


def check_shape(config: ModelConfig) -> None:
    """Raise NoKernel for a model with parts that the kernel does not know."""
    for flag in fields(ModelConfig):
        value = getattr(config, flag.name)
        if flag.default is not MISSING and flag.name not in _HANDLED and value != flag.default:
            raise NoKernel(f"the kernel knows no models with {flag.name} = {value!r}")
    if config.head_dim > _WIDEST_HEAD:
        raise NoKernel(f"heads of {config.head_dim} elements are wider than {_WIDEST_HEAD}")


def _linears(layer: nn.Module) -> tuple[nn.Module, ...]:
    assert isinstance(layer, DecoderLayer)
    return layer.qkv, layer.attention_out, layer.gate_up, layer.down


def _pack_layer(layer: nn.Module, library: Library, kept: list[object]) -> LayerParts:
    assert isinstance(layer, DecoderLayer)
    packed = {
        name: _packed(getattr(layer, name), library, kept, parts=2 if name == "gate_up" else 1)
        for name in ("qkv", "attention_out", "gate_up", "down")
    }
    for name, module in packed.items():
        setattr(layer, name, module)
    return LayerParts(
        *(module.matrix for module in packed.values()),
        _wide(layer.attention_norm, kept),
        _wide(layer.feed_forward_norm, kept),
    )


def _packed(linear: nn.Module, library: Library, kept: list[object], parts: int = 1) -> PackedLinear:
    """Packed now, or before for another pool."""
    packed = linear if isinstance(linear, PackedLinear) else pack(library, linear, parts)
    kept.append(packed)  # whoever puts another module in its place must not free what the kernel reads
    return packed


def _wide(norm: nn.Module, kept: list[object]) -> int:
    """The address of a norm's weight in float32."""
    weight = norm.weight
    assert isinstance(weight, Tensor)
    wide = weight.float().contiguous()
    kept.append(wide)
    return wide.data_ptr()


def _address(values: array[int]) -> int:
    return values.buffer_info()[0]
