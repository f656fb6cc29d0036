"""Thoughts as tokens: where one begins and ends, how many it takes, and that it ends when its budget is spent.

A grammar for the answer begins where the thought has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from local_engine.structured.guide import Guide
from local_engine.structured.matcher import bits_of
from local_engine.tokenizer import Tokenizer

_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
_LOOK_BACK = 24  # tokens that a closing tag may be spelled with


@dataclass(frozen=True, slots=True)
class ThoughtTags:
    """How a model marks its thoughts; `open_id` and `close_id` where a tag is one token, `close_ids` to write the end."""

    open: str
    close: str
    open_id: int | None
    close_id: int | None
    close_ids: tuple[int, ...]


def thought_tags(tokenizer: Tokenizer) -> ThoughtTags | None:
    """The tags of a model that thinks, by its vocabulary and chat template; None for one that does not."""
    source = tokenizer.template_source or ""
    for opening, closing in _TAGS:
        open_id, close_id = tokenizer.token_id(opening), tokenizer.token_id(closing)
        if close_id is not None or closing in source or opening in source:
            return ThoughtTags(opening, closing, open_id, close_id, tuple(tokenizer.encode_part(closing)))
    return None


class ThoughtGuide:
    """Follows one answer that may begin with a thought; `inner` guides what comes after it.

    `opened`: the prompt has opened the thought. `budget` counts the tokens inside; when they are spent the closing tag is the
    only way on. All state follows from the tokens and where the thought ended, so drafts can be taken back.
    """

    def __init__(
        self, tokenizer: Tokenizer, tags: ThoughtTags, *, opened: bool, budget: int | None, inner: Guide | None
    ) -> None:
        self._tokenizer = tokenizer
        self._tags = tags
        self._budget = budget
        self._inner = inner
        self._tokens: list[int] = []
        self._begun = 0 if opened else None  # tokens before the thought's first
        self._opened = opened
        self._over: int | None = None  # tokens up to the end of the thought; 0 when there is none
        self._words = (tokenizer.vocab_size + 31) // 32
        self._unended = ~bits_of(tokenizer.end_ids, self._words)  # an answer of a form may not end before it began

    @property
    def length(self) -> int:
        """Tokens followed."""
        return len(self._tokens)

    @property
    def thought(self) -> int:
        """Tokens of the thought so far, its tags included."""
        if self._begun is None and self._over is None:
            return 0
        return len(self._tokens) if self._over is None else self._over

    @property
    def failure(self) -> str | None:
        """What broke the answer's grammar."""
        return None if self._inner is None else self._inner.failure

    def advance(self, token: int) -> bool:
        """As Guide.advance."""
        if self._over is None and self._begun is None:
            self._decide([*self._tokens, token])
        if self._over is not None and self._inner is not None and not self._inner.advance(token):
            self._settle()
            return False
        self._tokens.append(token)
        if self._over is None and self._begun is not None and self._closes(token):
            self._over = len(self._tokens)
        return True

    def retreat(self, count: int) -> None:
        """As Guide.retreat."""
        if not count:
            return
        left = len(self._tokens) - count
        if self._inner is not None and self._over is not None:
            self._inner.retreat(len(self._tokens) - max(left, self._over))
        del self._tokens[left:]
        self._settle()

    def allowed(self) -> Tensor | None:
        """As Guide.allowed."""
        if self._over is not None:
            return None if self._inner is None else self._inner.allowed()
        if self._begun is None:  # nothing is written yet: a thought may begin, or the answer
            mask = None if self._inner is None else self._inner.allowed()
            if mask is None or self._tags.open_id is None:
                return mask
            return mask | bits_of([self._tags.open_id], mask.numel())
        spent = len(self._tokens) - self._begun
        if self._budget is None or spent < self._budget:
            return None if self._inner is None else self._unended
        at = spent - self._budget
        return bits_of([self._tags.close_ids[at]], self._words) if at < len(self._tags.close_ids) else None

    def _decide(self, tokens: Sequence[int]) -> None:
        """The first tokens tell whether the answer begins with a thought."""
        text = self._tokenizer.decode(tokens, markup=True).lstrip()
        if text.startswith(self._tags.open):
            self._begun = len(tokens)
        elif self._inner is not None or not self._tags.open.startswith(text):
            self._over = 0

    def _settle(self) -> None:
        """Where thought and answer begin, after tokens were taken back."""
        count = len(self._tokens)
        if self._over is not None and self._over > count:
            self._over = None
        if not self._opened and self._begun is not None and self._begun > count:
            self._begun = None
        if self._over == 0 and (self._inner is None or not count):
            self._over = None
            if count:
                self._decide(self._tokens)

    def _closes(self, token: int) -> bool:
        if self._tags.close_id is not None:
            return token == self._tags.close_id
        inside = self._tokens[self._begun or 0 :]
        return self._tags.close in self._tokenizer.decode(inside[-_LOOK_BACK:], markup=True)
