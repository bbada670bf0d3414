"""Ten meta-steps of the released MAML and BOIL codes: equal here in float64, plain and fast.

The same on a GPU: test_gpu.py.
"""

import pytest
import torch

from cml_bench.engine.step import expand
from tests.helpers.released import batches, build, close, load, scalar, ten_steps


@pytest.mark.parametrize(("path", "tasks_at_once"), [("plain", 4), ("fast", 1)])
@pytest.mark.parametrize("name", ["maml", "maml+cml", "boil"])
def test_ten_official_meta_steps(name, path, tasks_at_once):
    ten_steps(name, path, tasks_at_once)


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_official_test_logits_of_both_heads(path):
    method, groups, _ = build("maml+cml", path, load("cml_gamma1", "final/"), 4)
    task = batches()[0].part(0, 1)
    wide = expand(groups, 1)
    *_, adapted = method.trajectory(wide, task.support, 1)
    outputs = method.outputs(wide, adapted, task.query.x, method.heads)
    for head in ("meta", "co"):
        assert close(
            outputs[head][0].detach(), torch.from_numpy(scalar("cml_gamma1", f"test/{head}_logits"))
        )
