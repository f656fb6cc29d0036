"""Turns text into numbers, by the same code in training and in serving; FINGERPRINT refuses artifacts of other code.

Two kinds of features: `shape`, NAMES of counts, shares and marks that say what kind of request it is (how long the question is
without its options, how many numbers, does it ask to calculate, how rare are its words), and `meaning`, the embedder's vector.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_models.embedder import Embedder
from router_models.request import RequestText
from router_models.wordpiece import words_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Part of FINGERPRINT: raise it whenever the meaning of any feature changes.
FEATURES_VERSION = 3
# Of words, for reading marks and tokens; a text of READ_CHARACTERS has about half as many.
MOST_WORDS = 4_000

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
_FIRST_OPTIONS = (b"\nA.", b"\nA)", b"\n(A)")

# Words that mark what is asked; a text has the mark when it holds any of them.
MARKS: dict[str, frozenset[str]] = {
    "negation": frozenset({"not", "except", "least", "false", "incorrect", "never"}),
    "calculation": frozenset({"calculate", "find", "compute", "determine", "estimate", "solve", "evaluate"}),
    "reason": frozenset({"why", "because", "explain"}),
    "person_or_time": frozenset({"who", "when", "where"}),
    "following": frozenset({"following"}),
    "which": frozenset({"which"}),
    "what": frozenset({"what"}),
    "amount": frozenset({"many", "much"}),
    "proof": frozenset({"prove", "derive", "proof"}),
    "writing": frozenset({"write", "create", "compose", "generate", "function"}),
    "you": frozenset({"you"}),
    "condition": frozenset({"if"}),
    "statements": frozenset({"ii", "iii"}),
}
_MARKED = {word: place for place, words in enumerate(MARKS.values()) for word in words}

# The first two are CORE: they keep their sign in nearly every domain, so they act also far from the training data.
NAMES = (
    "log_question_characters",
    "log_question_numbers",
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
    "log_options",
    "log_option_characters",
    "question_before_options",
    "trails_off",
    "share_names",
    "log_sentences",
    "share_commas",
    "share_decimals",
    "share_distinct_words",
    "rarity",
    "rarity_spread",
    "share_pieces",
    *MARKS,
)
CORE = 2


@dataclass(frozen=True, slots=True)
class Features:
    """One text as numbers.

    `shape` follows NAMES; `meaning` (D,) is the embedder's vector, length 1 or 0. `words` are the distinct words and marks
    in reading order, `whole` the numbers of the words of letters that are tokens by themselves, `named` how many words of
    letters there are.
    """

    shape: Floats
    meaning: Floats
    words: list[str]
    whole: Ints
    named: int


def extract(request: RequestText, embedder: Embedder) -> Features:
    """All features of one request; any text is accepted, also an empty one."""
    every = words_of(request.text)[:MOST_WORDS]
    words = dict.fromkeys(every)
    numbers = list(map(embedder.pieces.whole, words))
    missing = [word for word, number in zip(words, numbers, strict=True) if number is None]
    known = np.array([number for number in numbers if number is not None], dtype=np.int64)
    whole = known[embedder.is_word[known]]
    odd = sum(map(str.isalpha, missing))
    named = max(whole.size + odd, 1)
    rarity = embedder.rarity[whole]
    # A word that the vocabulary lacks is rarer than any that it has.
    mean = (float(rarity.sum()) + odd * embedder.rarest) / named
    square = (float(rarity @ rarity) + odd * embedder.rarest**2) / named
    marks = [0.0] * len(MARKS)
    for word, place in _MARKED.items():
        if word in words:
            marks[place] = 1.0
    values = (
        *_counted(request),
        len(words) / max(len(every), 1),
        mean,
        math.sqrt(max(square - mean * mean, 0.0)),
        odd / named,
        *marks,
    )
    tokens = known
    if missing:
        pieces = np.array(embedder.pieces.numbers(missing), dtype=np.int64)
        tokens = np.unique(np.concatenate((known, pieces)))
    return Features(
        np.array(values, dtype=np.float32), embedder.meaning(request.text, tokens), list(words), whole, whole.size + odd
    )


def _counted(request: RequestText) -> tuple[float, ...]:
    """The features that are counted on bytes, in the order of NAMES."""
    text = request.text.encode("utf-8", "replace")
    raw = np.frombuffer(text, dtype=np.uint8)
    classes = _CLASSES[raw]
    kinds = np.bincount(classes, minlength=13).tolist()
    size = max(raw.size, 1)
    starts, ends = _word_spans(raw)
    count = int(starts.size)
    lengths = ends - starts
    first = classes[starts]
    cut = min((place for mark in _FIRST_OPTIONS if (place := text.find(mark)) >= 0), default=len(text))
    question = text[:cut].rstrip()
    options = _options(raw[cut:]) if cut < raw.size else 0
    log = math.log1p
    # Of a cut text the length before the cut counts, so that a huge prompt is a long one.
    missing = request.characters - len(request.text)
    return (
        log(max(cut + missing, 0)),
        log(int(np.count_nonzero(first[: np.searchsorted(starts, cut)] == _DIGIT))),
        log(request.characters),
        log(count),
        int(lengths.sum()) / max(count, 1),
        log(kinds[_NEWLINE]),
        log(kinds[_QUESTION]),
        float(text.rstrip().endswith(b"?")),
        kinds[_DIGIT] / size,
        log(kinds[_DIGIT]),
        kinds[_MATH] / size,
        log(kinds[_MATH]),
        kinds[_LATEX] / size,
        log(kinds[_LATEX]),
        kinds[_CODE] / size,
        kinds[_UPPER] / size,
        kinds[_PUNCTUATION] / size,
        kinds[_QUOTE] / size,
        kinds[_HIGH] / size,
        int(np.count_nonzero(lengths > 7)) / max(count, 1),
        log(options),
        log((len(text) - cut) / options) if options else 0.0,
        float(question.endswith(b"?")),
        float(question.endswith((b".", b":", b"_"))),
        _names(raw, starts, first) / max(count, 1) if kinds[_UPPER] else 0.0,
        log(question.count(b". ") + question.count(b"? ") + question.count(b".\n") + 1),
        question.count(b",") / max(count, 1),
        _decimals(raw, classes) / max(count, 1) if kinds[_DIGIT] else 0.0,
    )


def _word_spans(raw: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    inside = np.zeros(raw.size + 2, dtype=np.int8)
    inside[1:-1] = _IS_WORD[raw]
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[0::2], edges[1::2]


def _options(raw: NDArray[np.uint8]) -> int:
    """Number of lines that begin like a multiple-choice option: a capital A to P, then a full stop or bracket."""
    lines = np.flatnonzero(raw[:-2] == 10)
    letter, mark = raw[lines + 1], raw[lines + 2]
    return int(np.count_nonzero((letter >= 65) & (letter <= 80) & ((mark == 46) | (mark == 41))))


def _names(raw: NDArray[np.uint8], starts: Ints, first: NDArray[np.uint8]) -> int:
    """Words that begin with a capital inside a sentence: after a lower-case letter or comma, and a space."""
    places = starts[(first == _UPPER) & (starts >= 2)]
    before = _CLASSES[raw[places - 2]]
    return int(np.count_nonzero((raw[places - 1] == 32) & ((before == _LOWER) | (raw[places - 2] == 44))))


def _decimals(raw: NDArray[np.uint8], classes: NDArray[np.uint8]) -> int:
    points = np.flatnonzero(raw[1:-1] == 46)
    return int(np.count_nonzero((classes[points] == _DIGIT) & (classes[points + 2] == _DIGIT)))


_PROBES = (
    "",
    "What is 2+2?",
    "Prove that $\\sqrt{2}$ is irrational.\nA. yes\nB) no\n\nÜber naïve 東京 12,345.6 words of New York?",
    "def f(x):\n    return {'a': [x ** 2 for x in range(10)]}  # \u0000\x07\ud800",
)


def fingerprint(embedder: Embedder) -> str:
    """Checksum of what the code above computes on fixed probes with this embedder; a change of any feature changes it."""
    digest = hashlib.sha256(f"{FEATURES_VERSION} {embedder.version} {' '.join(NAMES)}".encode())
    for probe in _PROBES:
        found = extract(RequestText.from_prompt(probe), embedder)
        # Rounded: the last bits may differ between C libraries and processors.
        digest.update((np.round(found.shape.astype(np.float64), 3) + 0.0).astype("<f8").tobytes())
        digest.update(found.whole.astype("<i8").tobytes())
        digest.update(" ".join(found.words).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]
