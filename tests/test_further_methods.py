"""The study of further methods: under one recipe with the study of all methods of the paper."""

import csv
import json
from pathlib import Path

import pytest
import torch

from cml_bench.costs.describe import describe
from cml_bench.networks.resnet12 import ResNet12, ResNet12Options
from cml_bench.spec import canonical
from cml_bench.study.config import read
from cml_bench.study.resolve import resolve

ROOT = Path(__file__).parent.parent

STUDIES = ("omniglot_more_methods", "omniglot_methods")


@pytest.fixture(scope="module")
def plans():
    """The plans of the two studies."""
    return [resolve(read(path := f"configs/{name}.yaml"), path) for name in STUDIES]


def test_its_maml_runs_are_those_of_the_other_study(plans):
    """And they are published with it."""
    more, first = plans
    own = {spec.id for spec in more.specs.values() if spec.method == "maml" and spec.steps}
    assert len(own) == 3 * 6
    assert own <= {spec.id for spec in first.specs.values()}
    with (ROOT / "results/reference/omniglot_methods/index.csv").open(encoding="utf-8") as file:
        assert own <= {row["id"] for row in csv.DictReader(file)}


def test_every_run_has_the_recipe_of_the_other_study(plans):
    """Data, network, protocol, steps, queries and episodes at test."""

    def shared(spec):
        values = canonical(spec)
        kept = ("network", "data_id", "protocol", "way", "query", "steps", "precision")
        return json.dumps({key: values[key] for key in kept}, sort_keys=True)

    more, first = ({shared(s) for s in plan.specs.values() if s.steps} for plan in plans)
    assert len(more) == 1
    assert more <= first
    assert {(s.evaluation.tasks, s.evaluation.query) for p in plans for s in p.specs.values()} == {
        (300, 15)
    }


def test_reptile_sees_as_many_images_as_maml(plans):
    """Three batches of ten are the support set and the queries of a 1-shot task."""
    spec = next(spec for spec in plans[0].specs.values() if spec.method == "reptile")
    assert spec.way * (spec.shot + spec.query) == 3 * spec.options["inner_batch"]
    assert spec.options["trained_on"] == "both"


@pytest.mark.parametrize(
    ("method", "training", "test"),
    [
        ("anil", 112_261, 112_261),
        ("metasgd", 224_522, 224_522),
        ("reptile", 112_261, 112_261),
        ("protonet", 112_261 - 325, 112_261 - 325),
        ("cavia", 112_261 + 100 * 128 + 128, 112_261 + 100 * 128 + 128),
    ],
)
def test_parameters_on_omniglot(method, training, test):
    """64 filters: 112,261 of Conv4, of which the head has 325."""
    counted = describe(method, "conv4", "omniglot", 5, 1).parameters
    assert (counted.training, counted.test["meta"]) == (training, test)


def test_flops_tell_what_a_method_spares():
    """ANIL makes one support pass for all inner steps; prototypes are one pass, too."""
    made = {
        (name, steps): describe(name, "conv4", "omniglot", 5, 1, options={"inner_steps": steps})
        for name in ("maml", "anil")
        for steps in (1, 5)
    }
    flops = {key: one.flops["adaptation"] for key, one in made.items()}
    assert flops["maml", 5] > 4.5 * flops["maml", 1]
    assert flops["anil", 5] < 1.01 * flops["anil", 1] < flops["maml", 1] / 2
    proto = describe("protonet", "conv4", "omniglot", 5, 1).flops["adaptation"]
    assert proto == pytest.approx(flops["anil", 1], rel=0.01)


def test_what_a_prototype_is_a_mean_of_on_resnet12():
    """Global averages, as its head reads them."""
    network = ResNet12(ResNet12Options(filters=3), (3, 16, 16), 5)
    z = torch.rand(2, 4, *network.feature_shape)
    assert torch.equal(network.embedding(z), z.mean((3, 4)))
