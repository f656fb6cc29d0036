"""Our engine: `python -m benchmarks.engine_workers.penstock MODEL THREADS QUANTIZE auto|off` from the repository's root."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import protocol
import torch

from local_engine.bench import decode_rate, prefill_seconds
from local_engine.config import EngineConfig
from local_engine.loading import load_engine, warm_up

torch.set_num_threads(int(sys.argv[2]))
engine = load_engine(
    Path(sys.argv[1]),
    EngineConfig(quantize=sys.argv[3], cpu_kernel=sys.argv[4], max_batch=16, max_context=2048, device="cpu"),
)
warm_up(engine)
computed_by = "torch" if engine.runner.native is None else "native kernel"  # not every processor has the latter


def decode(streams: int, tokens: int) -> float:
    # The first token of each stream comes with its prompt and is not timed.
    return streams * tokens / decode_rate(engine, streams, tokens + 1)


protocol.answer(f"penstock {sys.argv[3]}, {computed_by}",
                lambda tokens: prefill_seconds(engine, tokens), decode)  # fmt: skip
