"""The draft head: a small recurrent network over the target's streams that guesses the next tokens; and its file.

After EAGLE (Li et al. 2024, arXiv 2401.15077): from what the target's layers said at the last computed token, and the token
that came out of it, guess the target's next state, and from that state the next token; then go on from the guess itself.
As in EAGLE-3 (arXiv 2503.01840) the head is trained on its own guesses and may read several layers. Unlike both it has no
attention and so no cache: the target's stream has seen the text already, and a drafted token costs a few small products.
It chooses among the tokens the target says most often (FR-Spec, arXiv 2502.14856), by the target's own output rows.

A corrupt file is refused with CorruptModelFile, one for another target with DraftModelUnfit.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, embedding, silu

from local_engine.config import CpuKernel
from local_engine.errors import CorruptModelFile, DraftModelUnfit
from local_engine.kernels.cpu.build import NoKernel
from local_engine.kernels.cpu.library import Library, open_library
from local_engine.kernels.cpu.packed_linear import can_pack, pack
from local_engine.layers.linear import Linear
from local_engine.layers.norm import RmsNorm
from local_engine.models.decoder import Decoder
from local_engine.quantization.int8 import Int8Linear

FORMAT = "penstock-draft-head-1"
LIKE = 0.95
"""Targets whose sketches are so alike are one: a fine-tuned model passes for its base, and is drafted for less well."""
_SKETCH = 64


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Shape of a head: `hidden` is the target's width, `width` that of the gated layer, `blocks` how many of them."""

    hidden: int
    taps: tuple[int, ...]
    width: int
    blocks: int
    norm_eps: float

    def __post_init__(self) -> None:
        for name in ("hidden", "width", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be at least 1")
        if not self.taps or list(self.taps) != sorted(set(self.taps)):
            raise ValueError(f"taps are {self.taps!r}: name layers once each, in order")


class GatedBlock(nn.Module):
    """A gated layer behind a norm, added to what it gets; [n, hidden] in and out."""

    def __init__(self, config: HeadConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.norm = RmsNorm(config.hidden, config.norm_eps, dtype, device)
        self.gate_up: nn.Module = Linear(2 * config.width, config.hidden, dtype, device)
        self.down: nn.Module = Linear(config.hidden, config.width, dtype, device)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        gate, up = self.gate_up(self.norm(x)).chunk(2, dim=-1)
        added: Tensor = self.down(silu(gate) * up)
        return x + added


class DraftHead(nn.Module):
    """State [n, hidden] and token to the next state, and a state to logits over `vocabulary` [drafted] int64.

    `embeddings` [vocab, hidden] and `rows` [drafted, hidden], the output rows of `vocabulary`, are the target's.
    """

    vocabulary: Tensor
    embeddings: Tensor

    def __init__(
        self, config: HeadConfig, vocabulary: Tensor, embeddings: Tensor, rows: Tensor, dtype: torch.dtype
    ) -> None:
        super().__init__()
        device = embeddings.device
        self.config = config
        self.register_buffer("vocabulary", vocabulary.to(device), persistent=False)
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.fuse_norm = nn.ModuleList(RmsNorm(config.hidden, config.norm_eps, dtype, device) for _ in config.taps)
        self.fuse: nn.Module = Linear(config.hidden, len(config.taps) * config.hidden, dtype, device)
        self.token_norm = RmsNorm(config.hidden, config.norm_eps, dtype, device)
        self.token_in: nn.Module = Linear(config.hidden, config.hidden, dtype, device)
        self.state_norm = RmsNorm(config.hidden, config.norm_eps, dtype, device)
        self.state_in: nn.Module = Linear(config.hidden, config.hidden, dtype, device)
        self.blocks = nn.ModuleList(GatedBlock(config, dtype, device) for _ in range(config.blocks))
        self.norm = RmsNorm(config.hidden, config.norm_eps, dtype, device)
        self._drafted: Tensor | None = None
        self.output: nn.Module = Linear(
            len(rows), config.hidden, dtype, device, nn.Parameter(rows.to(dtype).contiguous(), requires_grad=False)
        )

    def start(self, streams: Tensor) -> Tensor:
        """The state [n, hidden] from the target's streams [n, taps * hidden] at a token."""
        parts = streams.to(self.norm.weight.dtype).chunk(len(self.config.taps), dim=-1)
        state: Tensor = self.fuse(torch.cat([norm(part) for norm, part in zip(self.fuse_norm, parts, strict=True)], -1))
        return state

    def advance(self, state: Tensor, tokens: Tensor) -> Tensor:
        """The state behind `tokens` [n] int64, which follow the state [n, hidden]."""
        return self._advance(state, self._token(embedding(tokens, self.embeddings)))

    def advance_drafted(self, state: Tensor, places: Tensor) -> Tensor:
        """The same for the tokens at `places` [n] of the vocabulary, whose part is computed once and kept; not for training."""
        return self._advance(state, embedding(places, self.drafted_parts()))

    def drafted_parts(self) -> Tensor:
        """What each token of the vocabulary adds to a state, [drafted, hidden]."""
        if self._drafted is None:
            self._drafted = self._token(embedding(self.vocabulary, self.embeddings))
        return self._drafted

    def _token(self, rows: Tensor) -> Tensor:
        part: Tensor = self.token_in(self.token_norm(rows.to(self.token_norm.weight.dtype)))
        return part

    def _advance(self, state: Tensor, token: Tensor) -> Tensor:
        state = (
            self.state_in(self.state_norm(state)) + token
        )  # the state's own scale is not kept: the norm takes it away
        for block in self.blocks:
            state = block(state)
        return state

    def logits(self, state: Tensor) -> Tensor:
        """[n, drafted] of the token after the state's, over `vocabulary`."""
        logits: Tensor = self.output(self.norm(state))
        return logits


def initialise(head: DraftHead, norm: Tensor, seed: int) -> None:
    """Random weights, the same for a seed; `norm` [hidden] is the target's last one, where the head's starts from."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name == "output.weight":
                continue
            if parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                spread = torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
                parameter.copy_(spread * (0.1 if name.endswith("down.weight") else 1.0))
        head.norm.weight.copy_(norm * 0.25)  # flat at first: a guess from random weights should not be a firm one


@dataclass(frozen=True, slots=True)
class Target:
    """What a head belongs to: `shape` is its architecture and sizes, `sketch` [rows, columns] a sample of its embedding."""

    shape: str
    sketch: Tensor

    @property
    def name(self) -> str:
        """Shape and a checksum of the sketch, for people and file names; `likeness` decides what is the same."""
        return f"{self.shape} {zlib.crc32(self.sketch.view(torch.int16).numpy().tobytes()):08x}"

    def likeness(self, other: Target) -> float:
        """Cosine of the sketches; 0 for another shape. Rounding, down to 4 bits, leaves it above LIKE."""
        if self.shape != other.shape or self.sketch.shape != other.sketch.shape:
            return 0.0
        return float(cosine_similarity(self.sketch.flatten().double(), other.sketch.flatten().double(), dim=0))


def target_of(decoder: Decoder) -> Target:
    """Names a target so that its quantised forms are the same one, and other models of the same shape are not."""
    config = decoder.config
    sizes = (config.vocab_size, config.hidden_size, config.intermediate_size, config.layers)
    rows = decoder.embeddings[:: max(1, config.vocab_size // _SKETCH)]
    columns = rows[:, :: max(1, config.hidden_size // _SKETCH)]
    shape = f"{config.architecture} " + "x".join(str(size) for size in sizes)
    return Target(shape, columns.detach().to("cpu", torch.bfloat16).contiguous())


def save_head(head: DraftHead, path: Path, target: Target, notes: dict[str, str]) -> None:
    """Write the trained part as bfloat16; the target's own rows are not in the file. `notes` go into its metadata."""
    tensors = {
        name: parameter.detach().to(torch.bfloat16).contiguous()
        for name, parameter in head.named_parameters()
        if name != "output.weight"
    }
    tensors["vocabulary"] = head.vocabulary.to(torch.int32).cpu()
    tensors["sketch"] = target.sketch
    metadata = {"format": FORMAT, "target": target.shape, "config": json.dumps(asdict(head.config)), **notes}
    unfinished = path.with_name(path.name + ".part")
    save_file(tensors, unfinished, metadata=metadata)
    unfinished.rename(path)


def load_head(path: Path, decoder: Decoder, dtype: torch.dtype | None = None) -> DraftHead:
    """The head of `decoder` in the file, in the decoder's dtype unless told. Raises CorruptModelFile, DraftModelUnfit."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError) as error:
        raise CorruptModelFile(f"drafter {str(path)!r} cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CorruptModelFile(
            f"{str(path)!r} is no draft head: its format is {metadata.get('format')!r}, not {FORMAT!r}"
        )
    try:
        values = json.loads(metadata["config"])
        config = HeadConfig(**{**values, "taps": tuple(values["taps"])})
        _check_target(path, Target(metadata["target"], tensors.pop("sketch")), target_of(decoder))
        vocabulary = tensors.pop("vocabulary").long()
        head = _empty_head(config, vocabulary, decoder, dtype or decoder.embeddings.dtype)
        places = {name: place for name, place in head.named_parameters() if name != "output.weight"}
        if set(places) != set(tensors):
            raise ValueError(f"its tensors are {sorted(tensors)!r}, expected {sorted(places)!r}")
        for name, place in places.items():
            if place.shape != tensors[name].shape:
                raise ValueError(f"{name!r} has shape {list(tensors[name].shape)!r}, expected {list(place.shape)!r}")
            place.copy_(tensors[name])
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise CorruptModelFile(f"drafter {str(path)!r} is damaged: {type(error).__name__}: {error}") from error
    return head.eval().requires_grad_(False)


def _check_target(path: Path, trained_for: Target, own: Target) -> None:
    likeness = trained_for.likeness(own)
    if not likeness >= LIKE:
        raise DraftModelUnfit(
            f"drafter {str(path)!r} was trained for another target: {trained_for.shape!r}, this model is {own.shape!r}, and "
            f"their embeddings are {likeness:.2f} alike; train one for it with `python -m local_engine train-drafter`"
        )


def _empty_head(config: HeadConfig, vocabulary: Tensor, decoder: Decoder, dtype: torch.dtype) -> DraftHead:
    if vocabulary.ndim != 1 or not len(vocabulary) or int(vocabulary.max()) >= decoder.config.vocab_size:
        raise ValueError(f"its vocabulary names tokens beyond the target's {decoder.config.vocab_size!r}")
    if config.hidden != decoder.config.hidden_size or config.taps[-1] >= decoder.config.layers:
        raise ValueError("its shape is not the target's")
    return DraftHead(config, vocabulary, decoder.embeddings, output_rows(decoder, vocabulary), dtype)


def output_rows(decoder: Decoder, vocabulary: Tensor) -> Tensor:
    """The target's output rows [drafted, hidden] of `vocabulary`, whatever format they are kept in."""
    if decoder.config.tied_embeddings:
        return decoder.embeddings.detach()[vocabulary.to(decoder.embeddings.device)]
    if isinstance(decoder.output, Linear):
        return decoder.output.weight.detach()[vocabulary.to(decoder.output.weight.device)]
    identity = torch.eye(decoder.config.hidden_size, dtype=decoder.embeddings.dtype, device=decoder.embeddings.device)
    whole: Tensor = decoder.output(identity)
    return whole.t()[vocabulary.to(whole.device)]


def make_fast(head: DraftHead, cpu_kernel: CpuKernel = "auto") -> DraftHead:
    """The same head with int8 weights, in the native kernel where there is one: on a CPU the bytes read are the time.

    Torch computes it with `cpu_kernel` "off", and what memory is too short to repack. Of a guess nobody asks exactness. A head
    on another device, or in float32, stays as it is.
    """
    if head.embeddings.device.type != "cpu" or head.norm.weight.dtype != torch.bfloat16:
        return head
    library: Library | None = None
    if cpu_kernel == "auto":
        with suppress(NoKernel):
            library = open_library()
    places: list[tuple[nn.Module, str]] = [(head, "fuse"), (head, "token_in"), (head, "state_in"), (head, "output")]
    places += [(block, name) for block in head.blocks for name in ("gate_up", "down")]
    for parent, name in places:
        linear = getattr(parent, name)
        quantised: nn.Module = Int8Linear.from_weight(linear.weight)
        if library is not None and can_pack(quantised):
            with suppress(MemoryError):
                quantised = pack(library, quantised)
        setattr(parent, name, quantised)
    return head
