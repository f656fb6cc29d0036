"""A draft head behind one call of the native CPU kernel: on a small model calling torch takes longer than the arithmetic."""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from local_engine.kernels.cpu.library import HeadParts, Library
from local_engine.kernels.cpu.packed_linear import PackedLinear
from local_engine.speculative.head_model import DraftHead, GatedBlock


class NativeHead:
    """Chains of most likely tokens. Keeps what the kernel points to alive."""

    def __init__(self, head: DraftHead, library: Library, matrices: dict[str, int]) -> None:
        self._library, self._head = library, head
        block = head.blocks[0]
        assert isinstance(block, GatedBlock)
        norms = {
            "fuse_norm": head.fuse_norm[0], "token_norm": head.token_norm, "state_norm": head.state_norm,
            "block_norm": block.norm, "norm": head.norm,
        }  # fmt: skip
        wide = {name: norm.get_parameter("weight").float().contiguous() for name, norm in norms.items()}
        with torch.inference_mode():
            parts = head.drafted_parts().contiguous()
        self._kept = (wide, parts)
        self._vocabulary: list[int] = head.vocabulary.tolist()
        self._native = library.make_head(HeadParts(
            hidden=head.config.hidden, width=head.config.width, drafted=len(self._vocabulary), tiles=library.tiles,
            eps=head.config.norm_eps, embeddings=head.embeddings.data_ptr(), parts=parts.data_ptr(), **matrices,
            **{name: weight.data_ptr() for name, weight in wide.items()},
        ))  # fmt: skip
        weakref.finalize(self, library.free_head, self._native)

    def draft(
        self, streams: Tensor, newest: Sequence[int], depth: int, least: float = 0.0
    ) -> list[tuple[list[int], list[float]]]:
        """Up to `depth` token ids behind each of the `newest` tokens [n], and the chance the head gives each of them.

        `streams` [n, hidden] are those of the steps that gave the newest tokens. A chain ends behind the token with which
        the chance of all of it falls below `least`.
        """
        rows = streams.to(torch.bfloat16).contiguous()
        empty = bytes(4 * len(newest) * depth)
        tokens, places, chances = array("i", newest), array("i", empty), array("f", empty)
        self._library.draft(
            self._native, rows.data_ptr(), tokens.buffer_info()[0], places.buffer_info()[0], chances.buffer_info()[0],
            len(newest), depth, torch.get_num_threads(), least,
        )  # fmt: skip
        chains = []
        for first in range(0, len(places), depth):
            sure = [chance for chance in chances[first : first + depth] if chance]
            chains.append(([self._vocabulary[place] for place in places[first : first + len(sure)]], sure))
        return chains


def native_head(head: DraftHead) -> NativeHead | None:
    """The fast path of a head that `make_fast` has packed; None for others, and for shapes that the kernel does not know."""
    if len(head.config.taps) != 1 or head.config.blocks != 1 or head.embeddings.dtype != torch.bfloat16:
        return None
    block = head.blocks[0]
    found = {
        "fuse": head.fuse, "token_in": head.token_in, "state_in": head.state_in, "output": head.output,
        "gate_up": block.get_submodule("gate_up"), "down": block.get_submodule("down"),
    }  # fmt: skip
    packed = {name: module for name, module in found.items() if isinstance(module, PackedLinear)}
    if len(packed) < len(found):
        return None
    library = packed["fuse"].library
    try:
        return NativeHead(head, library, {name: module.matrix for name, module in packed.items()})
    except MemoryError:
        return None
