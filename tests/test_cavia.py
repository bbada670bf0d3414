"""Laws of CAVIA, from its equations. float64."""

import pytest
import torch
import torch.nn.functional as F

from cml_bench.engine.step import expand
from cml_bench.errors import UserError
from cml_bench.methods.cavia import CAVIA
from cml_bench.networks.base import count
from tests.helpers.cases import Case, adapted, images, waves


@pytest.mark.parametrize("name", ["cavia", "cavia+cml"])
def test_the_context_alone_adapts_and_starts_at_zero(name):
    case, task = Case(name, inner_steps=2), images()
    start, *_, end = case.method.trajectory(expand(case.groups, 3), task.support, 2)
    assert not start["context"].any()
    assert end["context"].shape == (3, case.options.context)
    assert bool((end["context"] != 0).any(1).all())
    moved = {n for n in start if not torch.equal(start[n], end[n])}
    assert moved == {"context", "norm3.weight", "norm3.bias"}


def test_the_layer_is_modulated_between_its_norm_and_its_relu():
    """gamma * z + beta on the third block's map, computed block by block."""
    case, task = Case("cavia", path="plain"), images()
    params = adapted(case, task)
    got = case.method.features(expand(case.groups, 3), params, task.query.x)
    for t in range(3):
        base, h = case.groups["base"], task.query.x[t]
        film = base["film.weight"] @ params["context"][t] + base["film.bias"]
        gamma, beta = (half[:, None, None] for half in film.chunk(2))
        for i in (1, 2, 3, 4):
            h = F.conv2d(h, base[f"conv{i}.weight"], base[f"conv{i}.bias"], padding=1)
            scale, shift = base[f"norm{i}.weight"], base[f"norm{i}.bias"]
            h = F.batch_norm(h, None, None, scale, shift, training=True, eps=1e-5)
            h = torch.relu(gamma * h + beta if i == 3 else h)
            h = F.max_pool2d(h, 2) if i < 4 else h
        assert torch.allclose(got[t], h, atol=1e-10)


def test_without_norms_the_context_is_a_further_input():
    case, task = Case("cavia", "mlp", context=5), waves()
    params = adapted(case, task)
    got = case.method.features(expand(case.groups, 3), params, task.query.x)
    base = case.groups["base"]
    wide = {**base, "hidden1.weight": torch.cat([base["hidden1.weight"], base["film.weight"]], 1)}
    for t in range(3):
        x = task.query.x[t]
        inputs = torch.cat([x, params["context"][t].expand(len(x), -1)], 1)
        assert torch.allclose(got[t], case.ref.features(wide, inputs), atol=1e-12)


def test_its_size():
    """100 numbers modulate 4 maps: a linear map to 8 numbers."""
    case = Case("cavia")
    assert count(case.method.params) == count(case.network.params) + 100 * 8 + 8
    assert Case("cavia", layer=1).method.modulated == "norm1.weight"
    assert "film.bias" not in Case("cavia", "mlp").method.params


def test_norms_of_a_head_of_convolutions_are_not_modulated():
    case = Case("cavia", network={"head_blocks": 1}, layer=4)
    assert case.method.modulated == "norm4.weight"
    with pytest.raises(UserError, match="conv4 has 4 normalisations, and layer is 5: lower it"):
        Case("cavia", network={"head_blocks": 1}, layer=5)


def test_the_co_learner_is_told_of_the_support_set():
    case = Case("cavia+cml")
    assert not case.method.cannot_adapt("co", "meta")
    task, wide = images(), expand(case.groups, 3)
    params = adapted(case, task)
    before, after = (
        case.method.outputs(wide, p, task.query.x, ("co",))["co"]
        for p in (case.method.seen(case.method.start(wide), 0), params)
    )
    assert not torch.allclose(before, after)


def test_a_network_without_norm_and_bias_is_refused():
    case = Case("cavia", "mlp")
    case.network.params = {n: p for n, p in case.network.params.items() if "hidden" not in n}
    with pytest.raises(UserError, match="mlp has neither a normalisation nor a bias in front of"):
        CAVIA(case.options, case.network, "regression")
