"""Finds the trained drafter that goes with a model: the file the user names, or one of those that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from local_engine.config import CpuKernel
from local_engine.errors import DraftModelUnfit
from local_engine.models.decoder import Decoder
from local_engine.speculative.head_model import DraftHead, load_head, make_fast

SHIPPED = Path(__file__).parent.parent / "drafters"


def find_head(decoder: Decoder, named: Path | None = None, cpu_kernel: CpuKernel = "auto") -> DraftHead | None:
    """The head, made fast, in the file `named`, or the shipped one of this very target, or None.

    Raises CorruptModelFile, and DraftModelUnfit when the named file was trained for another target.
    """
    if named is not None:
        return make_fast(load_head(named, decoder), cpu_kernel)
    for path in shipped_heads():
        try:
            return make_fast(load_head(path, decoder), cpu_kernel)
        except DraftModelUnfit:
            continue
    return None


def shipped_heads() -> Sequence[Path]:
    """Files of the drafters that come with the package."""
    return sorted(SHIPPED.glob("*.safetensors"))
