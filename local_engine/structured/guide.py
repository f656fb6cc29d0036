"""What decides which tokens one answer may continue with; the sampler knows no more of grammars and thoughts than this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from local_engine.errors import FormFailed

if TYPE_CHECKING:  # the scheduler knows requests and works without torch
    from torch import Tensor


class Guide(Protocol):
    """Follows one answer token by token; used by the engine's thread only."""

    @property
    def length(self) -> int:
        """Tokens of the answer it has followed."""

    @property
    def thought(self) -> int:
        """Those of them that are a thought."""

    @property
    def failure(self) -> str | None:
        """Why the answer cannot be guided to its end; None as long as it can."""

    def advance(self, token: int) -> bool:
        """Follow one more token; False, and nothing changes, when the token is not allowed here."""

    def retreat(self, count: int) -> None:
        """Forget the last `count` tokens it followed."""

    def allowed(self) -> Tensor | None:
        """Bits of the tokens that may come next, int32 [ceil(vocab / 32)], lowest bit first; None when all may."""


def follow(guide: Guide, answer: Sequence[int]) -> None:
    """Bring the guide to the end of `answer`. A token it does not allow (the grammar has failed) stops it for good."""
    for token in answer[guide.length :]:
        if not guide.advance(token):
            return


def allowed_after(guide: Guide, answer: Sequence[int], paths: Sequence[Sequence[int]]) -> list[Tensor | None]:
    """What may follow `answer` and then each of `paths` (drafts, each path extending the one before or not).

    The guide is left standing at the end of `answer`. After a path it does not allow there is no restriction: the draft that
    broke it has no chance in the row before, so nobody gets there.
    """
    follow(guide, answer)
    masks: list[Tensor | None] = []
    walked: list[int] = []
    for path in paths:
        common = 0
        while common < min(len(walked), len(path)) and walked[common] == path[common]:
            common += 1
        guide.retreat(len(walked) - common)
        del walked[common:]
        for token in path[common:]:
            if not guide.advance(token):
                break
            walked.append(token)
        masks.append(guide.allowed() if len(walked) == len(path) else None)
    guide.retreat(len(walked))
    return masks


def form_failure(guide: Guide) -> FormFailed | None:
    """The error of an answer whose grammar became too hard to follow."""
    if guide.failure is None:
        return None
    return FormFailed(f"the answer's form became too complex to follow, ask for a simpler one: {guide.failure}")
