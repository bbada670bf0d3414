"""Conv4: the options that single methods use, and the input patches that it keeps.

Those options are initialisation and normalised inputs.
"""

import pytest
import torch

from cml_bench.engine.step import expand
from cml_bench.errors import UserError
from cml_bench.networks import base
from cml_bench.networks._patches import patches
from cml_bench.networks.base import initialise
from cml_bench.networks.conv4 import Conv4, Conv4Options
from tests.helpers.cases import Case, images


def test_xavier_has_its_bound_and_zero_biases():
    params = initialise(
        Conv4(Conv4Options(filters=48, init="xavier"), (3, 84, 84), 5).params, "test", 0
    )
    for name, fans in (
        ("conv1.weight", 9 * (3 + 48)),
        ("conv3.weight", 9 * 96),
        ("head.weight", 5 * 5 * 48 + 5),
    ):
        bound = (6 / fans) ** 0.5
        assert params[name].abs().max() <= bound
        assert params[name].std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all(not value.any() for name, value in params.items() if name.endswith("bias"))


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_imagenet_inputs_are_normalised_pixels(path):
    unit, normal = (
        Conv4(Conv4Options(filters=4, inputs=i), (3, 16, 16), 5, path) for i in ("unit", "imagenet")
    )
    params = expand({"base": initialise(unit.params, "test", 0)}, 1)["base"]
    x = torch.rand(1, 6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    got, want = normal.features(params, x), unit.features(params, (x - mean) / deviation)
    assert torch.allclose(got, want, atol=1e-6)
    assert not torch.allclose(got, unit.features(params, x), atol=1e-2)
    with pytest.raises(UserError, match="3 channels"):
        Conv4(Conv4Options(inputs="imagenet"), (1, 28, 28), 5)


def test_patches_of_a_support_set_are_made_once(monkeypatch):
    case, first, other = Case("maml", inner_steps=3), images(name="first"), images(name="other")
    made = []
    monkeypatch.setattr(base, "patches", lambda x: made.append(x) or patches(x))

    wide = expand(case.groups, 3)

    def path(task):
        return case.method.trajectory(wide, task.support, 3)

    alone = [list(path(task)) for task in (first, other)]
    assert len(made) == 2
    # Two loops that take turns each get their own images, however often patches are made.
    turns = list(zip(path(first), path(other), strict=True))
    for pair in zip(turns, zip(*alone, strict=True), strict=True):
        for got, want in zip(*pair, strict=True):
            assert all(torch.equal(got[name], want[name]) for name in want)
    made.clear()
    for task in (first, other):
        case.network.features(wide["base"], task.support.x)
    # Patches are not kept after a loop: its tensor may get other images in the meantime.
    assert len(made) == 2
