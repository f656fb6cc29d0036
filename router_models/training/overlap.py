"""Finds prompts that repeat others in part: those which share a run of words with one of them.

Equal questions are found by their stem keys when tables are loaded, however short they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

WORDS_IN_A_ROW = 13
"""Words in a row that two prompts of different sets share only when one repeats the other."""


def repeating(texts: Iterable[str], known: Iterable[str]) -> list[bool]:
    """For each text whether WORDS_IN_A_ROW of its words in a row stand in one of `known`, whatever case and punctuation."""
    runs = {run for text in known for run in _runs(text)}
    return [any(run in runs for run in _runs(text)) for text in texts]


def _runs(text: str) -> Iterable[int]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return (hash(tuple(words[at : at + WORDS_IN_A_ROW])) for at in range(len(words) - WORDS_IN_A_ROW + 1))
