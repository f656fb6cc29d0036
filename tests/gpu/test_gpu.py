"""On an NVIDIA GPU: the kernels as compiled, graphs against launches, and answers token for token."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this system")

from tests.local_engine.gpu_checks import CHECKS, REAL_SHAPES
from tests.local_engine.kernel_cases import CASES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_computes_what_its_reference_does(case: str) -> None:
    CASES[case]("cuda")


@pytest.mark.parametrize("check", CHECKS | REAL_SHAPES)
def test_steps_on_the_gpu(check: str) -> None:
    (CHECKS | REAL_SHAPES)[check]("cuda")
