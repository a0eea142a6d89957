"""Tests of CUDA tensors: skipped, with the reason, where there is no GPU or no kernels for it.

TORCHQP_TEST_DEVICE=cpu runs those that need nothing of torch.cuda on the CPU instead, against
itself: a check of the tests.
"""

import os

import pytest
import torch

import torchqp


def _missing() -> str | None:
    """Why nothing can run on a GPU here."""
    if not torch.cuda.is_available():
        return "needs a CUDA device"
    if not torchqp.build_info()["cuda_kernels"]:
        return "this build of torchqp has no CUDA kernels"
    return None


@pytest.fixture
def cuda() -> torch.device:
    """The GPU, for tests that use torch.cuda beside."""
    reason = _missing()
    if reason is not None:
        pytest.skip(reason)
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the tensors under test are."""
    name = os.environ.get("TORCHQP_TEST_DEVICE")
    return torch.device(name) if name else request.getfixturevalue("cuda")
