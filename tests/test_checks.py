"""``check NAME``: what the package has keeps the laws, and each law notices what breaks it."""

import functools

import numpy as np
import pytest
import torch

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.checks import check, laws, trace
from cml_bench.checks.subject import Subject, opened
from cml_bench.data.sinusoid import Sinusoid
from cml_bench.methods.maml import MAML
from cml_bench.networks.mlp import MLP, MLPOptions
from tests.helpers.cases import said

# Every network: no other test tries its laws. Of methods and data one of each kind, of images and
# of nodes: their own tests try the same laws on all that the package has.
NAMES = ("more_maml", "gmeta", "sbm", *(n for n in registry.networks.names() if n != "template"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_the_package_has_keeps_the_laws(name, tmp_path):
    outcomes = list(check.check(name, tmp_path))
    assert not [check.text(one) for one in outcomes if one.said and not one.left_out]
    assert len(outcomes) >= 3


def test_first_order_is_no_mistake(tmp_path):
    outcomes = {one.law: one for one in check.check("fomaml", tmp_path)}
    assert outcomes["the outer gradient is exact"].left_out
    assert "first order" in check.text(outcomes["the outer gradient is exact"])
    assert not outcomes["tasks do not meet"].said
    reference = outcomes["it equals its reference"]
    assert check.text(reference).endswith("its reference: its class has no `reference`")
    assert reference.left_out


def test_a_method_of_the_package_has_a_golden_trace_in_a_clone(tmp_path, monkeypatch):
    def golden(kind, name):
        return check._golden(kind, name, tmp_path, tmp_path, accept=False, failed=False)

    held = golden("methods", "maml")
    assert held.left_out
    assert held.said == "tests/golden/traces/maml.json, held by the project's tests"
    assert golden("networks", "mlp").said == "the tests of the project hold it"
    assert golden("methods", "pixel_nn").said == "it does not learn"
    # Where the package is installed, its tests are not there.
    monkeypatch.setattr(trace, "OF_PROJECT", tmp_path / "tests" / "golden" / "traces")
    installed = golden("methods", "maml")
    assert installed.left_out
    assert installed.said == "the tests of the project hold it"
    trace.OF_PROJECT.mkdir(parents=True)
    missing = golden("methods", "maml")
    assert not missing.left_out
    said = "tests/golden/traces/maml.json is not there: `make traces` writes it"
    assert missing.said == said


def test_the_command_prints_every_law_and_fails_with_what_fails(monkeypatch, capsys):
    results = [check.Outcome("one"), check.Outcome("two", "why", left_out=True)]
    monkeypatch.setattr(check, "check", lambda *given, **asked: iter(results))
    assert main(["check", "maml"]) == 0
    assert capsys.readouterr().out == "holds     one\nleft out  two: why\n"
    results.append(check.Outcome("three", "it is broken"))
    assert main(["check", "maml"]) == 2
    shown = capsys.readouterr()
    assert "FAILS     three: it is broken\n" in shown.out
    assert shown.err == "error: 1 of the checks of maml fail: see above.\n"


class Kinked:
    """3|x| at x = 1e-9, so close to its kink as the ReLUs of a deep network are to theirs."""

    groups = {"psi": {"x": torch.tensor([1e-9], dtype=torch.float64)}}
    factor = 3.0

    def __init__(self, name):
        self.method = self

    def tasks(self):
        return [None]

    def gradients(self, task):
        return None, {("psi", "x"): torch.tensor([self.factor], dtype=torch.float64)}

    def outer_loss(self, groups, task):
        return 3 * groups["psi"]["x"].abs().sum(1), None


def test_a_kink_that_a_wide_step_meets_is_no_mistake_of_the_gradient(monkeypatch):
    laws.gradient_is_exact(Kinked, "any")
    monkeypatch.setattr(Kinked, "factor", 3.001)
    with pytest.raises(laws.Broken, match="has the slope"):
        laws.gradient_is_exact(Kinked, "any")


def test_a_name_that_nothing_has_is_one_sentence(capsys):
    assert "unknown method, data set or network 'mamal'. Did you mean 'maml'" in said(
        capsys, "check", "mamal"
    )


# -- each law notices its own


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Subjects on the sinusoid and a smooth network, both of which tests replace."""
    for known in (registry.methods, registry.networks):
        known.names()
        monkeypatch.setattr(known, "_entries", dict(known._entries))
    data = opened("sinusoid", tmp_path)
    return functools.partial(
        Subject, data=data, network_options={"hidden": (5, 5), "activation": "tanh"}
    )


def breaks(law, make, message):
    with pytest.raises(laws.Broken, match=message):
        law(make, "broken")


def test_a_method_that_keeps_the_laws(make):
    whole = functools.partial(make, network="mlp")
    for law in (
        laws.tasks_do_not_meet,
        laws.paths_are_equal,
        laws.gradient_is_exact,
        laws.gamma_zero_is_the_baseline,
        laws.phi_stays_apart,
        laws.shapes_are_told,
    ):
        law(whole, "maml")
    laws.colearner_has_any_depth(whole, "maml+cml")


def test_tasks_that_meet_are_noticed(make):
    @registry.methods.register("broken")
    class Meets(MAML):
        def support_loss(self, groups, params, support, loss):
            return super().support_loss(groups, params, support, loss).mean() * torch.ones(1)

    breaks(laws.tasks_do_not_meet, functools.partial(make, network="mlp"), "another gradient of")


def test_a_gradient_that_is_cut_is_noticed(make):
    @registry.methods.register("broken")
    class Cut(MAML):
        def step_size(self, name, step, groups):
            return super().step_size(name, step, groups) * groups["base"][name].detach().mean()

    breaks(laws.gradient_is_exact, functools.partial(make, network="mlp"), "has the slope")
    Cut.gradient_is_exact = False
    outcome = check._exact(functools.partial(make, network="mlp"), "broken")
    assert outcome.left_out


def test_a_co_learner_that_takes_part_is_noticed(make):
    @registry.methods.register("broken")
    class Reads(MAML):
        def step_size(self, name, step, groups):
            return 0.01 * (1 + sum(p.mean() for p in groups.get("co", {}).values()))

    whole = functools.partial(make, network="mlp")
    breaks(laws.phi_stays_apart, whole, "its predictions are others when|depend on the co-learner")
    breaks(laws.gamma_zero_is_the_baseline, whole, "at gamma 0 the co-learner changes")


def network(change):
    """Register ``broken``: the MLP with one method replaced."""
    members = {"__module__": __name__, "Options": MLPOptions, **change}
    registry.networks.register("broken")(type("Broken", (MLP,), members))


@pytest.mark.parametrize(
    ("change", "law", "message"),
    [
        (
            {"head": lambda self, p, z: MLP.head(self, p, z) * (1 + 1e-6 * (self.path == "fast"))},
            laws.paths_are_equal,
            "the paths fast and plain have unlike gradients",
        ),
        (
            {"features": lambda self, p, x: MLP.features(self, p, x).detach()},
            laws.gradient_is_exact,
            "has the slope",
        ),
        (
            {"feature_shape": property(lambda self: (9,), lambda self, value: None)},
            laws.shapes_are_told,
            r"features are \(3, 5, 5\), not \(3, 5, 9\)",
        ),
        (
            {"norm_names": frozenset({"norm9.weight"})},
            laws.shapes_are_told,
            "norm_names or fixed_names has norm9.weight, no parameter",
        ),
    ],
)
def test_a_network_that_breaks_a_law_is_noticed(change, law, message, make):
    network(change)
    with pytest.raises(laws.Broken, match=message):
        law(functools.partial(make, network="broken"), "maml")


def test_data_that_breaks_a_law_is_noticed(tmp_path):
    data = opened("sinusoid", tmp_path)
    laws.episodes_follow_from_their_number(data, 1)
    laws.examples_have_their_shape(data, 1)
    data.input_shape = (2,)
    with pytest.raises(laws.Broken, match=r"inputs of train are \(1,\)"):
        laws.examples_have_their_shape(data, 1)

    class Unsteady(Sinusoid):
        def draw(self, key, split, first, count, way, shot, query):
            key = key + np.uint64(count)
            return super().draw(key, split, first, count, way, shot, query)

    with pytest.raises(laws.Broken, match="task 2 of train depends on what is drawn beside it"):
        laws.episodes_follow_from_their_number(
            Unsteady(data.options).open(tmp_path, data.device, data.dtype), 1
        )
