"""Options that several commands of the engine share; nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from local_engine.config import CpuKernel, DeviceName, Dtype, QuantizeOption
from local_engine.model_files import DEFAULT_HUB, Hub

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_WEIGHTS_DIR = Path("~/.penstock/weights")
Command = Callable[..., Any]


def shared_options(command: Command) -> Command:
    """The options of every command that needs a model's files."""
    decorators = [
        click.option("--weights-dir", type=click.Path(path_type=Path), default=DEFAULT_WEIGHTS_DIR, show_default=True,
                     help="Folder where fetched models are kept."),
        click.option("--hub-url", envvar="HF_ENDPOINT", default=DEFAULT_HUB, show_default=True,
                     help="Hugging Face hub to fetch from (environment: HF_ENDPOINT; its token: HF_TOKEN)."),
    ]  # fmt: skip
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def model_options(command: Command) -> Command:
    """--model, and the options of every command that runs one."""
    option = click.option("--model", default=DEFAULT_MODEL, show_default=True,
                          help="Known name, hub id (org/name), .gguf file or model directory.")  # fmt: skip
    return option(run_options(command))


def run_options(command: Command) -> Command:
    """The options of every command that runs a model."""
    decorators = [
        click.option("--quantize", type=click.Choice(get_args(QuantizeOption)), default="auto", show_default=True,
                     help="Number format the matrices are brought to while loading; none is --dtype, auto is int8 "
                     "where the native CPU kernel computes, else none."),
        click.option("--cpu-kernel", type=click.Choice(get_args(CpuKernel)), default="auto", show_default=True,
                     envvar="PENSTOCK_ENGINE_CPU_KERNEL",
                     help="Compute steps on a CPU by the native kernel where it can; off leaves them to torch "
                     "(environment: PENSTOCK_ENGINE_CPU_KERNEL)."),
    ]  # fmt: skip
    command = device_options(command)
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def device_options(command: Command) -> Command:
    """Where a model is computed, and in which numbers."""
    decorators = [
        click.option("--dtype", type=click.Choice(get_args(Dtype)), default="bfloat16", show_default=True,
                     help="Number format of weights and cache."),
        click.option("--device", type=click.Choice(get_args(DeviceName)), default="auto", show_default=True,
                     help="Where to compute; auto takes an NVIDIA GPU when there is one."),
        click.option("--threads", type=click.IntRange(min=0), default=0,
                     help="CPU threads; 0 leaves the choice to torch.  [default: 0]"),
    ]  # fmt: skip
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def hub_of(url: str) -> Hub:
    """The hub at `url`, with the token of the environment."""
    return Hub(url=url.rstrip("/"), token=os.environ.get("HF_TOKEN") or None)
