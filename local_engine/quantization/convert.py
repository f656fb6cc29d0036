"""Offline: a model becomes a directory of quantised weights that `serve` loads as it loads any other.

The directory is written beside its place and moved there when complete, so a killed run leaves nothing half-written.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from local_engine.config import ModelConfig, Quantization
from local_engine.errors import CannotQuantize
from local_engine.model_files import sampling_defaults
from local_engine.models.decoder import Decoder
from local_engine.models.load import load_decoder
from local_engine.models.open import open_model
from local_engine.models.places import places, stored_places
from local_engine.models.weights import WeightSource, read_json
from local_engine.quantization.calibrate import calibrate, read_windows
from local_engine.quantization.places import Format
from local_engine.quantization.saved import WEIGHTS, write_manifest
from local_engine.tokenizer import Tokenizer

_COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
_GENERATION = "generation_config.json"
_CONTEXT = 512  # tokens of a window
Stage = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and the whole of it."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written where; bytes are those of the weights, before as they were stored. `calibrated` on so many tokens."""

    directory: Path
    quantize: Quantization
    bytes_before: int
    bytes_after: int
    calibrated: int


def quantize_model(
    path: Path,
    quantize: Format,
    out: Path,
    *,
    text: str | None = None,
    tokens: int = 32768,
    stage: Stage = lambda name, done, total: None,
) -> Converted:
    """Quantise the model at `path` into the new directory `out`, one tensor at a time.

    With a `text` the values of int4 are chosen for its first `tokens` tokens, for which the model is in memory in bfloat16 as
    well. Raises ModelError: CannotQuantize for a model that is quantised already or does not suit the format, for a text
    that is too short or with another format, and when `out` is there already or cannot be written.
    """
    check_out(out)
    if text is not None and quantize != "int4":
        raise CannotQuantize(f"a text to calibrate on is for int4: {quantize} rounds to what is nearest; leave it out")
    source, tokenizer = open_model(path)
    if source.stored != "none":
        raise CannotQuantize(f"{str(path)!r} is {source.stored} already: quantise the original model")
    context = min(_CONTEXT, source.config.max_positions)
    windows = [] if text is None else read_windows(tokenizer.encode(text), context, tokens)
    # Norms stay in float32, the few bytes they are; matrices never are in full precision together.
    decoder = load_decoder(
        source, positions=1, dtype=torch.float32, device=torch.device("cpu"), quantize=quantize,
        progress=partial(stage, "quantising"),
    )  # fmt: skip
    if windows:
        calibrate(_in_floats(source, context, stage), decoder, windows, partial(stage, "calibrating"))
    write_model(decoder, tokenizer, path, out, quantize)
    return Converted(out, quantize, weight_bytes(path), weight_bytes(out), sum(len(each) for each in windows))


def _in_floats(source: WeightSource, positions: int, stage: Stage) -> Decoder:
    cpu = torch.device("cpu")
    return load_decoder(
        source, positions=positions, dtype=torch.bfloat16, device=cpu, progress=partial(stage, "loading")
    )


def write_model(decoder: Decoder, tokenizer: Tokenizer, original: Path, out: Path, quantize: Quantization) -> None:
    """The decoder as the new directory `out`; what else belongs to a model comes from `original`."""
    if quantize == "none":
        tensors = {name: place for name, place in places(decoder).items() if isinstance(place, Tensor)}
    else:
        tensors = {name: place for name, place in stored_places(decoder).items() if isinstance(place, Tensor)}
        if "embeddings" in tensors:  # untied ones are read row by row and stay as models are published
            tensors["embeddings"] = tensors["embeddings"].bfloat16()
    with _arriving(out) as directory:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, directory / WEIGHTS)
        (directory / WEIGHTS).chmod(0o644)  # made for its owner alone; a server may run as somebody else
        _write_settings(original, directory, decoder.config, quantize)
        _write_tokenizer(tokenizer, original, directory)
        write_manifest(directory, quantize, decoder.config)


def check_out(out: Path) -> None:
    """Raise CannotQuantize when there is something at `out` already, or nothing can be written beside it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CannotQuantize(f"{str(out)!r} is there already and not an empty folder: name a new one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent):
            pass
    except OSError as error:
        raise CannotQuantize(f"{str(out)!r} cannot be written ({error.strerror}): name another --out") from error


def weight_bytes(path: Path) -> int:
    """Bytes of a model's weights on disk."""
    return path.stat().st_size if path.is_file() else sum(each.stat().st_size for each in path.glob("*.safetensors"))


@contextmanager
def _arriving(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when all went well, and vanishes otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        directory = Path(temporary) / "model"
        directory.mkdir()
        yield directory
        if out.is_dir():
            out.rmdir()  # empty: `check_out` saw to it
        directory.rename(out)


def _write_settings(original: Path, directory: Path, config: ModelConfig, quantize: Quantization) -> None:
    """config.json for people and other tools; this engine itself reads the shape from the manifest."""
    values: dict[str, Any] = {"model_type": config.architecture, "vocab_size": config.vocab_size}
    if original.is_dir():
        values = read_json(original / "config.json")
    values["num_hidden_layers"] = config.layers
    if quantize != "none":
        values["quantization_config"] = {"quant_method": f"penstock-{quantize}"}  # no other loader shall misread them
    (directory / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(tokenizer: Tokenizer, original: Path, directory: Path) -> None:
    settings: dict[str, Any] = {"eos_token_id": sorted(tokenizer.end_ids)}
    if original.is_dir():
        for name in _COPIED:
            if (original / name).is_file():
                shutil.copyfile(original / name, directory / name)
        settings |= read_json(original / _GENERATION) if (original / _GENERATION).is_file() else {}
    else:
        tokenizer.save(directory)
    settings |= asdict(sampling_defaults(original))
    (directory / _GENERATION).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
