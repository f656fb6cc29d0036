"""Prompt lookup: what followed the last words the time before is proposed again; no model, a few microseconds.

After Saxena 2023 (prompt lookup decoding), with an index as in LZ77 compressors: the places where each pair of tokens
ended before are a chain, newest first; the newest few are compared backwards and the longest match wins. A new token
costs two entries, a proposal a bounded number of comparisons, however long the text is. Where not even a pair came
before, the last token's newest place has to do. Nothing is looked up in other requests' texts: what one tenant wrote must
not speed up another's answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from local_engine.request import Request
from local_engine.speculative.drafter import NO_DRAFT, Draft, Seen

_ANCHOR = 2  # tokens that must match at least
_CANDIDATES = 8  # places looked at per proposal
_LONGEST_MATCH = 16  # beyond, a longer match says nothing more
_KINDS = {1: "ngram-1", 2: "ngram-2", 3: "ngram-3", 4: "ngram-4", 5: "ngram-5", 6: "ngram-5", 7: "ngram-5"}
_LONG = "ngram-8"


class SuffixIndex:
    """Where tokens, and pairs of them, ended in one growing text."""

    def __init__(self) -> None:
        self._newest: dict[tuple[int, int], int] = {}
        self._single: dict[int, int] = {}
        self._same_token = -1  # where the text's last token stood before; -1: nowhere
        self._before: list[int] = []  # for each place, where the pair that ends here ended the time before; -1: nowhere

    def extend(self, tokens: Sequence[int]) -> None:
        """Take in what `tokens` has grown by since the last call."""
        newest, before, single = self._newest, self._before, self._single
        for at in range(len(before), len(tokens)):
            token = tokens[at]
            self._same_token = single.get(token, -1)
            single[token] = at
            pair = (tokens[at - 1] if at else -1, token)
            before.append(newest.get(pair, -1))
            newest[pair] = at

    def longest_match(self, tokens: Sequence[int]) -> tuple[int, int]:
        """(end, length) of the earlier place whose last `length` tokens are the text's last ones; length 0: there is none.

        Among equally long matches the newest wins. All of `tokens` must have been taken in.
        """
        last = len(tokens) - 1
        end, length = self._same_token, int(self._same_token >= 0)
        at = self._before[last]
        for _ in range(_CANDIDATES):
            if at < 0:
                break
            same = _ANCHOR
            most = min(_LONGEST_MATCH, at + 1)
            while same < most and tokens[at - same] == tokens[last - same]:
                same += 1
            if same > length:
                end, length = at, same
                if same == _LONGEST_MATCH:
                    break
            at = self._before[at]
        return end, length


class NgramDrafter:
    """Proposes what followed the longest earlier match of the text's end, prompt included."""

    taps: tuple[int, ...] = ()
    costly = False
    kind = "ngram"

    def __init__(self) -> None:
        self._indexes: dict[int, SuffixIndex] = {}

    def propose(self, requests: Sequence[Request], wanted: Sequence[int], least: float = 0.0) -> list[Draft]:
        """One draft for each request, empty where nothing matches."""
        return [self._propose(request, most) for request, most in zip(requests, wanted, strict=True)]

    def observe(self, seen: Sequence[Seen]) -> None:
        """Needs nothing of a step."""

    def forget(self, request: Request) -> None:
        """Drop the request's index."""
        self._indexes.pop(request.id, None)

    def _propose(self, request: Request, wanted: int) -> Draft:
        index = self._indexes.get(request.id)
        if index is None:
            index = self._indexes[request.id] = SuffixIndex()
        tokens = request.tokens
        index.extend(tokens)
        end, length = index.longest_match(tokens)
        if not length:
            return NO_DRAFT
        return Draft(tuple(_continuation(tokens, end + 1, wanted)), None, _KINDS.get(length, _LONG))


def _continuation(tokens: Sequence[int], start: int, wanted: int) -> list[int]:
    """`wanted` tokens from `start` on; behind the text's end the repetition goes on."""
    drafted = list(tokens[start : start + wanted])
    while len(drafted) < wanted:  # the match overlaps the end: a period of len(tokens) - start tokens
        drafted.append(drafted[len(drafted) - (len(tokens) - start)])
    return drafted
