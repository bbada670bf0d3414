"""Runs that stop on the way, and the tensors that runs store."""

import pytest
import torch
from safetensors.torch import load_file

from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.engine.train import Training
from cml_bench.records import Store


def tensors(record, name):
    return load_file(record.folder / f"{name}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Stop(Exception):
    """Raised in place of a kill."""


def interrupted(spec, settings, at_step, before="advance"):
    """Train until step ``at_step``, then stop; the run's folder.

    ``before``: the method of Training that does not happen any more at that step, ``_pause`` for
    the validation.
    """
    often = Settings(**{**settings.__dict__, "checkpoint_seconds": 0.0})
    original = getattr(Training, before)

    def stopping(self):
        if self.step == at_step:
            raise Stop
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, before, stopping)
        with pytest.raises(Stop):
            run(spec, often)
    return Store(settings.results).folder(spec)
