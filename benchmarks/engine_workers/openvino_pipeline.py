"""OpenVINO GenAI: `python openvino_pipeline.py EXPORTED_DIRECTORY THREADS`."""

import sys

import numpy
import openvino_genai
import protocol
from openvino import Tensor

pipeline = openvino_genai.LLMPipeline(
    sys.argv[1], "CPU", INFERENCE_NUM_THREADS=int(sys.argv[2]), ATTENTION_BACKEND="SDPA"
)
VOCABULARY = 49000
salts = iter(range(1 << 30))


def generate(prompt_tokens: int, new_tokens: int):
    settings = openvino_genai.GenerationConfig(max_new_tokens=new_tokens, min_new_tokens=new_tokens, ignore_eos=True)
    ids = numpy.array([protocol.prompt(prompt_tokens, VOCABULARY, next(salts))], dtype=numpy.int64)
    return pipeline.generate(openvino_genai.TokenizedInputs(Tensor(ids), Tensor(numpy.ones_like(ids))), settings)


def decode(streams: int, tokens: int) -> float:
    if streams > 1:
        raise protocol.CannotMeasure("only one stream is measured")
    # Time per output token is counted behind the first one, so the prompt is not in it.
    return generate(32, tokens + 1).perf_metrics.get_tpot().mean / 1000 * tokens


def prefill(tokens: int) -> float:
    return generate(tokens, 1).perf_metrics.get_ttft().mean / 1000


protocol.answer(
    f"openvino-genai {openvino_genai.__version__}, {sys.argv[1].rstrip('/').rsplit('/')[-1]}", prefill, decode
)
