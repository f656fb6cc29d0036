"""How much of a text a head would have guessed: the measure that decides, on texts it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.speculative.head_model import DraftHead
from local_engine.training.outputs import Window


@dataclass(frozen=True, slots=True)
class Acceptance:
    """`reached` [depth] is the share of places at which the first 1, 2, ... drafted tokens were all those of the text."""

    reached: tuple[float, ...]
    places: int

    def tokens_per_step(self, drafts: int) -> float:
        """Mean tokens a verified step gives with so many drafts: the step's own, and the drafts before the first miss."""
        return 1.0 + sum(self.reached[:drafts])


@torch.inference_mode()
def measure_acceptance(head: DraftHead, texts: Sequence[Window], depth: int = 5) -> Acceptance:
    """Draft greedily from every computed token of the answers, in one batch per text, and compare with the text."""
    reached = torch.zeros(depth)
    places = 0
    for text in texts:
        usable = len(text.streams) - depth
        first = int(text.answer.int().argmax()) if bool(text.answer.any()) else usable
        if usable <= first:
            continue
        at = torch.arange(first, usable)
        agreed = torch.ones(len(at), dtype=torch.bool)
        device = head.embeddings.device
        state = head.start(text.streams[at].to(device))
        guess: Tensor = text.tokens[at + 1].to(device)
        for step in range(depth):
            state = head.advance(state, guess)
            guess = head.vocabulary[head.logits(state).argmax(-1)]
            agreed &= guess.cpu() == text.tokens[at + 2 + step]
            reached[step] += agreed.sum()
        places += len(at)
    return Acceptance(tuple((reached / max(1, places)).tolist()), places)
