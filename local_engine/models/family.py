"""What a family of models says about itself, and the reading of configuration that all families share.

A new family is one file in `families/` and its name in `registry.py`. Its two functions get the configuration as it
would be for a Llama of that shape, and the file's values, and return it with the family's flags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local_engine.config import SIZES, Activation, ModelConfig
from local_engine.errors import UnknownArchitecture
from local_engine.layers.rope import llama3_factors

Values = Mapping[str, Any]
"""Content of config.json; or of GGUF metadata, keys without the architecture's name."""
Adapt = Callable[[ModelConfig, Values], ModelConfig]

_ACTIVATIONS: Mapping[object, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
LONG_FACTORS, SHORT_FACTORS, ROPE_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight", "rope_freqs.weight"


def as_llama(base: ModelConfig, values: Values) -> ModelConfig:
    """A family that differs in nothing."""
    return base


@dataclass(frozen=True, slots=True)
class Family:
    """`architecture` is GGUF's general.architecture, `classes` are the names in config.json's architectures.

    `hub_defaults`: what older config.json files leave out. `norm_offset`: added to norm weights of safetensors, which
    Gemma stores less one (its GGUF files have it added already). `rotary_pairs`: rows of GGUF's query and key matrices
    are in Meta's rotary order. `gguf_names`: layer tensors with another name than the common ones. `prefixes`: what
    stands before canonical names in some checkpoints; `skipped`: beginnings of names of parts that are not text.
    """

    architecture: str
    classes: tuple[str, ...]
    covers: str
    from_hub: Adapt = as_llama
    from_gguf: Adapt = as_llama
    hub_defaults: Values = field(default_factory=dict)
    norm_offset: float = 0.0
    rotary_pairs: bool = False
    gguf_names: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def hub_base(architecture: str, values: Values) -> ModelConfig:
    """A Llama of the shape that config.json describes. Raises UnknownArchitecture for what no family here has."""
    for flag in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        if values.get(flag):
            raise UnknownArchitecture(f"{flag} is {values[flag]!r} in config.json: models with it are not supported")
    method = (values.get("quantization_config") or {}).get("quant_method")
    if method:
        raise UnknownArchitecture(
            f"the weights are quantised by {method!r} (quantization_config in config.json), which is not supported: take "
            "the model it was made from, with --quantize if it has to be small"
        )
    named = values.get("hidden_activation") or values.get("hidden_act", "silu")
    if named not in _ACTIVATIONS:
        raise UnknownArchitecture(
            f"hidden_act is {named!r} in config.json; known: {', '.join(map(repr, _ACTIVATIONS))}"
        )
    heads, hidden = int(values["num_attention_heads"]), int(values["hidden_size"])
    head_dim = _within("head_dim", values.get("head_dim") or hidden // heads)
    rope = hub_rope(values)
    theta, rotary_dim = float(rope["rope_theta"]), int(head_dim * float(rope.get("partial_rotary_factor", 1.0)))
    return ModelConfig(
        architecture=architecture,
        vocab_size=int(values["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(values["intermediate_size"]),
        layers=_within("layers", values["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(values.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        max_positions=int(values["max_position_embeddings"]),
        rope_theta=theta,
        norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        tied_embeddings=bool(values.get("tie_word_embeddings", False)),
        rope_factors=_hub_factors(rope, rotary_dim, theta),
        rotary_dim=None if rotary_dim == head_dim else rotary_dim,
        activation=_ACTIVATIONS[named],
    )


def _within(name: str, value: object) -> int:
    """The number, if it is one that `ModelConfig` takes: what follows counts to it."""
    number = int(str(value))
    if not 1 <= number <= SIZES[name]:
        raise ValueError(f"{name} is {number!r}: it must be 1 to {SIZES[name]}")
    return number


def hub_rope(values: Values, layers: str = "full_attention") -> dict[str, Any]:
    """The rotary settings of one kind of layers: transformers 5 has them in one place, earlier versions in several."""
    new = values.get("rope_parameters") or {}
    outer = {key: values[key] for key in ("rope_theta", "partial_rotary_factor") if values.get(key) is not None}
    return {"rope_theta": 10000.0, **outer, **(values.get("rope_scaling") or {}), **(new.get(layers) or new)}


def rope_kind(rope: Values) -> object:
    """The name of the rotary scaling."""
    return rope.get("rope_type", rope.get("type", "default"))


def _hub_factors(rope: Values, rotary_dim: int, theta: float) -> tuple[float, ...] | None:
    kind = rope_kind(rope)
    if kind in ("default", "longrope", "su"):  # the last two are Phi-3's, which reads the rest itself
        return None
    if kind == "llama3":
        return llama3_factors(rotary_dim, theta, rope)
    if kind == "linear":
        return (float(rope["factor"]),) * (rotary_dim // 2)
    raise UnknownArchitecture(
        f"rope type {kind!r} in config.json is not supported; known: default, linear, llama3, longrope (Phi-3)"
    )


def gguf_base(architecture: str, values: Values, vocab_size: int, tied_embeddings: bool) -> ModelConfig:
    """A Llama of the shape that GGUF metadata describes."""
    heads, hidden = int(values["attention.head_count"]), int(values["embedding_length"])
    head_dim = _within("head_dim", values.get("attention.key_length", hidden // heads))
    if int(values.get("attention.value_length", head_dim)) != head_dim:
        raise UnknownArchitecture(f"keys have {head_dim} elements and values another number: that is not supported")
    rotary_dim = _within("head_dim", values.get("rope.dimension_count", head_dim))
    return ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        hidden_size=hidden,
        # A file with experts only may leave it out.
        intermediate_size=int(values.get("feed_forward_length") or values["expert_feed_forward_length"]),
        layers=_within("layers", values["block_count"]),
        heads=heads,
        kv_heads=int(values.get("attention.head_count_kv", heads)),
        head_dim=head_dim,
        max_positions=int(values["context_length"]),
        rope_theta=float(values.get("rope.freq_base", 10000.0)),
        norm_eps=float(values["attention.layer_norm_rms_epsilon"]),
        tied_embeddings=tied_embeddings,
        rope_factors=_gguf_factors(values, rotary_dim),
        rotary_dim=None if rotary_dim == head_dim else rotary_dim,
    )


def _gguf_factors(values: Values, rotary_dim: int) -> tuple[float, ...] | None:
    kind = values.get("rope.scaling.type", "none")
    if kind == "linear":
        return (float(values["rope.scaling.factor"]),) * (rotary_dim // 2)
    if kind not in ("none", "longrope"):
        raise UnknownArchitecture(
            f"rope scaling {kind!r} in the GGUF metadata is not supported; known: none, linear, longrope (Phi-3)"
        )
    return values.get(ROPE_FACTORS)


def windows(values: Values, layers: int, size: object, windowed: Callable[[int], bool]) -> tuple[int | None, ...]:
    """A window of `size` for each layer that `layer_types` of config.json, or else `windowed`, says to have one."""
    if not size:
        return ()
    kinds = values.get("layer_types")
    chosen = [windowed(layer) if kinds is None else kinds[layer] == "sliding_attention" for layer in range(layers)]
    return tuple(int(str(size)) if is_windowed else None for is_windowed in chosen)
