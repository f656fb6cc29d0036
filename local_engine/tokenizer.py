"""Text to token ids and back, from GGUF metadata or a Hugging Face tokenizer.json; a broken one raises CorruptModelFile.

`stream_decoder` turns tokens into text as they come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import processors
from tokenizers.decoders import ByteLevel

from local_engine.chat_template import ChatTemplate
from local_engine.errors import CorruptModelFile
from local_engine.gguf_vocabulary import CONTROL, USER_DEFINED, vocabulary_from_gguf
from local_engine.models.weights import read_json

# Control tokens that say what the text beside them is. They are hidden, as all are, unless the reader asks for them.
_MARKUP_NAMES = ("<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>", "<tool_call>",
                 "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>")  # fmt: skip
# Tokens that end an answer in one chat format or another, whatever the metadata names as the only end.
_END_NAMES = frozenset(
    {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>", "<end_of_turn>", "<|end|>"}
)


def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level tokenizers write for each byte (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()


class Tokenizer:
    """Encodes, decodes, renders chats; safe to use from several threads."""

    def __init__(
        self,
        fast: FastTokenizer,
        *,
        template: ChatTemplate | None,
        end_ids: frozenset[int],
        first_ids: tuple[int, ...] = (),
    ) -> None:
        self._fast = fast
        self._template = template
        self.end_ids = end_ids
        self._first_ids = first_ids
        ids = {name: fast.token_to_id(name) for name in _MARKUP_NAMES}
        added = fast.get_added_tokens_decoder()
        self._added = frozenset(added)
        self._hidden = frozenset(index for index, token in added.items() if token.special)
        self._byte_level = "ByteLevel" in str(fast.decoder.__getstate__()) if fast.decoder is not None else False
        # Only then does the decoder join the bytes of tokens and do nothing else.
        shown = [token.content for index, token in added.items() if index not in self._hidden]
        self.is_bytewise = isinstance(fast.decoder, ByteLevel) and all(map(str.isascii, shown))
        self._markup = {index: name for name, index in ids.items() if index is not None}
        self._shown: tuple[Sequence[str | bytes], ...] = ()

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added ones included."""
        return int(self._fast.get_vocab_size(with_added_tokens=True))

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, added ones included."""
        return dict(self._fast.get_vocab(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, with the tokens the model wants at its start."""
        return [*self._first_ids, *self._fast.encode(text, add_special_tokens=True).ids]

    def encode_part(self, text: str) -> list[int]:
        """Token ids of text inside a prompt or answer, control tokens in it included."""
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation in the model's own template, ready for its answer."""
        return self.encode_part(self.render_chat(messages))

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text, ready for the answer; see ChatTemplate.render."""
        if self._template is None:
            return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"
        return self._template.render(messages, tools, options)

    @property
    def template_source(self) -> str | None:
        """The chat template, None when the model has none."""
        return None if self._template is None else self._template.source

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template can tell the model about tools."""
        return self._template is not None and self._template.knows_tools

    def token_id(self, text: str) -> int | None:
        """The id of a token spelled like this."""
        index = self._fast.token_to_id(text)
        return None if index is None else int(index)

    def token_bytes(self, index: int) -> bytes:
        """What one token stands for; b"" for an id without a token. A character may be spread over several tokens."""
        name = self._fast.id_to_token(index)
        if name is None or index in self._added:
            return (name or "").encode()
        if self._byte_level:
            return bytes(map(_BYTES.__getitem__, name)) if _BYTES.keys() >= set(name) else name.encode()
        if len(name) == 6 and name.startswith("<0x"):
            return bytes([int(name[3:5], 16)])
        return name.replace("\u2581", " ").encode()

    def shown(self, markup: bool) -> Sequence[str | bytes]:
        """What `decode` makes of each token, by id, where `is_bytewise` says that a text is the sum of that.

        Bytes where others may have to come to make characters of them. Made for all at the first call: asking for each when
        it first appears takes an engine with many answers a tenth of what it does between its steps.
        """
        if not self._shown:
            end = 1 + max(self.vocabulary.values(), default=-1)
            plain = [_text_if_whole(self.token_bytes(index)) for index in range(end)]
            marked = plain.copy()
            for index in self._hidden:
                plain[index] = ""
                if index not in self._markup:
                    marked[index] = ""
            self._shown = plain, marked
        return self._shown[markup]

    def to_json(self) -> str:
        """The tokenizer as a Hugging Face tokenizer.json, wherever it came from."""
        return str(self._fast.to_str())

    def save(self, directory: Path) -> None:
        """Write the files from which `tokenizer_from_directory` makes the same tokenizer."""
        fast = FastTokenizer.from_str(self._fast.to_str())
        if self._first_ids:
            first = [(str(fast.id_to_token(index)), index) for index in self._first_ids]
            single = " ".join([*(token for token, _ in first), "$A"])
            fast.post_processor = processors.TemplateProcessing(single=single, special_tokens=first)
        fast.save(str(directory / "tokenizer.json"))
        settings: dict[str, Any] = {}
        if self._template is not None:
            settings = {**self._template.tokens, "chat_template": self._template.source}
        (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def decode(self, ids: Sequence[int], *, markup: bool = False) -> str:
        """Text of the ids without control tokens; bytes that are no whole character become U+FFFD.

        With `markup` those that mark thoughts and tool calls are shown.
        """
        if markup and not self._markup.keys().isdisjoint(ids):
            parts: list[str] = []
            start = 0
            for place, index in enumerate(ids):
                if index in self._markup:
                    parts += [self.decode(ids[start:place]), self._markup[index]]
                    start = place + 1
            return "".join(parts) + self.decode(ids[start:])
        return str(self._fast.decode(list(ids), skip_special_tokens=True))


def _text_if_whole(spelled: bytes) -> str | bytes:
    """U+FFFD at the end looks like broken bytes, and is left to who joins them."""
    try:
        text = spelled.decode()
    except UnicodeDecodeError:
        return spelled
    return spelled if text.endswith("\ufffd") else text


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """From tokenizer.* of GGUF metadata."""
    vocabulary = vocabulary_from_gguf(metadata)
    tokens, types = vocabulary.tokens, vocabulary.types

    def token_id(name: str) -> int | None:
        value = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return value if isinstance(value, int) and 0 <= value < len(tokens) else None

    bos, eos = token_id("bos"), token_id("eos")
    ends = {index for index in (eos, token_id("eot"), token_id("eom")) if index is not None}
    ends |= {
        index
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED) and token in _END_NAMES
    }
    source = metadata.get("tokenizer.chat_template")
    template = ChatTemplate(source, bos=_name(tokens, bos), eos=_name(tokens, eos)) if source else None
    first = (bos,) if bos is not None and vocabulary.bos_first else ()
    return Tokenizer(vocabulary.fast, template=template, end_ids=frozenset(ends), first_ids=first)


def _name(tokens: Sequence[str], index: int | None) -> str:
    return "" if index is None else tokens[index]


def tokenizer_from_directory(directory: Path) -> Tokenizer:
    """From tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json of a model directory."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CorruptModelFile(f"{str(path)!r} is missing: a model directory needs it")
    try:
        fast = FastTokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises bare Exception
        raise CorruptModelFile(f"{str(path)!r} cannot be used: {error}") from error
    settings = _optional_json(directory / "tokenizer_config.json")
    ends: set[int] = set()
    for file in ("generation_config.json", "config.json"):
        value = _optional_json(directory / file).get("eos_token_id")
        ends |= {value} if isinstance(value, int) else set(value or ())
    ends |= {index for token, index in fast.get_vocab(with_added_tokens=True).items() if token in _END_NAMES}
    source = _template_source(directory, settings)
    template = None
    if source:
        template = ChatTemplate(
            source, bos=_content(settings.get("bos_token")), eos=_content(settings.get("eos_token"))
        )
    return Tokenizer(fast, template=template, end_ids=frozenset(ends))


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _content(token: Any) -> str:
    """A special token is written as text or as an object with its text under 'content'."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _template_source(directory: Path, settings: Mapping[str, Any]) -> str | None:
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template
