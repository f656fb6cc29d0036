"""The one way in which sending fails."""

from __future__ import annotations


class NotTaken(Exception):
    """The receiver has not taken a message.

    `no_answer`: nor would it take another one now. `final`: it wants no more of them. `retry_after`: seconds it asks for.
    """

    def __init__(
        self, reason: str, *, no_answer: bool = False, final: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.no_answer = no_answer
        self.final = final
        self.retry_after = retry_after
