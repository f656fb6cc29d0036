"""Both sources of a tokenizer agree; chat templates see what published ones expect and cannot reach the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_engine.chat_template import ChatTemplate
from local_engine.errors import CorruptModelFile, InvalidRequest
from local_engine.models.gguf_file import GgufFile
from local_engine.tokenizer import tokenizer_from_directory, tokenizer_from_gguf

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Über 12 drops?\n"}]


def test_gguf_and_hub_directory_give_the_same_tokens(tiny_directory: Path, tiny_gguf: Path) -> None:
    hub, gguf = tokenizer_from_directory(tiny_directory), tokenizer_from_gguf(GgufFile(tiny_gguf).metadata)
    for text in ("The gate, 12 345 drops.", "  two\n\n spaces\t", "日本の水門 🎉", "", "<|im_end|>x"):
        assert gguf.encode(text) == hub.encode(text)
        assert gguf.decode(gguf.encode(text)) == text.replace("<|im_end|>", "")
    assert gguf.encode_chat(CHAT) == hub.encode_chat(CHAT)
    assert gguf.end_ids == hub.end_ids == frozenset({0, 2})
    assert gguf.vocab_size == hub.vocab_size


def test_a_chat_is_rendered_in_the_models_template(tiny_directory: Path) -> None:
    tokenizer = tokenizer_from_directory(tiny_directory)
    ids = tokenizer.encode_chat(CHAT)
    assert ids.count(1) == 3, "one <|im_start|> per message and one for the answer"
    assert tokenizer.decode(ids) == "system\nBe brief.\nuser\nÜber 12 drops?\n\nassistant\n"


def test_the_first_token_is_added_where_the_metadata_asks_for_it(tiny_gguf: Path) -> None:
    metadata = {**GgufFile(tiny_gguf).metadata, "tokenizer.ggml.add_bos_token": True}
    with_first, without = tokenizer_from_gguf(metadata), tokenizer_from_gguf(GgufFile(tiny_gguf).metadata)
    assert with_first.encode("gate") == [1, *without.encode("gate")]
    assert with_first.encode_chat(CHAT) == without.encode_chat(CHAT), "the template writes its own"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokenizer.ggml.model": "t5"}, "'t5'; known: gpt2, llama"),
        ({"tokenizer.ggml.pre": "chatglm"}, "'chatglm'; known: default"),
        ({"tokenizer.ggml.merges": ["x"]}, "cannot be used"),
        ({"tokenizer.ggml.tokens": None}, "cannot be used"),
    ],
    ids=str,
)
def test_a_tokenizer_that_cannot_be_read_is_refused_by_name(
    tiny_gguf: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(CorruptModelFile, match=says):
        tokenizer_from_gguf({**GgufFile(tiny_gguf).metadata, **changes})


def render(source: str, messages: list[dict[str, Any]] | None = None) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages or CHAT)


def test_templates_find_the_names_they_expect() -> None:
    assert render("{{ bos_token }}{{ messages[0]['content'] | trim }}{{ eos_token }}") == "<s>Be brief.</s>"
    assert render("{{ messages[1] | tojson }}") == '{"role": "user", "content": "Über 12 drops?\\n"}'
    assert len(render("{{ strftime_now('%Y-%m-%d') }}")) == 10
    assert render("{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}") == "system"
    assert render("{% if tools is none and add_generation_prompt %}ok{% endif %}") == "ok"


def test_what_a_template_refuses_is_the_callers_error() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidRequest, match="refuses these messages"):
        render("{{ messages[7]['content'].x.y }}")


@pytest.mark.parametrize(
    "attack",
    ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"],
)
def test_a_template_cannot_leave_its_sandbox(attack: str) -> None:
    with pytest.raises(InvalidRequest):
        render(attack)
