"""Write log probabilities as OpenAI does: for chats with bytes and rivals per token, for completions as parallel lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local_engine.request import Logprobs
from local_engine.tokenizer import Tokenizer

_LOWEST = -9999.0  # what OpenAI writes for a token without a chance; JSON has no infinity


class LogprobText:
    """Tokens as text and bytes. Tokens that end an answer are not listed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def chat(self, logprobs: Sequence[Logprobs]) -> dict[str, Any]:
        """The `logprobs` of a chat choice or of a chunk of it."""
        entries = [
            {
                **self._entry(each.token, each.value),
                "top_logprobs": [self._entry(token, value) for token, value in each.top],
            }
            for each in self._shown(logprobs)
        ]
        return {"content": entries, "refusal": None}

    def completion(self, logprobs: Sequence[Logprobs], offset: int) -> dict[str, Any]:
        """The `logprobs` of a plain completion; `offset` is where in the answer's text the first token begins."""
        shown = self._shown(logprobs)
        texts = [self._text(each.token) for each in shown]
        return {
            "tokens": texts,
            "token_logprobs": [max(each.value, _LOWEST) for each in shown],
            "top_logprobs": [
                {self._text(token): max(value, _LOWEST) for token, value in (*each.top, (each.token, each.value))}
                for each in shown
            ],
            "text_offset": [offset + sum(map(len, texts[:place])) for place in range(len(texts))],
        }

    def length(self, logprobs: Sequence[Logprobs]) -> int:
        """Characters of the listed tokens."""
        return sum(len(self._text(each.token)) for each in self._shown(logprobs))

    def _shown(self, logprobs: Sequence[Logprobs]) -> list[Logprobs]:
        return [each for each in logprobs if each.token not in self._tokenizer.end_ids]

    def _entry(self, token: int, value: float) -> dict[str, Any]:
        raw = self._tokenizer.token_bytes(token)
        return {"token": raw.decode(errors="replace"), "logprob": max(value, _LOWEST), "bytes": list(raw)}

    def _text(self, token: int) -> str:
        return self._tokenizer.token_bytes(token).decode(errors="replace")
