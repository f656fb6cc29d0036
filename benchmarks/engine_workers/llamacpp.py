"""llama.cpp by llama-cpp-python: `python llamacpp.py MODEL.gguf THREADS`."""

import importlib.metadata
import sys

import protocol
from llama_cpp import Llama

model = Llama(sys.argv[1], n_ctx=2048, n_batch=512, n_threads=int(sys.argv[2]), n_threads_batch=int(sys.argv[2]),
              verbose=False)  # fmt: skip
salts = iter(range(1 << 30))


def prefill(tokens: int) -> float:
    model.reset()
    ids = protocol.prompt(tokens, model.n_vocab(), next(salts))
    return protocol.timed(lambda: (model.eval(ids), model.sample(temp=0.0)))


def decode(streams: int, tokens: int) -> float:
    if streams > 1:
        raise protocol.CannotMeasure("llama-cpp-python decodes one stream at a time")
    prefill(32)

    def run() -> None:
        for _ in range(tokens):
            model.eval([model.sample(temp=0.0)])

    return protocol.timed(run)


protocol.answer(f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}, {sys.argv[1].rsplit('/')[-1]}",
                prefill, decode)  # fmt: skip
