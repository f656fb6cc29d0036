"""Finds the trained drafter that goes with a model: the file the user names, or one of those that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from local_engine.errors import DraftModelUnfit
from local_engine.models.decoder import Decoder
from local_engine.speculative.head_model import DraftHead, load_head

SHIPPED = Path(__file__).parent.parent / "drafters"


def find_head(decoder: Decoder, named: Path | None = None) -> DraftHead | None:
    """The head in the file `named`, or the shipped one of this very target, or None.

    Raises CorruptModelFile, and DraftModelUnfit when the named file was trained for another target.
    """
    if named is not None:
        return load_head(named, decoder)
    for path in shipped_heads():
        try:
            return load_head(path, decoder)
        except DraftModelUnfit:
            continue
    return None


def shipped_heads() -> Sequence[Path]:
    """Files of the drafters that come with the package."""
    return sorted(SHIPPED.glob("*.safetensors"))
