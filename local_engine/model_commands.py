"""Commands that judge models and make new ones: `perplexity`, `quantize`, `prune`; errors are one line and exit status 1."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from local_engine.cli_options import hub_of, run_options, shared_options
from local_engine.config import EngineConfig
from local_engine.errors import EngineError, ModelError
from local_engine.model_files import resolve_model

_MIB = 1 << 20
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_OUT = click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write; a new one.")
_TEXT = click.option("--text", type=click.Path(path_type=Path), required=True, help="File of real text, UTF-8.")


@click.command()
@click.argument("model")
@click.option("--to", "to", type=click.Choice(["int8", "int4", "fp8"]), required=True, help="Number format.")
@_OUT
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    default=None,
    help="File of text, UTF-8, for which int4 values are chosen (GPTQ): minutes, for a fraction of the loss.",
)
@click.option(
    "--tokens", type=click.IntRange(min=16), default=32768, show_default=True, help="Most tokens of that text to read."
)
@shared_options
@_AS_JSON
def quantize(
    model: str, to: Any, out: Path, text: Path | None, tokens: int, weights_dir: Path, hub_url: str, as_json: bool
) -> None:
    """Write a model with quantised weights to a directory that serve loads."""
    from local_engine.progress import stages
    from local_engine.quantization.convert import check_out, quantize_model

    try:
        page = None if text is None else read_text(text)
        check_out(out.expanduser())  # before anything is fetched
        files = resolve_model(model, weights_dir.expanduser(), hub_of(hub_url))
        with stages() as stage:
            done = quantize_model(files.path, to, out.expanduser(), text=page, tokens=tokens, stage=stage)
    except EngineError as error:
        raise click.ClickException(error.message) from error
    document = {**asdict(done), "directory": str(done.directory)}
    sizes = f"{done.bytes_before / _MIB:.0f} MiB before, {done.bytes_after / _MIB:.0f} MiB as {to}"
    calibrated = f", calibrated on {done.calibrated} tokens" if done.calibrated else ""
    click.echo(json.dumps(document) if as_json else f"{done.directory}: {sizes}{calibrated}")


@click.command("perplexity")
@click.argument("model")
@_TEXT
@click.option("--context", type=click.IntRange(min=4), default=512, show_default=True, help="Tokens per window.")
@click.option(
    "--tokens", type=click.IntRange(min=2), default=16384, show_default=True, help="Most tokens of the text to read."
)
@click.option("--kv-dtype", type=click.Choice(["auto", "int8", "fp8"]), default="auto", show_default=True,
              help="Number format of the cache.")  # fmt: skip
@run_options
@shared_options
@_AS_JSON
def measure_perplexity(model: str, text: Path, context: int, tokens: int, **options: Any) -> None:
    """Measure how well a model predicts a text: lower is better, compare only within one text and tokenizer."""
    import torch

    from local_engine.loading import build_runner, choose_format
    from local_engine.models.open import open_model
    from local_engine.perplexity import check_context, check_length, perplexity
    from local_engine.progress import bar

    as_json, threads = options.pop("as_json"), options.pop("threads")
    hub, weights_dir = hub_of(options.pop("hub_url")), options.pop("weights_dir").expanduser()
    if threads:
        torch.set_num_threads(threads)
    try:
        page = read_text(text)
        files = resolve_model(model, weights_dir, hub)
        config = EngineConfig(
            **options, max_batch=1, max_context=context, step_tokens=context, cache_tokens=context + 16
        )
        source, tokenizer = open_model(files.path)
        check_context(context, source.config)
        ids = tokenizer.encode(page)[:tokens]
        check_length(ids)
        with bar("loading") as progress:
            runner = build_runner(source, config, progress)
        with bar("reading the text") as progress:
            result = perplexity(runner, ids, context=context, progress=progress)
    except EngineError as error:
        raise click.ClickException(error.message) from error
    options["quantize"] = choose_format(source, config)
    document = {"model": model, **options, "context": context, **asdict(result)}
    click.echo(json.dumps(document) if as_json else f"perplexity {result.value:.4f} over {result.tokens} tokens")


def read_text(path: Path) -> str:
    """The file's text. Raises ModelError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{str(path)!r} cannot be read as UTF-8 text: {error}") from error


@click.command()
@click.argument("model")
@_TEXT
@click.option("--layers", type=click.IntRange(min=1), required=True, help="How many layers to drop.")
@_OUT
@click.option(
    "--distil-steps",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Training steps, one window each, in which the pruned model learns from the whole one.",
)
@click.option("--context", type=click.IntRange(min=16), default=256, show_default=True, help="Tokens per window.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=2e-4,
    show_default=True,
    help="Of the training steps.",
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="CPU threads; 0 leaves the choice to torch.  [default: 0]"
)
@shared_options
@_AS_JSON
def prune(
    model: str, text: Path, layers: int, out: Path, distil_steps: int, threads: int, as_json: bool, **options: Any
) -> None:
    """Write a model without its least influential layers to a directory that serve loads, also as a draft model."""
    import torch

    from local_engine.progress import stages
    from local_engine.pruning.prune import prune_model
    from local_engine.quantization.convert import check_out

    hub, weights_dir = hub_of(options.pop("hub_url")), options.pop("weights_dir").expanduser()
    if threads:
        torch.set_num_threads(threads)
    try:
        page = read_text(text)
        check_out(out.expanduser())
        files = resolve_model(model, weights_dir, hub)
        with stages() as stage:
            done = prune_model(files.path, page, layers, out.expanduser(), steps=distil_steps, stage=stage, **options)
    except EngineError as error:
        raise click.ClickException(error.message) from error
    document = {**asdict(done), "directory": str(done.directory)}
    click.echo(json.dumps(document) if as_json else _pruned_table(document))


def _pruned_table(done: dict[str, Any]) -> str:
    lines = [f"{done['directory']}: without layers {', '.join(map(str, done['dropped']))}"]
    for name in ("before", "pruned", "recovered"):
        figures = done[name]
        if figures is not None:
            lines.append(
                f"{name}: perplexity {figures['perplexity']:.2f}, {figures['parameters'] / 1e6:.1f} million parameters"
            )
    lines.append(f"one stream: {done['speed_before']:.1f} tok/s before, {done['speed_after']:.1f} after")
    return "\n".join(lines)
