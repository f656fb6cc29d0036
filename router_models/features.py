"""Turns text into numbers, by the same code in training and in serving; FINGERPRINT refuses artifacts of other code.

Two kinds of features, both from the UTF-8 bytes of the bounded text, so no Unicode table can change them:

- hashed: words and pairs of neighbouring words (letters lower-cased, every digit read as 0), each put into one of
  BUCKETS places by a polynomial hash modulo 2**64. A word's hash is a difference of two prefix sums, so all
  words of a text are hashed by a dozen numpy calls instead of a Python loop.
- dense: DENSE_NAMES, counts and shares on a log or 0..1 scale.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.request import RequestText

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

# Part of FINGERPRINT: raise it whenever the meaning of any feature changes.
FEATURES_VERSION = 1
BUCKET_BITS = 15
BUCKETS = 1 << BUCKET_BITS
SEEN_BITS = 19

_MASK = (1 << 64) - 1
_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_PAIR_LEFT = np.uint64(0xA0761D6478BD642F)
_PAIR_RIGHT = np.uint64(0xE7037ED1A0B428DB)
_SHIFT = np.uint64(32)


def _powers(base: int, count: int) -> Hashes:
    values, value = [], 1
    for _ in range(count):
        values.append(value)
        value = value * base & _MASK
    return np.array(values, dtype=np.uint64)


# Enough for READ_CHARACTERS of four bytes each and the joining newlines.
_MAX_BYTES = 24_064
_POWERS = _powers(_BASE, _MAX_BYTES)
_INVERSE_POWERS = _powers(_INVERSE, _MAX_BYTES)

# Classes of bytes, counted by one bincount. Bytes from 128 up belong to letters of other scripts.
_OTHER, _LOWER, _UPPER, _DIGIT, _SPACE, _NEWLINE, _PUNCTUATION = range(7)
_MATH, _LATEX, _CODE, _QUESTION, _QUOTE, _HIGH = range(7, 13)


def _byte_classes() -> NDArray[np.uint8]:
    table = np.full(256, _OTHER, dtype=np.uint8)
    groups = (
        (_LOWER, b"abcdefghijklmnopqrstuvwxyz"),
        (_UPPER, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (_DIGIT, b"0123456789"),
        (_SPACE, b" \t"),
        (_NEWLINE, b"\n\r"),
        (_PUNCTUATION, b".,;:!-"),
        (_MATH, b"+*/=<>^%|~"),
        (_LATEX, b"\\$"),
        (_CODE, b"{}[]()_#@&`"),
        (_QUESTION, b"?"),
        (_QUOTE, b"\"'"),
    )
    for number, members in groups:
        table[list(members)] = number
    table[128:] = _HIGH
    return table


_CLASSES = _byte_classes()
_IS_WORD = np.isin(_CLASSES, (_LOWER, _UPPER, _DIGIT, _HIGH))


def _folded() -> Hashes:
    table = np.arange(1, 257, dtype=np.uint64)
    table[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")] = table[list(b"abcdefghijklmnopqrstuvwxyz")]
    table[list(b"0123456789")] = table[ord("0")]
    return table


_FOLDED = _folded()

DENSE_NAMES = (
    "log_characters",
    "log_words",
    "mean_word_length",
    "log_lines",
    "log_questions",
    "question_at_end",
    "share_digits",
    "log_digits",
    "share_maths",
    "log_maths",
    "share_latex",
    "log_latex",
    "share_code",
    "share_capitals",
    "share_punctuation",
    "share_quotes",
    "share_other_scripts",
    "share_long_words",
    "log_numbers",
    "log_options",
    "share_distinct_words",
)


@dataclass(frozen=True, slots=True)
class Features:
    """One text as numbers.

    `buckets` (int64, ascending, distinct) and `counts` (float32) are the hashed words and pairs; `words` are the raw
    64-bit hashes of the words in reading order (for "was this word ever seen"); `dense` follows DENSE_NAMES.
    """

    buckets: Ints
    counts: Floats
    words: Hashes
    dense: Floats


def extract(request: RequestText) -> Features:
    """All features of one request; any text is accepted, also an empty one."""
    raw = np.frombuffer(request.text.encode("utf-8", "replace")[:_MAX_BYTES], dtype=np.uint8)
    starts, ends = _word_spans(raw)
    words = _word_hashes(raw, starts, ends)
    pairs = words[:-1] * _PAIR_LEFT + words[1:] * _PAIR_RIGHT
    buckets, counts = np.unique(_bucket(np.concatenate((words, pairs))), return_counts=True)
    dense = _dense(request, raw, starts, ends, words)
    return Features(buckets, counts.astype(np.float32), words, dense)


def word_places(words: Hashes) -> Ints:
    """Places of words in the table of seen words, 0 <= place < 2**SEEN_BITS."""
    return (_mixed(words) >> np.uint64(64 - SEEN_BITS)).astype(np.int64)


def _word_spans(raw: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    inside = np.zeros(raw.size + 2, dtype=np.int8)
    inside[1:-1] = _IS_WORD[raw]
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[0::2], edges[1::2]


def _word_hashes(raw: NDArray[np.uint8], starts: Ints, ends: Ints) -> Hashes:
    sums = np.zeros(raw.size + 1, dtype=np.uint64)
    np.cumsum(_FOLDED[raw] * _POWERS[: raw.size], out=sums[1:])
    return (sums[ends] - sums[starts]) * _INVERSE_POWERS[starts]


def _mixed(hashes: Hashes) -> Hashes:
    mixed = (hashes ^ (hashes >> _SHIFT)) * _MIX
    return mixed ^ (mixed >> _SHIFT)


def _bucket(hashes: Hashes) -> Ints:
    return (_mixed(hashes) * _MIX >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)


def _dense(request: RequestText, raw: NDArray[np.uint8], starts: Ints, ends: Ints, words: Hashes) -> Floats:
    kinds = np.bincount(_CLASSES[raw], minlength=13).tolist()
    size = max(raw.size, 1)
    count = starts.size
    lengths = ends - starts
    first = raw[starts] if count else raw[:0]
    text = request.text.rstrip()
    values = (
        np.log1p(request.characters),
        np.log1p(count),
        float(lengths.mean()) if count else 0.0,
        np.log1p(kinds[_NEWLINE]),
        np.log1p(kinds[_QUESTION]),
        float(text.endswith("?")),
        kinds[_DIGIT] / size,
        np.log1p(kinds[_DIGIT]),
        kinds[_MATH] / size,
        np.log1p(kinds[_MATH]),
        kinds[_LATEX] / size,
        np.log1p(kinds[_LATEX]),
        kinds[_CODE] / size,
        kinds[_UPPER] / size,
        kinds[_PUNCTUATION] / size,
        kinds[_QUOTE] / size,
        kinds[_HIGH] / size,
        np.count_nonzero(lengths > 7) / max(count, 1),
        np.log1p(np.count_nonzero((first >= 48) & (first <= 57))),
        np.log1p(_options(raw)),
        len(set(words.tolist())) / max(count, 1),
    )
    return np.array(values, dtype=np.float32)


def _options(raw: NDArray[np.uint8]) -> int:
    """Number of lines that begin like a multiple-choice option: a capital A to P, then a full stop or bracket."""
    lines = np.flatnonzero(raw[:-2] == 10)
    letter, mark = raw[lines + 1], raw[lines + 2]
    return int(np.count_nonzero((letter >= 65) & (letter <= 80) & ((mark == 46) | (mark == 41))))


_PROBES = (
    "",
    "What is 2+2?",
    "Prove that $\\sqrt{2}$ is irrational.\nA. yes\nB) no\n\nÜber naïve 東京 12,345 words?",
    "def f(x):\n    return {'a': [x ** 2 for x in range(10)]}  # \u0000\x07\ud800",
)


def fingerprint() -> str:
    """Checksum of what the code above computes on fixed probes; a change of any feature changes it."""
    digest = hashlib.sha256(f"{FEATURES_VERSION} {BUCKET_BITS} {SEEN_BITS} {' '.join(DENSE_NAMES)}".encode())
    for probe in _PROBES:
        found = extract(RequestText.from_prompt(probe))
        digest.update(found.buckets.astype("<i8").tobytes())
        digest.update(found.counts.astype("<f4").tobytes())
        digest.update(word_places(found.words).astype("<i8").tobytes())
        # Rounded: the last bit of a logarithm may differ between C libraries.
        digest.update(np.round(found.dense.astype(np.float64), 4).astype("<f8").tobytes())
    return digest.hexdigest()[:16]


FINGERPRINT = fingerprint()
