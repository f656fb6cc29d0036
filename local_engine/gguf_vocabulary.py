"""The tokenizer that GGUF metadata describes: byte-level BPE or SentencePiece; any other is refused with the known ones.

Which splits and defaults belong to which name is llama.cpp's knowledge (src/llama-vocab.cpp); where Hugging Face's own
tokenizer of a family does otherwise, that one is followed, as the models were trained with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from local_engine.errors import CorruptModelFile

UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6  # GGUF token types; 1 is an ordinary one
_SPACE = "▁"  # SentencePiece's

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # digits in groups of three
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = _WORDS % ("", "") + r"|\p{N}" + _REST
_GPT4O = _WORDS % (("(?i:'s|'t|'re|'ve|'m|'ll|'d)?",) * 2) + r"|\p{N}{1,3}" + _REST


@dataclass(frozen=True, slots=True)
class Split:
    """How text is cut before merging. `whole`: a word that is a token needs no merges; `first`: text begins with BOS."""

    pattern: str
    digits: bool = False
    composed: bool = False
    whole: bool = False
    first: bool = False


SPLITS: Mapping[str, Split] = {
    "default": Split(_GPT2),
    "gpt-2": Split(_GPT2),
    "smollm": Split(_GPT2, digits=True),
    "llama-bpe": Split(_LLAMA3, whole=True, first=True),
    "llama3": Split(_LLAMA3, whole=True, first=True),
    "llama-v3": Split(_LLAMA3, whole=True, first=True),
    "dbrx": Split(_LLAMA3),
    "smaug-bpe": Split(_LLAMA3),
    "qwen2": Split(_QWEN2, composed=True),
    "deepseek-r1-qwen": Split(_QWEN2, composed=True),
    "tekken": Split(_TEKKEN, whole=True, first=True),
    "gpt-4o": Split(_GPT4O),
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokenizer, its tokens by number with their GGUF types, and whether plain text begins with BOS."""

    fast: Tokenizer
    tokens: Sequence[str]
    types: Sequence[int]
    bos_first: bool


def vocabulary_from_gguf(metadata: Mapping[str, Any]) -> Vocabulary:
    """What tokenizer.ggml.* says. Raises CorruptModelFile."""
    readers = {"gpt2": _byte_level, "llama": _sentencepiece}
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in readers:
        raise CorruptModelFile(
            f"tokenizer.ggml.model is {kind!r}; known: {', '.join(readers)}. Use the model's safetensors instead"
        )
    try:
        tokens = list(metadata["tokenizer.ggml.tokens"])
        types = list(metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens))
        fast, bos_first = readers[kind](metadata, tokens, types)
        # As whole tokens: control tokens, which are not text, and user-defined ones, which are.
        for wanted, special in ((CONTROL, True), (USER_DEFINED, False)):
            whole = [token for token, found in zip(tokens, types, strict=True) if found == wanted and token]
            trimmed = _trimmed(metadata, whole) if special else frozenset()
            fast.add_tokens([AddedToken(t, special=special, normalized=False, rstrip=t in trimmed) for t in whole])
    except CorruptModelFile:
        raise
    except Exception as error:  # the tokenizers package raises bare Exception for bad merges
        raise CorruptModelFile(f"the tokenizer in the GGUF metadata cannot be used: {error}") from error
    return Vocabulary(fast, tokens, types, bool(metadata.get("tokenizer.ggml.add_bos_token", bos_first)))


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> tuple[Tokenizer, bool]:
    name = metadata.get("tokenizer.ggml.pre", "default")
    split = SPLITS.get(name)
    if split is None:
        raise CorruptModelFile(
            f"tokenizer.ggml.pre is {name!r}; known: {', '.join(SPLITS)}. Use the model's safetensors instead"
        )
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False, ignore_merges=split.whole))
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Split(Regex(split.pattern), behavior="isolated")]
    if split.digits:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    if split.composed:
        fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    fast.decoder = decoders.ByteLevel()
    return fast, split.first


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> tuple[Tokenizer, bool]:
    gemma = str(metadata.get("general.architecture")).startswith("gemma")
    if gemma:  # tokens of several spaces are stored as such, where all others spell a space otherwise
        tokens[:] = [_SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]
    # Gemma's tokens were merged in the order of their numbers, which its scores do not follow.
    scores = [-float(index) for index in range(len(tokens))] if gemma else metadata["tokenizer.ggml.scores"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    text = {t: s for t, s, kind in zip(tokens, scores, types, strict=True) if kind not in (UNKNOWN, CONTROL, BYTE)}
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    fast = Tokenizer(
        models.BPE(vocab=vocabulary, merges=_merges(text), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        # Behind a control token as well, where the chat template has not put a space there itself.
        fast.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=False)
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        fast.normalizer = normalizers.Replace(" ", _SPACE)
    fast.decoder = decoders.Sequence(steps)
    return fast, True


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merges that a vocabulary implies: of two pieces that make a piece, the best-scored first."""
    found = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            if piece[:cut] in scores and piece[cut:] in scores:
                found.append((-score, -cut, piece))
    found.sort()
    return [(piece[:-cut], piece[-cut:]) for _, cut, piece in found]


def _trimmed(metadata: Mapping[str, Any], control: Sequence[str]) -> frozenset[str]:
    """Control tokens that swallow the space behind them; no key says so, it is Phi-3's habit."""
    if metadata.get("general.architecture") != "phi3" or metadata.get("tokenizer.ggml.model") != "llama":
        return frozenset()
    return frozenset(control) - {"<unk>", "<s>", "<|endoftext|>"}
