"""Runs of several seeds that are trained in one program, and how two of them are compared."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from cml_bench import registry
from cml_bench.engine import compiled, seeds
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.train import Training
from cml_bench.records import Store
from cml_bench.spec import Component, canonical
from tests.helpers.runs import same, tensors
from tests.helpers.specs import sinusoid_spec

SEEDS = (0, 1, 2)


def interpret(patch):
    """Trace programs and batch them over seeds, but do not compile them."""
    for module in (compiled, seeds):
        patch.setattr(module, "compiled", lambda graph, arguments: graph)


def met(settings) -> Settings:
    """Settings under which the seeds of a job are trained in one program."""
    return replace(settings, path="compiled", checkpoint_seconds=1e9)


def seeded(method="maml+cml", protocol_options=None, **changes):
    protocol = {"val_every": 4, "optimizer_reset_every": 6, **(protocol_options or {})}
    own = {"hidden": (16, 16), **registry.method(method).network_defaults}
    network = Component(
        name="mlp", options=canonical(registry.networks.get("mlp").Options.read(own, "mlp"))
    )
    specs = [
        sinusoid_spec(method, seed=seed, steps=12, protocol_options=protocol, **changes)
        for seed in SEEDS
    ]
    return [spec.model_copy(update={"network": network}) for spec in specs]


def records(specs, settings):
    return [Store(settings.results).read(spec) for spec in specs]


def equal(a, b):
    """Whether two runs are equal bit for bit, except in what says how they were made."""
    names = [path.stem for path in a.folder.glob("*.safetensors")]
    return (
        names == [path.stem for path in b.folder.glob("*.safetensors")]
        and all(same(tensors(a, name), tensors(b, name)) for name in names)
        and a.content["curves"] == b.content["curves"]
        and all(np.array_equal(values, b.arrays[key]) for key, values in a.arrays.items())
    )


class Stop(BaseException):
    """Raised in place of a kill."""


def killed(specs, settings, at_step, saved=(1, 1, 1)):
    """Train until outer step ``at_step``, then stop all seeds.

    Seed s has saved a checkpoint at the multiples of ``saved[s]``.
    """
    original = Training.begin_step

    def begin_step(self):
        if self.step == at_step:
            raise Stop
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "begin_step", begin_step)
        patch.setattr(
            Training, "_overdue", lambda self: self.step and self.step % saved[self.spec.seed] == 0
        )
        with pytest.raises(Stop):
            run_all(specs, settings)


def replace_by(finished, folder):
    """Put the folder of a finished run in the place of ``folder``."""
    shutil.rmtree(folder)
    shutil.copytree(finished, folder)
