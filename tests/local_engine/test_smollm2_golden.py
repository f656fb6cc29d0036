"""SmolLM2-135M-Instruct: tokens, greedy answers and the capital of France, beside transformers on the same weights."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from local_engine.cache_size import CacheSize
from local_engine.config import EngineConfig
from local_engine.engine import Completion, Engine
from local_engine.loading import load_engine
from local_engine.model_runner import ModelRunner
from local_engine.request import SamplingParams
from local_engine.speculative.ngram import NgramDrafter

PROMPTS = (
    "What is the capital of France?",
    "Name three colours.",
    "What is 17 + 25?",
    "Write a haiku about a river.",
    "Translate to French: good morning",
    "Who wrote Hamlet?",
    "Explain photosynthesis to a child.",
    "def fibonacci(n):",
    "List the planets of the solar system.",
    "Why is the sky blue?",
    "Summarise: The gate opens at noon and closes at six.",
    "What does HTTP stand for?",
    "Give me a recipe with two eggs.",
    "Is 91 a prime number?",
    "Das Wetter ist heute",
    "日本の首都はどこですか？",
    "Write an e-mail that asks for a day off.",
    "What is the boiling point of water in °F?",
    "Tell me a joke about databases. 😀",
    "SELECT name FROM users WHERE",
)
LENGTH = 16
CONFIG = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    tie_word_embeddings=True,
)


@pytest.fixture(scope="module")
def engine(smollm2_path: Path) -> Engine:
    return load_engine(smollm2_path, EngineConfig(dtype="float32", max_batch=len(PROMPTS), max_context=1024))


@pytest.fixture(scope="module")
def transformers_model(smollm2_path: Path) -> LlamaForCausalLM:
    """Weights through transformers' own GGUF conversion, which undoes the rotary permutation by itself."""
    model = LlamaForCausalLM(CONFIG).eval()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        tensors = load_gguf_checkpoint(str(smollm2_path), return_tensors=True, model_to_load=model)["tensors"]
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    assert missing == ["lm_head.weight"], "tied to the embeddings"
    model.tie_weights()
    return model


def prompt_tokens(engine: Engine, text: str) -> list[int]:
    return engine.tokenizer.encode_chat([{"role": "user", "content": text}])


def generate_together(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    params = SamplingParams(max_tokens=LENGTH, temperature=0, ignore_eos=True)
    requests = [engine.new_request(prompt, params) for prompt in prompts]
    for request in requests:
        engine.add(request)
    while engine.busy:
        engine.step()
    engine.check_integrity()
    return [request.answer for request in requests]


def test_greedy_tokens_equal_transformers_on_twenty_prompts(
    engine: Engine, transformers_model: LlamaForCausalLM
) -> None:
    prompts = [prompt_tokens(engine, text) for text in PROMPTS]
    answers = generate_together(engine, prompts)
    for prompt, answer, text in zip(prompts, answers, PROMPTS, strict=True):
        ids = torch.tensor([prompt])
        expected = transformers_model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=LENGTH, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        assert answer == expected[0, len(prompt) :].tolist(), text


def test_greedy_tokens_are_the_same_with_speculation(engine: Engine) -> None:
    size = CacheSize(blocks=80, block_size=16, nbytes=0)
    config = EngineConfig(dtype="float32", max_batch=4, max_context=256)
    drafted = Engine(ModelRunner(engine.runner.decoder, size), engine.tokenizer, config, [NgramDrafter()])
    texts = ["Repeat: the cat, the dog, the cat, the dog, the cat", *PROMPTS[:3]]
    prompts = [prompt_tokens(engine, text) for text in texts]
    assert generate_together(drafted, prompts) == generate_together(engine, prompts)
    assert drafted.speculator is not None
    assert drafted.speculator.counts.accepted > 0


def test_the_tokenizer_equals_transformers(engine: Engine, smollm2_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(str(smollm2_path.parent), gguf_file=smollm2_path.name)
    for text in (*PROMPTS, "a  b\tc\r\n\nd", "it's 3.14! \n\n  ünïcode", "<|im_start|>user", "don't WE'LL"):
        assert engine.tokenizer.encode(text) == theirs(text).input_ids, text
        assert "<|" in text or engine.tokenizer.decode(engine.tokenizer.encode(text)) == text
        chat = theirs.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        assert prompt_tokens(engine, text) == chat["input_ids"], text


def test_digits_are_split_off_before_the_white_space_in_front_of_them(engine: Engine) -> None:
    # llama.cpp's and the hub's rule for SmolLM; transformers' GGUF conversion leaves this step out.
    pieces = [engine.tokenizer.decode([token]) for token in engine.tokenizer.encode("a\r\n\n12")]
    assert pieces == ["a", "\r", "\n\n", "1", "2"]


def test_the_template_adds_its_own_system_prompt_only_when_there_is_none(engine: Engine) -> None:
    with_default = engine.tokenizer.decode(prompt_tokens(engine, "Hi"))
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with_own = engine.tokenizer.decode(engine.tokenizer.encode_chat(own))
    assert "You are a helpful AI assistant named SmolLM" in with_default
    assert "SmolLM" not in with_own
    assert "Be brief." in with_own


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_capital_of_france_is_paris(smollm2_path: Path, dtype: str, engine: Engine) -> None:
    if dtype == "bfloat16":
        engine = load_engine(smollm2_path, EngineConfig(max_context=256))
    prompt = prompt_tokens(engine, "What is the capital of France?")
    answer: Completion = engine.generate(prompt, SamplingParams(max_tokens=32, temperature=0))
    assert (answer.text, answer.finish) == ("The capital of France is Paris.", "stop")


# An 8-bit cache with float32: the two likeliest first tokens are .08 nats apart, and in bfloat16 the processor's own rounding
# decides between them.
@pytest.mark.parametrize(
    "options", [{"quantize": "int8"}, {"quantize": "int4"}, {"kv_dtype": "int8", "dtype": "float32"}], ids=str
)
def test_the_capital_of_france_is_paris_in_fewer_bits_as_well(smollm2_path: Path, options: dict[str, str]) -> None:
    quantized = load_engine(smollm2_path, EngineConfig(max_context=128, **options))
    prompt = prompt_tokens(quantized, "What is the capital of France?")
    answer = quantized.generate(prompt, SamplingParams(max_tokens=12, temperature=0))
    assert (answer.text, answer.finish) == ("The capital of France is Paris.", "stop")
