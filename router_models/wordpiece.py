"""Splits text into the words and word pieces of a BERT vocabulary, in plain Python, fast enough for every request.

Lower case, accents removed, punctuation and CJK characters on their own; a word that the vocabulary lacks is cut greedily into
its longest known pieces (Wu et al. 2016, WordPiece). Any text is accepted; what cannot be named becomes [UNK].
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from router_models.value import value

UNKNOWN = "[UNK]"
# A longer "word" is noise (base64, a row of dashes); cutting it would cost time that grows with its square.
LONGEST_WORD = 100
# Pieces of words outside the vocabulary are remembered; beyond this many the memory is emptied, so it stays bounded.
REMEMBERED = 20_000

_ASCII = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
_ANY = re.compile(r"[^\W_]+|[^\w\s]|_")
_NOT_ASCII = re.compile("[^\x00-\x7f]")
# Bytes of ASCII text: words in lower case with spaces for the rest, and what is neither a mark nor seen.
_SPACED = bytes(
    code if chr(code) in "abcdefghijklmnopqrstuvwxyz0123456789" else code + 32 if 65 <= code <= 90 else 32
    for code in range(256)
)
_UNMARKED = bytes(code for code in range(256) if code >= 128 or chr(code).isalnum() or chr(code).isspace())
# Text with more kinds of characters of other scripts than this is cut by the regular expressions.
_MOST_KINDS = 64
_CJK = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


@value
class Words:
    """`every` word of a text in reading order, its distinct punctuation `marks`, and how many marks there are."""

    every: list[str]
    marks: list[str]
    marked: int


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, lower case, in reading order."""
    lowered = text.lower()
    if lowered.isascii():
        return _ASCII.findall(lowered)
    return _ANY.findall(_CJK.sub(r" \1 ", _without_accents(unicodedata.normalize("NFD", lowered))))


def read_words(text: str) -> Words:
    """The same words, marks apart: three times as fast, for text that is mostly ASCII."""
    if text.isascii():
        return _read_ascii(text)
    plain = _without_accents(unicodedata.normalize("NFD", text.lower()))
    kinds = dict.fromkeys(_NOT_ASCII.findall(plain))
    if len(kinds) <= _MOST_KINDS and not any(map(str.isalnum, kinds)):
        marks, marked = [mark for mark in kinds if not mark.isspace()], 0
        for mark in kinds:
            marked += plain.count(mark) * (not mark.isspace())
            plain = plain.replace(mark, " ")
        found = _read_ascii(plain)
        return Words(found.every, found.marks + marks, found.marked + marked)
    every = _ANY.findall(_CJK.sub(r" \1 ", plain))
    rest = [mark for mark in every if not mark.isalnum()]
    return Words([word for word in every if word.isalnum()], list(dict.fromkeys(rest)), len(rest))


def _read_ascii(text: str) -> Words:
    raw = text.encode()
    marks = raw.translate(None, _UNMARKED).decode()
    return Words(raw.translate(_SPACED).decode().split(), list(dict.fromkeys(marks)), len(marks))


def _without_accents(decomposed: str) -> str:
    """Text in normal form D without its combining marks."""
    kinds = dict.fromkeys(_NOT_ASCII.findall(decomposed))
    accents = [mark for mark in kinds if unicodedata.category(mark) == "Mn"]
    if len(accents) > _MOST_KINDS:
        return decomposed.translate(dict.fromkeys(map(ord, accents)))
    for mark in accents:
        decomposed = decomposed.replace(mark, "")
    return decomposed


class WordPiece:
    """A vocabulary; a token's number is its place in it."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._number = {token: number for number, token in enumerate(vocabulary)}
        # The pieces that go on with a word, without the mark that says so.
        self._inner = {token[2:]: number for token, number in self._number.items() if token.startswith("##")}
        self._longest = max(map(len, vocabulary), default=1)
        self._unknown = [self._number.get(UNKNOWN, 0)]
        self._pieces: dict[str, list[int]] = {}

        # The number of a word that is in the vocabulary as it is, else None. An attribute: a method would double its time.
        self.whole: Callable[[str], int | None] = self._number.get

    def numbers(self, words: Sequence[str]) -> list[int]:
        """The numbers of all pieces of all words, in order."""
        found: list[int] = []
        whole, pieces = self._number.get, self._pieces
        for word in words:
            number = whole(word)
            if number is not None:
                found.append(number)
            else:
                found.extend(pieces.get(word) or self._cut(word))
        return found

    def _cut(self, word: str) -> list[int]:
        if len(word) > LONGEST_WORD:
            return self._unknown
        if len(self._pieces) >= REMEMBERED:
            self._pieces.clear()
        self._pieces[word] = found = self._longest_first(word)
        return found

    def _longest_first(self, word: str) -> list[int]:
        found: list[int] = []
        start, size, table = 0, len(word), self._number
        while start < size:
            for end in range(min(size, start + self._longest), start, -1):
                number = table.get(word[start:end])
                if number is not None:
                    break
            else:
                return self._unknown
            found.append(number)
            start, table = end, self._inner
        return found
