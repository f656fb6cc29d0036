"""Installs the engine's peers under .cache/bench, each in a virtual environment of its own, and makes their files from ours.

    python -m benchmarks.engine_peers          (what `engine_cpu --install-peers` does first)

What is there already is left alone. All peers get the numbers of the one GGUF file: llama.cpp the file itself, transformers a
bfloat16 directory unpacked from it, OpenVINO what `optimum-cli` makes of that directory. Versions are pinned, and the same
versions make the same files, byte for byte. Needs the package index, and a C++ compiler and cmake for llama.cpp.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from benchmarks.results_file import ROOT
from local_engine.model_files import Hub, resolve_model

INSTALLED = ROOT / ".cache" / "bench"
PLAIN = INSTALLED / "smollm2-bfloat16"
OPENVINO_INT8 = INSTALLED / "smollm2-openvino-int8"
OPENVINO_INT4 = INSTALLED / "smollm2-openvino-int4"
LLAMA = ("llama-cpp-python==0.3.36",)
LLAMA_FLAGS = "-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON"
"""Without AMX: built with it, llama.cpp ended at start on the machine that was measured."""
OPENVINO = (
    "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", "openvino==2026.4.1", "optimum-intel==2.2.0",
    "optimum==2.3.0", "nncf==3.4.0", "transformers==5.5.4", "torch==2.13.0",
)  # fmt: skip
TORCH_CPU = "https://download.pytorch.org/whl/cpu"  # the package index's own torch brings CUDA


def install_peers(model: Path) -> None:
    """Whatever is missing of llama.cpp, transformers' files and OpenVINO. Raises CalledProcessError."""
    _install(INSTALLED / "llamacpp", *LLAMA, CMAKE_ARGS=LLAMA_FLAGS)
    if not PLAIN.exists():
        unpack(model, PLAIN)
    _install(INSTALLED / "openvino", *_torch_index(), *OPENVINO, without="torchvision")
    if not OPENVINO_INT8.exists():
        export(PLAIN, OPENVINO_INT8, "int8")


def _torch_index() -> list[str]:
    """The index of torch's CPU builds where it answers: in a closed network asking it costs a minute per package."""
    try:
        with urllib.request.urlopen(f"{TORCH_CPU}/torch/", timeout=5):
            return ["--extra-index-url", TORCH_CPU]
    except OSError:
        return []


def _install(folder: Path, *arguments: str, without: str | None = None, **environment: str) -> None:
    """What pip is told, in a virtual environment that is there only when all of it is in.

    `without` goes again: torchvision may come in a build for another torch, and then nothing can be imported.
    """
    if (folder / "bin" / "python").exists():
        return
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        command = [str(folder / "bin" / "pip"), "install", "--no-input", *arguments]
        subprocess.run(command, check=True, env={**os.environ, **environment})
        if without is not None:
            subprocess.run([command[0], "uninstall", "--yes", without], check=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def export(plain: Path, to: Path, weights: str) -> None:
    """OpenVINO's files of a directory in Hugging Face's layout, matrices as `weights` ("int8": asymmetric, per channel)."""
    beside = to.with_name(f"{to.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    command = [str(INSTALLED / "openvino" / "bin" / "optimum-cli"), "export", "openvino", "--model", str(plain)]
    command += ["--task", "text-generation-with-past", "--weight-format", weights, str(beside)]
    subprocess.run(command, check=True)
    beside.rename(to)


def unpack(model: Path, to: Path) -> None:
    """The GGUF file's numbers as a bfloat16 directory in Hugging Face's layout."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from local_engine.models.open import open_model

    source, tokenizer = open_model(model)
    config = source.config
    loaded = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            max_position_embeddings=config.max_positions, rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, tie_word_embeddings=True,
        )
    ).to(torch.bfloat16)  # fmt: skip
    loaded.load_state_dict(
        {name: tensor for name, tensor in source.tensors() if name != "lm_head.weight"}, strict=False
    )
    loaded.save_pretrained(to)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._fast, eos_token="<|im_end|>").save_pretrained(to)


if __name__ == "__main__":
    install_peers(resolve_model("smollm2-135m-instruct", Path("~/.penstock/weights").expanduser(), Hub()).path)
