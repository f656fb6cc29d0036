"""transformers, eager bfloat16: `python transformers_bf16.py DIRECTORY THREADS`."""

import sys

import protocol
import torch
import transformers

torch.set_num_threads(int(sys.argv[2]))
torch.set_grad_enabled(False)
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
salts = iter(range(1 << 30))


def start(tokens: int, streams: int = 1):
    ids = torch.tensor([protocol.prompt(tokens, model.config.vocab_size, next(salts)) for _ in range(streams)])
    return model(ids, use_cache=True, logits_to_keep=1)


def decode(streams: int, tokens: int) -> float:
    out = start(32, streams)

    def run(out=out) -> None:
        for _ in range(tokens):
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)

    return protocol.timed(run)


protocol.answer(f"transformers {transformers.__version__} bfloat16, eager",
                lambda tokens: protocol.timed(lambda: start(tokens)), decode)  # fmt: skip
