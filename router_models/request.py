"""Turns an OpenAI-style request into the bounded text that is scored; odd content is read as no text, never an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router_models.value import value

# A prompt longer than this is read as head, tail and evenly spaced samples between, so scoring time is bounded.
READ_CHARACTERS = 6_000
HEAD_CHARACTERS = 2_000
TAIL_CHARACTERS = 2_000
SAMPLES = 4
# "And in French?" says little: earlier user messages are put in front until there is at least this much to read.
ENOUGH_CHARACTERS = 200


@value
class RequestText:
    """What the router knows of one request.

    `text` is at most READ_CHARACTERS characters (plus joining newlines); `characters` is the length before that cut.
    `turns` counts user messages, `images` counts image parts. `tools` and `json_schema` say that the request
    carries tool definitions or asks for structured output.
    """

    text: str
    characters: int
    turns: int = 1
    images: int = 0
    tools: bool = False
    json_schema: bool = False

    @property
    def likeness(self) -> float:
        """How much this kind of request is like the training data, 0..1: those are single questions of text alone.

        Tools, structured output, images and earlier turns change what a good answer is, and nothing was recorded about how
        much. The values are set by hand, not learnt: half for each, and none for what the text does not show at all.
        """
        if self.images or not self.text:
            return 0.0
        return (0.5 if self.tools else 1.0) * (0.5 if self.json_schema else 1.0) * (0.5 if self.turns > 1 else 1.0)

    @classmethod
    def from_prompt(cls, prompt: str) -> RequestText:
        """One user message of plain text."""
        return cls(text=bounded(prompt), characters=len(prompt), turns=1 if prompt else 0)

    @classmethod
    def from_messages(
        cls, messages: Sequence[Mapping[str, Any]], *, tools: bool = False, json_schema: bool = False
    ) -> RequestText:
        """The last user message, with earlier user messages before it while it is short.

        Content may be a string, a list of parts or None. Without any user text (a lone tool result, a lone system
        prompt) the last message that has text is read instead; without any text `text` is empty.
        """
        asked: list[str] = []
        turns = images = 0
        fallback = ""
        for message in messages:
            if not isinstance(message, Mapping):
                continue
            text, pictures = content_text(message.get("content"))
            images += pictures
            if message.get("role") == "user":
                turns += 1
                if text:
                    asked.append(text)
            elif text:
                fallback = text
        chosen = _last_question(asked) if asked else fallback
        return cls(bounded(chosen), len(chosen), turns, images, tools, json_schema)


def content_text(content: object) -> tuple[str, int]:
    """Text and number of images in a message's content (a string, a list of parts, None, or anything else)."""
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        return "", 0
    texts: list[str] = []
    images = 0
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            text = part.get("text")
            if isinstance(text, str):
                texts.append(text)
            elif part.get("type") in ("image_url", "input_image", "image"):
                images += 1
    return "\n".join(texts), images


def bounded(text: str) -> str:
    """The text itself, or of a long one its head, its tail and SAMPLES pieces evenly spaced between them."""
    if len(text) <= READ_CHARACTERS:
        return text
    piece = (READ_CHARACTERS - HEAD_CHARACTERS - TAIL_CHARACTERS) // SAMPLES
    middle = len(text) - HEAD_CHARACTERS - TAIL_CHARACTERS
    step = middle // SAMPLES
    starts = [HEAD_CHARACTERS + i * step + (step - piece) // 2 for i in range(SAMPLES)]
    pieces = [text[:HEAD_CHARACTERS], *(text[start : start + piece] for start in starts), text[-TAIL_CHARACTERS:]]
    return "\n".join(pieces)


def _last_question(asked: list[str]) -> str:
    chosen = asked[-1:]
    length = len(chosen[0])
    for earlier in reversed(asked[:-1]):
        if length >= ENOUGH_CHARACTERS:
            break
        chosen.insert(0, earlier)
        length += len(earlier)
    return "\n".join(chosen)
