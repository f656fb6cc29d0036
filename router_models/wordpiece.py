"""Splits text into the words and word pieces of a BERT vocabulary, in plain Python, fast enough for every request.

Lower case, accents removed, punctuation and CJK characters on their own; a word that the vocabulary lacks is cut greedily into
its longest known pieces (Wu et al. 2016, WordPiece). Any text is accepted; what cannot be named becomes [UNK].
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

UNKNOWN = "[UNK]"
# A longer "word" is noise (base64, a row of dashes); cutting it would cost time that grows with its square.
LONGEST_WORD = 100
# Pieces of words outside the vocabulary are remembered; beyond this many the memory is emptied, so it stays bounded.
REMEMBERED = 20_000

_ASCII = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
_ANY = re.compile(r"[^\W_]+|[^\w\s]|_")
_CJK = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, lower case, in reading order."""
    lowered = text.lower()
    if lowered.isascii():
        return _ASCII.findall(lowered)
    plain = "".join(mark for mark in unicodedata.normalize("NFD", lowered) if unicodedata.category(mark) != "Mn")
    return _ANY.findall(_CJK.sub(r" \1 ", plain))


class WordPiece:
    """A vocabulary; a token's number is its place in it."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._number = {token: number for number, token in enumerate(vocabulary)}
        self._unknown = [self._number.get(UNKNOWN, 0)]
        self._pieces: dict[str, list[int]] = {}

    def whole(self, word: str) -> int | None:
        """The number of a word that is in the vocabulary as it is."""
        return self._number.get(word)

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
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self._number.get(word[start:end] if start == 0 else f"##{word[start:end]}")
                if number is not None:
                    break
            else:
                return self._unknown
            found.append(number)
            start = end
        return found
