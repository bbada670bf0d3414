"""Shared fixtures. Every test process computes with one thread, so that results do not depend on the machine."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by CML_BENCH_TEST_DATA; tests that need it are skipped without it."""
    folder = os.environ.get("CML_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("CML_BENCH_TEST_DATA is not set: no real data to check against")
    return Path(folder)
