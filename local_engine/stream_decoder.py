"""Text of a growing answer, piece by piece: whole characters only, and the pieces joined equal the text of the whole."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from local_engine.tokenizer import Tokenizer

_MAX_HELD = 16
_REPLACEMENT = "\ufffd"


class StreamDecoder(Protocol):
    """Decodes one answer."""

    def push(self, token: int) -> str:
        """The text this token completes; empty while a character is still in the making."""
        ...

    def flush(self) -> str:
        """What is held at the end of the answer, with U+FFFD for bytes that never became a character."""
        ...


def stream_decoder(tokenizer: Tokenizer, *, markup: bool = False) -> StreamDecoder:
    """The decoder for a tokenizer. `markup` as in `Tokenizer.decode`."""
    kind = ByteDecoder if tokenizer.is_bytewise else TextDecoder
    return kind(tokenizer, markup=markup)


class TextDecoder:
    """Decodes a token with the ones before it, as any tokenizer may make a text of tokens that is not the sum of theirs.

    The last whole piece stays as context, because some tokenizers drop the space before the first word they decode.
    """

    def __init__(self, tokenizer: Tokenizer, *, markup: bool = False) -> None:
        self._tokenizer = tokenizer
        self._markup = markup
        self._context: list[int] = []
        self._context_text = ""
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """See StreamDecoder."""
        self._held.append(token)
        text = self._text(self._context + self._held)
        if text.endswith(_REPLACEMENT) and len(self._held) < _MAX_HELD:
            return ""
        return self._accept(text)

    def flush(self) -> str:
        """See StreamDecoder."""
        return self._accept(self._text(self._context + self._held)) if self._held else ""

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, markup=self._markup)

    def _accept(self, text: str) -> str:
        piece = text[len(self._context_text) :]
        self._context, self._held = self._held, []
        self._context_text = self._text(self._context)
        return piece


class ByteDecoder:
    """The same for byte-level vocabularies: a text is there the bytes of its tokens, and nobody has to be asked."""

    __slots__ = ("_decoder", "_held", "_shown", "_whole")

    def __init__(self, tokenizer: Tokenizer, *, markup: bool = False) -> None:
        self._shown = tokenizer.shown(markup)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._whole = True
        """Whether all characters so far are complete: nothing is held here or in the decoder."""

    def push(self, token: int) -> str:
        """See StreamDecoder."""
        shown = self._shown[token] if token < len(self._shown) else b""
        return shown if self._whole and isinstance(shown, str) else self._join(shown)

    def flush(self) -> str:
        """See StreamDecoder."""
        held, self._held = self._held, ""
        return held + self._decoder.decode(b"", final=True)

    def _join(self, shown: str | bytes) -> str:
        """Broken bytes wait for what comes behind them: at the end of an answer they are not shown."""
        text = self._held + self._decoder.decode(shown.encode() if isinstance(shown, str) else shown)
        whole = text.rstrip(_REPLACEMENT)
        if len(text) - len(whole) >= _MAX_HELD:
            whole = text
        self._held = text[len(whole) :]
        self._whole = not self._held and not self._decoder.getstate()[0]
        return whole
