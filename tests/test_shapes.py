"""Tensors of wrong shapes are refused while tests run: by a network, by a method, by a loss."""

import jaxtyping
import pytest
import torch

import cml_bench.data.episodes as episodes
from cml_bench.methods import base
from cml_bench.networks.base import fold
from tests import CHECKED
from tests.helpers.cases import Case, images


def test_every_network_and_method_is_checked():
    names = {name.removeprefix("cml_bench.") for name in CHECKED}
    assert {"networks.base", "networks.conv4", "networks.mlp", "networks.gcn"} <= names
    assert {"methods.base", "methods.maml", "methods.cooperative", "methods.mamlpp"} <= names


@pytest.mark.parametrize("shape", [(2, 3, 1, 16), (2, 3, 16)], ids=["no width", "no channels"])
def test_a_network_refuses_images_without_all_their_dimensions(shape):
    case = Case()
    with pytest.raises(jaxtyping.TypeCheckError):
        case.network.features(case.groups["base"], torch.zeros(shape, dtype=torch.float64))


def test_a_network_refuses_parameters_of_another_number_of_tasks():
    """Without the check, three tasks' images with one task's parameters are one larger task."""
    case, task = Case(), images(tasks=3)
    stored = {name: p.detach()[None] for name, p in case.groups["base"].items()}
    with pytest.raises(jaxtyping.TypeCheckError):
        case.network.features(stored, task.support.x)


def test_a_method_refuses_inputs_without_tasks():
    case, task = Case("maml"), images(tasks=3)
    groups = {"base": {name: p.detach()[None] for name, p in case.groups["base"].items()}}
    with pytest.raises(jaxtyping.TypeCheckError):
        case.method.outputs(groups, groups["base"], task.support.x[0], ("meta",))


def test_a_method_refuses_a_task_and_another_number_of_parameters():
    case, task = Case("maml"), images(tasks=3)
    groups = {"base": {n: p.detach().expand(2, *p.shape) for n, p in case.groups["base"].items()}}
    with pytest.raises(jaxtyping.TypeCheckError):
        case.method.outputs(groups, groups["base"], task.support.x, ("meta",))


def test_a_score_refuses_targets_that_would_be_broadcast():
    outputs, labels = torch.zeros(2, 3, 5), torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(jaxtyping.TypeCheckError):
        base.accuracy(outputs, labels)
    with pytest.raises(jaxtyping.TypeCheckError):
        base.mean_squared_error(outputs, outputs[:1])


def test_folding_refuses_what_is_folded_already():
    """torch would join the first two dimensions after the tasks, whatever they are."""
    with pytest.raises(jaxtyping.TypeCheckError):
        fold(torch.zeros(2, 3, 16, 16))


def test_right_shapes_are_accepted():
    task = images(tasks=3)
    assert isinstance(task.support, episodes.Examples)
    case = Case()
    groups = {
        group: {name: p.detach().expand(3, *p.shape) for name, p in params.items()}
        for group, params in case.groups.items()
    }
    out = case.method.outputs(groups, groups["base"], task.support.x, case.method.heads)
    assert {name: tuple(values.shape) for name, values in out.items()} == {
        "meta": (3, 3, 3),
        "co": (3, 3, 3),
    }
