"""Shared fixtures. Every test process computes with one thread, so that results do not depend on
the machine.
"""

import os
from pathlib import Path

import pytest
import torch

from cml_bench import registry
from cml_bench.engine.build import Settings

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by CML_BENCH_TEST_DATA; tests that need it are skipped without
    it.
    """
    folder = os.environ.get("CML_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("CML_BENCH_TEST_DATA is not set: no real data to check against")
    return Path(folder)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Glyphs at 16 pixels, prepared once."""
    folder = tmp_path_factory.mktemp("data")
    cls = registry.datasets.get("glyphs")
    cls(cls.Options(size=16)).prepare(folder)
    return folder


@pytest.fixture
def settings(tmp_path, data_dir):
    """A results folder of its own, quiet, with those glyphs."""
    return Settings(results=tmp_path / "results", data_dir=data_dir, report=lambda text: None)
