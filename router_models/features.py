"""Turns text into numbers, by the same code in training and in serving; FINGERPRINT refuses artifacts of other code.

Two kinds of features: `shape`, NAMES of counts, shares and marks that say what kind of request it is (how long the question is
without its options, how many numbers, does it ask to calculate, how rare are its words), and `meaning`, the embedder's vector.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models import request as reading
from router_models.embedder import Embedder
from router_models.request import RequestText
from router_models.script import share_in_other_scripts
from router_models.value import value
from router_models.wordpiece import read_words

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Part of FINGERPRINT: raise it whenever the meaning of any feature changes.
FEATURES_VERSION = 5

# Classes of bytes. Bytes from 128 up belong to letters of other scripts; what no group names is counted nowhere.
_GROUPS = (
    b"abcdefghijklmnopqrstuvwxyz",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"0123456789",
    b"\n\r",
    b".,;:!-",
    b"+*/=<>^%|~",
    b"\\$",
    b"{}[]()_#@&`",
    b"?",
    b"\"'",
    bytes(range(128, 256)),
)
_LOWER, _UPPER, _DIGIT, _HIGH = _GROUPS[0], _GROUPS[1], _GROUPS[2], _GROUPS[10]
_IN_GROUP: NDArray[np.float64] = np.array([[float(byte in group) for group in _GROUPS] for byte in range(256)])


def _drawn(**as_byte: bytes) -> bytes:
    """A table for bytes.translate that draws every member of a group as one byte and all others as a space."""
    table = bytearray(b" " * 256)
    for drawn, members in as_byte.items():
        for member in members:
            table[member] = ord(drawn)
    return bytes(table)


# Patterns are counted on a drawing of the text: counting in bytes takes a tenth of what arrays or regular expressions take.
_WORDS = _drawn(a=_LOWER + _UPPER + _HIGH, n=_DIGIT)
_LENGTHS = _drawn(a=_LOWER + _UPPER + _HIGH + _DIGIT)
_NAMES = bytes(
    ord("a")
    if code in _LOWER + b","
    else ord("A")
    if code in _UPPER
    else ord("n")
    if code in _DIGIT
    else code
    if code in b" ."
    else ord("x")
    for code in range(256)
)
_OPTIONS = bytes(
    ord("A") if code in _UPPER[:16] else ord(".") if code in b".)" else code if code == 10 else ord("x")
    for code in range(256)
)
_first_option = re.compile(rb"\n(?:A[.)]|\(A\))").search
_LONG_WORD = b"a" * 8

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
_MARK_WORDS = frozenset(_MARKED)

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


@value
class Features:
    """One text as numbers.

    `shape` follows NAMES; `meaning` (D,) is the embedder's vector, length 1 or 0. `words` are the distinct words, then the
    distinct marks, `whole` the numbers of the words of letters that are tokens by themselves, `named` how many words of
    letters there are. `likeness` is RequestText.likeness, `other_script` the share of letters that are not Latin, 0..1.
    """

    shape: Floats
    meaning: Floats
    words: list[str]
    whole: Ints
    named: int
    likeness: float = 1.0
    other_script: float = 0.0


def extract(request: RequestText, embedder: Embedder) -> Features:
    """All features of one request; any text is accepted, also an empty one."""
    found = read_words(request.text)
    words = dict.fromkeys(found.every)
    pieces = embedder.pieces
    known: list[Any] = list(map(pieces.whole, words))
    others = pieces.numbers(found.marks)
    odd = 0
    if None in known:
        missing = [word for word, number in zip(words, known, strict=True) if number is None]
        odd = sum(map(str.isalpha, missing))
        known = [number for number in known if number is not None]
        others += dict.fromkeys(pieces.numbers(missing))
    tokens = np.array(known + others, dtype=np.int64)
    seen = tokens[: len(known)]
    whole = seen[embedder.is_word.take(seen)]
    named = max(whole.size + odd, 1)
    rarity = embedder.rarity.take(whole)
    # A word that the vocabulary lacks is rarer than any that it has.
    mean = (float(np.add.reduce(rarity)) + odd * embedder.rarest) / named
    square = (float(rarity.dot(rarity)) + odd * embedder.rarest**2) / named
    marks = [0.0] * len(MARKS)
    for word in _MARK_WORDS.intersection(words):
        marks[_MARKED[word]] = 1.0
    distinct = [*words, *found.marks]
    values = (
        *_counted(request),
        len(distinct) / max(len(found.every) + found.marked, 1),
        mean,
        math.sqrt(max(square - mean * mean, 0.0)),
        odd / named,
        *marks,
    )
    shape = np.array(values, dtype=np.float32)
    meaning = embedder.meaning(request.text, tokens)
    other_script = share_in_other_scripts(request.text)
    return Features(shape, meaning, distinct, whole, whole.size + odd, request.likeness, other_script)


def _counted(request: RequestText) -> tuple[float, ...]:
    """The features that are counted on bytes, in the order of NAMES."""
    text = request.text.encode("utf-8", "replace")
    bytes_of = np.bincount(np.frombuffer(text, dtype=np.uint8), minlength=256)
    lower, upper, digits, lines, stops, maths, latex, code, questions, quotes, high = bytes_of.dot(_IN_GROUP).tolist()
    size = max(len(text), 1)
    words = (b" " + text).translate(_WORDS)
    numbers = words.count(b" n")
    count = numbers + words.count(b" a")
    most = max(count, 1)
    names = text.translate(_NAMES)
    first = _first_option(text)
    cut, options = len(text), 0
    if first is not None:
        cut = first.start()
        numbers = words[: cut + 1].count(b" n")
        options = text[cut:].translate(_OPTIONS).count(b"\nA.")
    question = text[:cut].rstrip()
    sentences = question.count(b". ") + 1
    if questions:
        sentences += question.count(b"? ")
    if lines:
        sentences += question.count(b".\n")
    log = math.log1p
    # Of a cut text the length before the cut counts, so that a huge prompt is a long one.
    missing = request.characters - len(request.text)
    return (
        log(max(cut + missing, 0)),
        log(numbers),
        log(request.characters),
        log(count),
        (lower + upper + digits + high) / most,
        log(lines),
        log(questions),
        float(text.rstrip().endswith(b"?")),
        digits / size,
        log(digits),
        maths / size,
        log(maths),
        latex / size,
        log(latex),
        code / size,
        upper / size,
        stops / size,
        quotes / size,
        high / size,
        text.translate(_LENGTHS).count(_LONG_WORD) / most,
        log(options),
        log((len(text) - cut) / options) if options else 0.0,
        float(question.endswith(b"?")),
        float(question.endswith((b".", b":", b"_"))),
        names.count(b"a A") / most,
        log(sentences),
        question.count(b",") / most,
        names.count(b"n.n") / most,
    )


_PROBES = (
    RequestText.from_prompt(""),
    RequestText.from_prompt("What is 2+2?"),
    RequestText.from_prompt(
        "Prove that $\\sqrt{2}$ is irrational.\nA. yes\nB) no\n\nÜber naïve 東京 12,345.6 words of New York?"
    ),
    RequestText.from_prompt("def f(x):\n    return {'a': [x ** 2 for x in range(10)]}  # \u0000\x07\ud800"),
    # Words that are cut into pieces, and other scripts.
    RequestText.from_prompt(
        "Electroencephalography or Vergangenheitsbewältigung, antidisestablishment? α, βγ, Привет, ひらがな 🙂"
    ),
    # Long and nowhere the same, so that it shows which parts of a long text are read; then a conversation that is cut.
    RequestText.from_prompt(" ".join(f"Cytoplasm {n} or photon {n * n}?" for n in range(900))),
    RequestText.from_messages([{"role": "user", "content": f"And {n} in French? " * n} for n in range(12)]),
)
# What of the reading of a request no probe might show.
_READING = ("READ_CHARACTERS", "HEAD_CHARACTERS", "TAIL_CHARACTERS", "SAMPLES", "ENOUGH_CHARACTERS")
# Decimals that are compared: the last bits of a number may differ between C libraries and processors.
_SHAPE_DECIMALS, _MEANING_DECIMALS = 3, 2


def fingerprint(embedder: Embedder) -> str:
    """Checksum of what the code above computes on fixed probes with this embedder; a change of any feature changes it.

    Beside the results it covers the words of the marks and what of a long request is read.
    """
    read = {name: getattr(reading, name) for name in _READING}
    told = (FEATURES_VERSION, embedder.version, NAMES, sorted(_MARKED.items()), sorted(read.items()))
    digest = hashlib.sha256(repr(told).encode())
    for probe in _PROBES:
        found = extract(probe, embedder)
        digest.update(rounded(found.shape, _SHAPE_DECIMALS).astype("<f8").tobytes())
        digest.update(rounded(found.meaning, _MEANING_DECIMALS).astype("<f8").tobytes())
        digest.update(found.whole.astype("<i8").tobytes())
        digest.update(" ".join(found.words).encode("utf-8", "replace"))
        digest.update(f"{found.named} {found.likeness} {found.other_script:.3f}".encode())
    return digest.hexdigest()[:16]


def rounded(values: Floats, decimals: int) -> NDArray[np.float64]:
    """Values to so many decimals, none of them -0."""
    result: NDArray[np.float64] = np.asarray(np.round(values.astype(np.float64), decimals) + 0.0, dtype=np.float64)
    return result
