"""Features packed for keeping: 0.4 kB that score a prompt again under any artifact of the same features, without its text.

Shape is kept in 16 bits, meaning in 8 bits with one scale, and of the words the numbers of the RAREST: whether an artifact has
seen a word matters only for rare ones. This is not anonymous: who holds the artifact can name those words, which of a short
prompt are all that it knows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models import embedder
from router_models.artifact import features_of
from router_models.errors import KeptFeaturesError
from router_models.features import Features, Floats, Ints
from router_models.request import RequestText

FORMAT = 1
RAREST = 20
"""Of the distinct words, the numbers of how many are kept. With 24 the share of unseen words is off by .001 on average."""
MOST = 65_535
_HEAD = struct.Struct("<BBHHHHfB")
# Likeness is a power of one half or 0, so eighths hold all of its values.
EIGHTHS = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """Features of N prompts as they were kept.

    `shape` (N, S) and `meaning` (N, D) are float32; `rarest` (N, RAREST) holds numbers of words, -1 where there are fewer;
    `whole` (N,) counts the known distinct words, `named` (N,) those of letters, `words` (N,) all words and marks.
    `likeness` (N,) is Features.likeness.
    """

    shape: Floats
    meaning: Floats
    rarest: Ints
    whole: Ints
    named: Ints
    words: Ints
    likeness: Floats

    def __len__(self) -> int:
        return int(self.whole.size)

    def features(self, row: int) -> Features:
        """One prompt as the router takes it; its words are not known, and of `whole` only the rarest."""
        known = self.rarest[row]
        return Features(
            self.shape[row],
            self.meaning[row],
            [""] * int(self.words[row]),
            known[known >= 0],
            int(self.named[row]),
            float(self.likeness[row]),
        )


class Packer:
    """What the gateway packs with; `fingerprint` names the features that this release computes."""

    def __init__(self) -> None:
        self.fingerprint = fingerprint()

    def pack(self, features: Features) -> bytes:
        """See `pack`."""
        return pack(features)

    def text(self, messages: Sequence[Any]) -> str:
        """The text that the router reads of a conversation, at most about 6,000 characters."""
        return RequestText.from_messages(messages).text


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Of the features that this release computes with the bundled embedder."""
    return features_of(embedder.load())


def pack(features: Features) -> bytes:
    """The features of one prompt; a few microseconds."""
    shape, meaning, whole = features.shape, features.meaning, features.whole
    top = float(np.maximum.reduce(np.abs(meaning))) if meaning.size else 0.0
    head = _HEAD.pack(
        FORMAT,
        shape.size,
        meaning.size,
        min(whole.size, MOST),
        min(features.named, MOST),
        min(len(features.words), MOST),
        top,
        round(features.likeness * EIGHTHS),
    )
    small = np.rint(meaning * np.float32(127.0 / top)) if top > 0.0 else meaning
    # The vocabulary is sorted by how frequent its words are, so the rarest have the highest numbers.
    rarest = np.sort(whole)[-RAREST:]
    return b"".join((
        head,
        shape.astype(np.float16).tobytes(),
        small.astype(np.int8).tobytes(),
        rarest.astype(np.uint16).tobytes(),
    ))  # fmt: skip


def unpack(packed: bytes, kept_fingerprint: str) -> Features:
    """The features of one prompt. Raises KeptFeaturesError when they are damaged or are not those of this release."""
    return unpack_many([packed], kept_fingerprint).features(0)


def unpack_many(packed: Sequence[bytes], kept_fingerprint: str) -> Kept:
    """The features of many prompts of one fingerprint. Raises KeptFeaturesError as `unpack` does."""
    if kept_fingerprint != fingerprint():
        raise KeptFeaturesError(
            f"features {kept_fingerprint!r} were kept by another release; this one computes {fingerprint()!r} and cannot "
            "compare them. Only what was kept since the upgrade can be used, or prompts, where the policy kept those."
        )
    if not packed:
        none, no_numbers = np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
        return Kept(none, none, np.zeros((0, RAREST), np.int64), *(no_numbers,) * 3, np.zeros(0, np.float32))
    form, shapes, dimensions = struct.unpack_from("<BBH", packed[0]) if len(packed[0]) >= 4 else (0, 0, 0)
    row = np.dtype([
        ("form", "u1"), ("shapes", "u1"), ("dimensions", "<u2"), ("whole", "<u2"), ("named", "<u2"), ("words", "<u2"),
        ("top", "<f4"), ("likeness", "u1"), ("shape", "<f2", (shapes,)), ("meaning", "i1", (dimensions,)),
        ("rarest", "<u2", (RAREST,)),
    ])  # fmt: skip
    least, most = row.itemsize - 2 * RAREST, row.itemsize
    if form != FORMAT or not all(least <= len(each) <= most for each in packed):
        raise KeptFeaturesError(
            "kept features are damaged or were kept in another format; their scores can still be used"
        )
    rows = np.frombuffer(b"".join([each.ljust(most, b"\0") for each in packed]), row)
    if not (np.all(rows["form"] == FORMAT) and np.all(rows["shapes"] == shapes)):
        raise KeptFeaturesError(
            "kept features are damaged or were kept in another format; their scores can still be used"
        )
    count = np.array([(len(each) - least) // 2 for each in packed])
    meaning = rows["meaning"].astype(np.float32) * (rows["top"] / np.float32(127.0))[:, None]
    length = np.sqrt(np.vecdot(meaning, meaning))[:, None]
    rarest = np.where(np.arange(RAREST) < count[:, None], rows["rarest"].astype(np.int64), -1)
    whole, named, words = (rows[name].astype(np.int64) for name in ("whole", "named", "words"))
    return Kept(
        rows["shape"].astype(np.float32),
        meaning / np.maximum(length, np.float32(1e-6)),
        rarest,
        whole,
        named,
        words,
        rows["likeness"].astype(np.float32) / np.float32(EIGHTHS),
    )


def unseen_shares(kept: Kept, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of each prompt's words that an artifact has not seen (N,); words that were not kept are frequent, so seen."""
    found = seen[np.maximum(kept.rarest, 0)] | (kept.rarest < 0)
    unseen = kept.named - kept.whole + np.count_nonzero(~found, axis=1)
    shares: NDArray[np.float64] = np.where(kept.named > 0, unseen / np.maximum(kept.named, 1), 0.0)
    return shares
