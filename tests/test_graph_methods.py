"""G-Meta and AMM-GNN: their gradients against the plain reference, and laws of each. float64."""

import numpy as np
import pytest
import torch

from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import expand
from cml_bench.errors import UserError
from tests.helpers.cases import follow, values
from tests.helpers.graph_sets import KINDS, variant
from tests.helpers.graphs import BOTH, METHODS, Case, largest, small
from tests.helpers.reference import Adam

# -- the outer gradient


@pytest.mark.parametrize("dropout", [0.0, 0.5, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", BOTH)
def test_the_outer_gradient_is_the_references(name, path, kind, dropout):
    case = Case(name, path, variant(kind), dropout=dropout)
    case.method.at_step(4)
    for tasks, at_once in ((1, 1), (3, 1), (3, 2)):
        task = case.task(count=tasks)
        assert largest(case.gradient(task, at_once)[1], case.wanted(task)) < 1e-10


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", BOTH)
def test_and_5_way_as_on_corafull(name, path):
    case = Case(name, path, small(classes=9), way=5, dropout=0.5)
    task = case.task(way=5, shot=1, query=3, count=2)
    assert largest(case.gradient(task)[1], case.wanted(task)) < 1e-10
    assert task.support.x.shape == (2, 5)


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", METHODS)
def test_no_inner_step_is_one_of_no_size(name, path):
    logits = []
    for options in ({"inner_steps": 0}, {"inner_lr": 0.0}):
        case = Case(name, path, dropout=0.0, **options)
        wide = case.method.meet(expand(case.groups, 1), task := case.task())
        *_, params = case.method.trajectory(wide, task.support, case.options.inner_steps)
        logits.append(case.method.outputs(wide, params, task.query.x, ("meta",))["meta"])
    assert torch.equal(*logits)


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", BOTH)
def test_ten_adam_steps_are_the_references(name, path):
    ours, theirs = (Case(name, path, variant("coded"), dropout=0.5) for _ in range(2))
    step, by_hand = ours.step(lr=0.01), Adam(lr=0.01)
    for number in range(10):
        task = ours.task(number)
        for case in (ours, theirs):
            case.method.at_step(number)
        step(task)
        follow(theirs.groups, by_hand, theirs.wanted(task))
    assert largest(values(ours.groups), values(theirs.groups)) < 1e-8


@pytest.mark.parametrize("name", METHODS)
def test_first_order_means_the_query_gradient_at_the_adapted_point(name):
    case = Case(name)
    task = case.task()
    _, grads = case.gradient(task)
    wide = case.method.meet(expand(case.groups, 1), task)
    *_, params = (s.params for s in case.method.adapt(wide, task.support))
    there = {n: p.detach().requires_grad_() for n, p in params.items()}
    out = case.method.outputs(wide, there, task.query.x, ("meta",))["meta"]
    names = list(case.network.params)
    want = torch.autograd.grad(
        case.method.criterion(out, task.query.y).sum(), [there[n] for n in names]
    )
    for key, value in zip(names, want, strict=True):
        assert torch.equal(grads["base", key], value[0])


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", METHODS)
def test_gamma_zero_leaves_the_baselines_trajectory_bit_for_bit(name, path):
    """In float32, as runs are trained, and with dropout."""
    runs = []
    for method in (name, f"{name}+cml"):
        case = Case(method, path, gamma=0.0, dtype=torch.float32)
        step = case.step()
        for number in range(6):
            case.method.at_step(number)
            step(case.task(number))
        runs.append(case.groups["base"])
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])


@pytest.mark.parametrize("name", METHODS)
def test_the_co_learner_reaches_psi_and_not_theta(name):
    """In first order, the co-learner's loss has no path to the head or to beta.

    The outer gradient is affine in gamma.
    """
    cases = [Case(f"{name}+cml", gamma=g) for g in (0.0, 0.5, 1.0)]
    grads = [case.gradient(case.task())[1] for case in cases]
    for key in (
        "head.weight",
        "head.bias",
        *(("beta.weight", "beta.bias") if name == "amm_gnn" else ()),
    ):
        assert torch.equal(grads[0]["base", key], grads[2]["base", key])
    assert not torch.allclose(grads[0]["base", "gcn1.weight"], grads[2]["base", "gcn1.weight"])
    middle = {key: (grads[0][key] + grads[2][key]) / 2 for key in grads[0]}
    assert largest(grads[1], middle) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", ["gmeta+cml", "amm_gnn+cml"])
def test_models_that_adapt_side_by_side_are_as_each_alone(name, path, kind, monkeypatch):
    """Three bodies on two tasks at once; one has two co-learners, and two have equation 9."""
    cases = [Case(name, path, variant(kind), seed=seed) for seed in (3, 4, 5)]
    (one, two, three), method, task = (
        (case.groups for case in cases),
        cases[0].method,
        cases[0].task(count=2),
    )
    mixed = {"base": one["base"], "co": three["co"]}
    asked = [
        Asked([one], ("meta", "co")),
        Asked([mixed], ("co",)),
        Asked([two], ("meta",)),
        Asked([three], ("co",)),
        Asked([two], ("co",), "co"),
        Asked([one], ("co",), "co"),
        Asked([one, three], ("meta", "co")),
    ]
    alone = [score_all(method, [a], task, (1, 3))[0] for a in asked]
    calls, original = [], method.trajectory
    monkeypatch.setattr(
        method, "trajectory", lambda *args, **more: calls.append(1) or original(*args, **more)
    )
    together = score_all(method, asked, task, (1, 3))
    assert len(calls) == 2, "the meta-learner's loss, and the co-learner's"
    for results, wanted in zip(together, alone, strict=True):
        assert results.keys() == wanted.keys()
        for key, result in wanted.items():
            assert torch.allclose(results[key].loss, result.loss, rtol=1e-10, atol=0), key
            assert torch.equal(results[key].score, result.score), key
    losses = [float(results["co", 3].loss[0]) for results in together if ("co", 3) in results]
    assert len(set(losses)) == len(losses), "each is of its own model"


@pytest.mark.parametrize("name", METHODS)
def test_phi_never_adapts_never_sees_support_and_can_be_deleted(name):
    case = Case(f"{name}+cml")
    task = case.task(count=2)
    whole = score_all(case.method, [Asked([case.groups], ("meta",))], task, (3,))[0]
    with torch.no_grad():
        for value in case.groups["co"].values():
            value += 1.0
    again = score_all(case.method, [Asked([case.groups], ("meta",))], task, (3,))[0]
    kept = {"base": case.groups["base"]}
    alone = score_all(case.method, [Asked([kept], ("meta",))], task, (3,))[0]
    assert torch.equal(whole["meta", 3].loss, again["meta", 3].loss)
    assert torch.equal(whole["meta", 3].loss, alone["meta", 3].loss)


def test_equation_9_moves_psi_alone():
    case = Case("gmeta+cml")
    task = case.task()
    *_, params = case.method.trajectory(expand(case.groups, 1), task.support, 2, loss="co")
    still = {n for n in params if torch.equal(params[n][0], case.groups["base"][n])}
    assert still == case.network.head_names


# -- AMM-GNN


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_without_scale_and_regulariser_it_is_the_meta_gnn(path):
    """What is left is G-Meta's loop with the rows of the whole graph as embeddings."""
    amm = Case("amm_gnn", path, scale=0.0, regulariser=0.0)
    plain = Case("gmeta", path, network={"readout": "node"})
    task = amm.task()
    one, two = amm.gradient(task)[1], plain.gradient(task)[1]
    assert all(torch.equal(one[key], two[key]) for key in two)
    assert not any(
        one["base", f"{n}.{k}"].any() for n in ("alpha", "beta") for k in ("weight", "bias")
    )


def test_alpha_learns_from_the_query_pass_and_beta_from_the_cosine_alone():
    case = Case("amm_gnn", regulariser=0.0)
    _, grads = case.gradient(case.task())
    assert grads["base", "alpha.weight"].any()
    assert not grads["base", "beta.weight"].any()
    none = Case("amm_gnn", regulariser=0.0, scale=0.0)
    assert not none.gradient(none.task())[1]["base", "alpha.weight"].any()


def test_the_regulariser_is_within_its_bounds_and_extreme_for_equal_sets():
    case = Case("amm_gnn")
    for number in range(20):
        task = case.task(number)
        value = case.method.extra_loss(case.method.meet(expand(case.groups, 1), task), task)
        assert -0.02 <= value.item() <= 0.02
    case.method.sets = lambda nodes: np.stack([nodes[:10]] * 2)
    value = case.method.extra_loss(case.method.meet(expand(case.groups, 1), task), task)
    assert value.item() == pytest.approx(-0.02, abs=1e-12)


def test_a_task_with_too_few_nodes_is_refused():
    case = Case("amm_gnn")
    with pytest.raises(UserError, match=r"amm_gnn: a task of 8 nodes has no set of 10"):
        case.gradient(case.task(shot=1, query=3))


def test_the_sets_are_ten_of_the_tasks_nodes_and_its_own():
    case, other = Case("amm_gnn"), Case("amm_gnn+cml", seed=9)
    nodes = torch.cat([e.x for e in case.task()], 1)[0].numpy()
    one, two = case.method.sets(nodes)
    assert len(set(one)) == len(set(two)) == 10
    assert set(one) | set(two) <= set(nodes)
    assert list(one) != list(two)
    assert np.array_equal(other.method.sets(nodes), np.stack([one, two]))


def test_alone_it_cannot_adapt():
    case = Case("amm_gnn")
    with pytest.raises(UserError, match="adapts to a task and its queries together"):
        list(case.method.trajectory(expand(case.groups, 1), case.task().support, 1))


# -- dropout


@pytest.mark.parametrize("name", METHODS)
def test_dropout_acts_in_training_only_and_depends_on_seed_and_step(name):
    def losses(step=0, seed=11, **options):
        case = Case(name, **options)
        case.method.seed = seed
        case.method.at_step(step)
        task = case.task()
        trained = case.gradient(task)[0].loss["meta"].item()
        tested = score_all(case.method, [Asked([case.groups], ("meta",))], task, (3,))[0]
        return trained, tested["meta", 3].loss.item()

    base = losses()
    assert losses() == base
    others = [losses(step=1), losses(seed=12), losses(dropout=0.0)]
    assert len({base[0], *(trained for trained, _ in others)}) == 4
    assert {tested for _, tested in others} == {base[1]}
    assert others[2][0] == others[2][1], "without dropout training adapts as test does"


def test_half_of_the_values_are_dropped_and_the_rest_doubled():
    from cml_bench import seeding
    from cml_bench.networks._sparse import Dropout

    like = torch.empty(4000, 16, dtype=torch.float64)
    for share in (0.5, 0.3):
        mask = Dropout(share, (seeding.key("x"),)).mask(0, 4000, like)
        kept = (mask > 0).double().mean().item()
        assert abs(kept - (1 - share)) < 0.01
        assert mask.unique().tolist() == [0.0, pytest.approx(1 / (1 - share), rel=1e-4)]
    some = Dropout(share, (seeding.key("x"),)).mask(0, 4000, like[:3], np.array([0, 7, 3999]))
    assert torch.equal(some, mask[[0, 7, 3999]])
