"""Laws of Meta-SGD, from its equation. float64."""

import pytest
import torch

from cml_bench.engine.step import clamp, expand, leaves
from cml_bench.networks.base import count
from tests.helpers.cases import CPU, Case, adapted, images, relative


def fresh(name: str, **options) -> Case:
    """A case whose parameters are as they start."""
    case = Case(name, **options)
    case.groups = leaves(case.method.init(3), CPU, torch.float64)
    return case


@pytest.mark.parametrize("kind", ["", "+cml"])
def test_at_the_start_its_gradient_is_mamls(kind):
    """The start is kept in 32 bits, so 0.5 is the same number in both."""
    task = images()
    got = fresh(f"metasgd{kind}", inner_steps=2, inner_lr_init=0.5).engine_gradient(task)[1]
    want = fresh(f"maml{kind}", inner_steps=2, inner_lr=0.5).engine_gradient(task)[1]
    assert relative({key: got[key] for key in want}, want) < 1e-12
    assert all(key[1].endswith(".inner_lr") for key in got.keys() - want.keys())


def test_a_step_size_moves_its_own_element_alone():
    case, task = fresh("metasgd"), images()
    before = adapted(case, task)
    with torch.no_grad():
        case.groups["base"]["head.weight.inner_lr"][1, 2] *= 2
    after, start = adapted(case, task), expand(case.groups, 3)["base"]
    moved = {key for key in case.network.params if not torch.equal(before[key], after[key])}
    assert moved == {"head.weight"}
    steps = [params["head.weight"] - start["head.weight"] for params in (before, after)]
    want = steps[0].clone()
    want[:, 1, 2] *= 2
    assert torch.allclose(steps[1], want, atol=1e-12)


def test_step_sizes_may_become_negative():
    case, task = fresh("metasgd"), images()
    down, start = adapted(case, task), expand(case.groups, 3)["base"]
    with torch.no_grad():
        for name, value in case.groups["base"].items():
            value.mul_(-1 if name.endswith(".inner_lr") else 1)
    up = adapted(case, task)
    for key in case.network.params:
        assert torch.allclose(up[key] - start[key], start[key] - down[key], atol=1e-12), key


def test_there_is_one_for_every_parameter_that_adapts():
    network = Case("maml").network
    assert count(Case("metasgd").method.params) == 2 * count(network.params)
    own = Case("metasgd", adapt_norm=False).method.params
    assert {name for name in own if name.endswith(".inner_lr")} == {
        f"{name}.inner_lr" for name in network.params.keys() - network.norm_names
    }


def test_the_clamp_spares_step_sizes():
    case, task = Case("metasgd"), images()
    case.step().gradients(task)
    clamp(case.method, case.groups, 1e-9)
    head, rate = (case.groups["base"][f"head.weight{end}"].grad for end in ("", ".inner_lr"))
    assert float(head.abs().max()) <= 1e-9 < float(rate.abs().max())


def test_all_step_sizes_are_learned():
    case = fresh("metasgd")
    step = case.step(lr=1e-2)
    step(images())
    still = [
        name
        for name, value in case.groups["base"].items()
        if name.endswith(".weight.inner_lr") and bool((value == case.options.inner_lr_init).all())
    ]
    assert still == []
