"""One name for each tensor, whatever file it comes from: Hugging Face's for a Llama, joined matrices taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from torch import Tensor

from local_engine.config import ModelConfig
from local_engine.errors import WrongShape

_GGUF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_GGUF_LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "ffn_gate_exps.weight": "mlp.experts.gate_proj",
    "ffn_up_exps.weight": "mlp.experts.up_proj",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
}
_EXPERTS = ".mlp.experts."


def hub_name(name: str, of_family: Mapping[str, str]) -> str:
    """The name of a GGUF tensor in Hugging Face's scheme; `of_family` goes before the common names of layer tensors."""
    if name in _GGUF_NAMES:
        return _GGUF_NAMES[name]
    _, _, rest = name.partition(".")
    layer, _, kind = rest.partition(".")
    return f"model.layers.{layer}.{of_family.get(kind) or _GGUF_LAYER_NAMES.get(kind, kind)}"


def without_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    """The name as it would be in a checkpoint of the text model alone."""
    for prefix, instead in prefixes.items():
        if name.startswith(prefix):
            return instead + name.removeprefix(prefix)
    return name


def parts(config: ModelConfig, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The tensor under its name, or the parts of a joined one: query, key and value; gate and up; all experts."""
    head, _, kind = name.rpartition("self_attn.qkv_proj")
    if head:
        kv_rows = config.kv_heads * config.head_dim
        sizes = {"q": config.heads * config.head_dim, "k": kv_rows, "v": kv_rows}
        yield from _rows(name, tensor, {f"{head}self_attn.{part}_proj{kind}": rows for part, rows in sizes.items()})
        return
    head, _, kind = name.rpartition(".mlp.gate_up_proj")
    if head:
        names = (f"{head}.mlp.gate_proj{kind}", f"{head}.mlp.up_proj{kind}")
        yield from _rows(name, tensor, dict.fromkeys(names, config.intermediate_size))
        return
    head, joined, kind = name.rpartition(_EXPERTS)
    if not joined or tensor.dim() != 3:
        yield name, tensor
        return
    for number, matrix in enumerate(tensor):
        prefix = f"{head}{joined}{number}."
        if kind.startswith("gate_up_proj"):
            names = (f"{prefix}gate_proj.weight", f"{prefix}up_proj.weight")
            yield from _rows(name, matrix, dict.fromkeys(names, config.expert_size))
        else:
            yield f"{prefix}{kind.removesuffix('.weight')}.weight", matrix


def _rows(joined: str, tensor: Tensor, rows: Mapping[str, int]) -> Iterator[tuple[str, Tensor]]:
    """The parts of `rows` rows each. Raises WrongShape when they are not those of the tensor."""
    total = sum(rows.values())
    if tensor.shape[:1] != (total,):
        raise WrongShape(f"tensor {joined!r} has shape {list(tensor.shape)!r}, expected {total} rows")
    yield from zip(rows, tensor.tensor_split(list(accumulate(rows.values()))[:-1]), strict=True)
