"""Several decode steps begun at once, each fed with the tokens of the one before, so that a GPU never waits for the host.

Room for the tokens to come is asked for as if they were drafts; they are no guesses, so none of them is verified. While
the device computes, the tokens that came back are turned into text. A newcomer waits for the steps that are in the air:
nothing is begun ahead while somebody waits or a prompt is being computed. What was computed behind the end of an answer is
dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from local_engine.gpu_runner import GpuRunner, chosen_on_device
from local_engine.request import Request, Sampled
from local_engine.scheduler import Chunk, Scheduler
from local_engine.speculative.verify import Run
from local_engine.step_buffers import StepItem
