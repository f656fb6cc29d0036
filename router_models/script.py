"""How much of a text is written in another script than Latin, which the training data do not hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A text with a larger share of such letters is unlike all training prompts: what these hold, in formulas, stays below .18.
MOST_OTHER_SCRIPT = 0.2

_LATIN, _GREEK, _OTHER = 1, 2, 3
# First and last code points of the Greek alphabet, and of all later scripts but Latin. Marks count as letters, because in many
# scripts they are the vowels; signs, symbols of mathematics and emoji are left out.
_GREEK_BLOCKS = ((0x370, 0x3FF), (0x1F00, 0x1FFF))
_OTHER_BLOCKS = (
    (0x400, 0x1CFF), (0x2C00, 0x2C5F), (0x2C80, 0x2DFF), (0x2E80, 0x2FFF), (0x3005, 0x3007), (0x3031, 0xA6FF),
    (0xA800, 0xAB2F), (0xAB70, 0xD7FF), (0xF900, 0xFAFF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFC), (0xFF66, 0xFFDC),
)  # fmt: skip
# Beyond the first 65,536 code points, in parts of 4,096: old and rare scripts, and Chinese characters.
_OTHER_PARTS = (*range(0x10, 0x1D), 0x1E, *range(0x20, 0x40))


def _kinds() -> NDArray[np.uint8]:
    """The kind of each of the first 65,536 code points, then that of each part beyond."""
    kinds = np.zeros(0x10000 + 0x110, dtype=np.uint8)
    for code in (*range(0x370), *range(0x1E00, 0x1F00), *range(0xFF21, 0xFF5B)):
        kinds[code] = _LATIN * chr(code).isalpha()
    for blocks, kind in ((_GREEK_BLOCKS, _GREEK), (_OTHER_BLOCKS, _OTHER)):
        for first, last in blocks:
            kinds[first : last + 1] = kind
    kinds[[0x10000 + part for part in _OTHER_PARTS]] = _OTHER
    return kinds


_KIND = _kinds()


def share_in_other_scripts(text: str) -> float:
    """Share, 0..1, of a text's letters that are not Latin; 0 for a text without letters.

    A Greek letter that has no other beside it is a symbol of mathematics and counts as none.
    """
    if text.isascii():
        return 0.0
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    if int(np.maximum.reduce(codes)) > 0xFFFF:
        codes = np.where(codes > 0xFFFF, 0x10000 + (codes >> 12), codes)
    kinds = _KIND.take(codes)
    latin, greek, other = np.bincount(kinds, minlength=4)[1:].tolist()
    if greek:
        is_greek = np.concatenate(((False,), kinds == _GREEK, (False,)))
        other += int(np.count_nonzero(is_greek[1:-1] & (is_greek[:-2] | is_greek[2:])))
    return float(other / (other + latin)) if other else 0.0
