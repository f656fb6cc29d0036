"""Log probabilities, echoes, embeddings and token routes against transformers and the tokenizer itself."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from local_engine.embedding import EmbeddingJob
from local_engine.tokenizer import Tokenizer, tokenizer_from_directory
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.running_server import RunningServer, serve_in_thread
from tests.local_engine.tiny_models import reference

PROMPT = "The gate decides how much water"
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0}


@pytest.fixture
def client(tiny_server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def tokenizer(tiny_directory: Path) -> Tokenizer:
    return tokenizer_from_directory(tiny_directory)


def test_completion_logprobs_are_the_models_own(
    client: openai.OpenAI, tiny_directory: Path, tokenizer: Tokenizer
) -> None:
    extra = {"ignore_eos": True}
    reply = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3, extra_body=extra
    ).choices[0]
    listed = reply.logprobs
    assert listed is not None
    prompt = tokenizer.encode(PROMPT)
    with torch.inference_mode():
        logits = reference(tiny_directory)(torch.tensor([prompt])).logits[0, -1]
    expected = logits.log_softmax(-1).topk(3)
    best = {tokenizer.token_bytes(int(token)).decode(errors="replace"): value for token, value in
            zip(expected.indices, expected.values.tolist(), strict=True)}  # fmt: skip
    assert listed.top_logprobs is not None
    assert listed.top_logprobs[0] == pytest.approx(best, abs=1e-4)
    assert listed.token_logprobs is not None
    assert listed.token_logprobs[0] == pytest.approx(max(best.values()), abs=1e-4)
    assert listed.text_offset is not None
    assert listed.text_offset[0] == 0
    assert listed.tokens is not None
    assert len(listed.tokens) == len(listed.text_offset) == len(listed.token_logprobs)


def test_chat_logprobs_carry_bytes_and_come_alike_in_a_stream(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"max_tokens": 8, "logprobs": True, "top_logprobs": 2, "extra_body": {"ignore_eos": True}}
    whole = client.chat.completions.create(**ASK, **options).choices[0]
    assert whole.logprobs is not None
    entries = whole.logprobs.content
    assert entries
    joined = b"".join(bytes(entry.bytes or ()) for entry in entries)
    assert joined.decode(errors="replace").startswith((whole.message.content or "").rstrip("\ufffd")[:4])
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)
    assert all(math.isclose(entry.logprob, entry.top_logprobs[0].logprob) for entry in entries), "greedy takes the best"
    chunks = client.chat.completions.create(**ASK, **options, stream=True)
    streamed = [entry for chunk in chunks if chunk.choices and chunk.choices[0].logprobs
                for entry in chunk.choices[0].logprobs.content or ()]  # fmt: skip
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]


def test_an_echoed_completion_begins_with_its_prompt(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 3, "temperature": 0}
    plain = client.completions.create(**options).choices[0].text
    assert client.completions.create(**options, echo=True).choices[0].text == PROMPT + plain
    chunks = client.completions.create(**options, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == PROMPT + plain


def test_a_bias_reaches_the_answer(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    token = tokenizer.encode_part("!")[0]
    reply = client.chat.completions.create(**ASK, max_tokens=4, logit_bias={str(token): 100})
    assert reply.choices[0].message.content == "!!!!"


def test_embeddings_are_mean_last_states_of_length_one(
    client: openai.OpenAI, tiny_directory: Path, tokenizer: Tokenizer
) -> None:
    texts = ["Water reaches the turbine.", "count every token " * 12, "日本の水門"]
    reply = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    model = reference(tiny_directory)
    for entry, text in zip(reply.data, texts, strict=True):
        with torch.inference_mode():
            states = model.model(torch.tensor([tokenizer.encode(text)])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(states.mean(0), dim=0)
        torch.testing.assert_close(torch.tensor(entry.embedding), expected, atol=1e-4, rtol=1e-3)
    assert reply.usage.prompt_tokens == sum(len(tokenizer.encode(text)) for text in texts)


def test_embeddings_can_be_shorter_and_packed(client: openai.OpenAI, tiny_server: RunningServer) -> None:
    whole = client.embeddings.create(model="tiny", input=PROMPT, encoding_format="float").data[0].embedding
    short = (
        client.embeddings.create(model="tiny", input=PROMPT, dimensions=8, encoding_format="float").data[0].embedding
    )
    size = math.sqrt(sum(value * value for value in whole[:8]))
    assert short == pytest.approx([value / size for value in whole[:8]], abs=1e-5)
    body = {"model": "tiny", "input": [PROMPT], "encoding_format": "base64"}
    raw = base64.b64decode(httpx.post(f"{tiny_server.url}/v1/embeddings", json=body).json()["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(whole)}f", raw)) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [1, -1]}, "input"),
        ({"input": ["x"] * 300}, "input"),
        ({"input": "drops 123 " * 200}, "input"),
        ({"input": "x", "dimensions": 9999}, "dimensions"),
        ({"input": "x", "encoding_format": "zip"}, "encoding_format"),
    ],
    ids=str,
)
def test_a_bad_embedding_request_is_refused_by_name(
    tiny_server: RunningServer, changes: dict[str, Any], param: str
) -> None:
    reply = httpx.post(f"{tiny_server.url}/v1/embeddings", json={"model": "tiny", **changes}, timeout=30)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_embeddings_and_answers_share_the_engine(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_batch=2, step_tokens=16, cache_tokens=512)
    with (
        serve_in_thread(engine, "tiny") as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=30) as client,
    ):
        options: dict[str, Any] = {"max_tokens": 100, "extra_body": {"ignore_eos": True}}
        alone = client.chat.completions.create(**ASK, **options).choices[0].message.content
        stream = client.chat.completions.create(**ASK, **options, stream=True)
        pieces = [next(stream)]
        vectors = client.embeddings.create(model="tiny", input=[PROMPT * 3, "x"], encoding_format="float").data
        pieces += list(stream)
        assert len(vectors) == 2
        assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices) == alone
        server.wait_until_idle()
        engine.check_integrity()


def test_texts_that_fill_the_cache_one_by_one_are_embedded_one_by_one(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(cache_tokens=256)
    job = EmbeddingJob([[5] * 200, [6] * 200, [7] * 10])
    for _ in zip(range(100), job.steps(engine), strict=False):
        pass
    assert len(job.vectors) == 3
    assert engine.blocks.used == 0


def test_energy_of_embeddings_is_their_own_and_no_answers(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine()
    with serve_in_thread(engine, "tiny") as server:
        body = {"model": "tiny", "input": ["drops " * 50] * 8}
        usage = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=30).json()["usage"]
        answer = httpx.post(f"{server.url}/v1/chat/completions", json={**ASK, "max_tokens": 3}, timeout=30).json()[
            "usage"
        ]
        server.wait_until_idle()
    joules = usage["energy"]["joules"] + answer["energy"]["joules"]
    assert usage["energy"]["joules"] > 0
    assert joules == pytest.approx(engine.energy.spent.billed / 1e6, abs=1e-9)


def test_tokens_become_text_again(tiny_server: RunningServer) -> None:
    tokens = httpx.post(f"{tiny_server.url}/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    assert httpx.post(f"{tiny_server.url}/detokenize", json={"tokens": tokens}).json() == {"prompt": PROMPT}
    refused = httpx.post(f"{tiny_server.url}/detokenize", json={"tokens": [10**9]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tokens")
    assert httpx.post(f"{tiny_server.url}/detokenize", json={"tokens": "x"}).status_code == 400
