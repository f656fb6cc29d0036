"""What runs once on a GPU works: its checks on a CPU with reference kernels, and the suite around them."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this system")

from local_engine.quantization.fp8 import Fp8Linear
from tests.local_engine.gpu_checks import CHECKS, TOLERANCE, check_fp8_steps, check_steps, random_model


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_for_a_gpu_hold_for_the_reference_kernels(check: str) -> None:
    CHECKS[check]("cpu")


class _AsOnAGpu(Fp8Linear):
    """Multiplies float8 by float8, which on a CPU is slower than unpacking but rounds as a GPU does."""

    forward = Fp8Linear._scaled_product


@torch.inference_mode()
def test_the_check_of_float8_allows_what_a_gpu_rounds() -> None:
    decoder = random_model("tiny", "bfloat16", "cpu", "fp8")
    matrices = [module for module in decoder.modules() if isinstance(module, Fp8Linear)]
    for matrix in matrices:
        matrix.__class__ = _AsOnAGpu
    check_fp8_steps(decoder)
    with pytest.raises(AssertionError, match="relative error"):  # the same modules as truth: few rows round less
        check_steps(decoder, decoder, TOLERANCE["bfloat16"])
