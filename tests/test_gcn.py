"""The graph network: both paths, subgraphs, sparse products, sizes and initial values. float64."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from cml_bench import registry
from cml_bench.costs.describe import describe
from cml_bench.engine.step import expand
from cml_bench.errors import UserError
from cml_bench.networks._sparse import Sparse
from tests.helpers.cases import CPU, random
from tests.helpers.graph_sets import KINDS, make, variant
from tests.helpers.graphs import Case, Piece, embeddings, matrices, small, two_hops


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gmeta", "amm_gnn"])
def test_both_paths_are_the_equations(name, kind):
    data = variant(kind)
    a, x = matrices(data.arrays, 20)
    nodes = torch.from_numpy(np.random.default_rng(0).permutation(84)[:10])
    for path in ("plain", "fast"):
        case = Case(name, path, data)
        p = case.groups["base"]
        wide = {key: value[None] for key, value in p.items()}
        scale = 1 + random(20, name="scale")
        got = case.network.features(wide, nodes[None], scale=scale[None])[0]
        assert torch.allclose(got, embeddings(name, a, x * scale, p, nodes.tolist()), atol=1e-12)
    stored = type(case.network.graph.rows("features", np.arange(84))).__name__
    assert stored.lower() == kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sparse_product_and_its_derivatives_are_the_dense_ones(dtype):
    """float32 has another kernel than float64.

    Layouts that are not plain rows, such as views and expanded values, are included.
    """
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 30)) * (rng.random((50, 30)) < 0.2)
    values[7] = 0
    sparse = Sparse(sp.csr_array(values), dtype, CPU)
    dense, close = torch.from_numpy(values).to(dtype), {"rtol": 1e-5, "atol": 1e-6}
    x, g = random(30, 16).to(dtype), random(50, 32).to(dtype)[:, ::2]
    with torch.no_grad():
        for right in (x, random(16, 30).to(dtype).t(), x[:1, :1].expand(30, 16)):
            torch.testing.assert_close(sparse @ right, dense @ right, **close)
        torch.testing.assert_close(sparse.back(g), dense.t() @ g, **close)
    x.requires_grad_()
    for power in (2, 3):
        first, expected = (
            torch.autograd.grad(((m @ x) ** power * g).sum(), x, create_graph=True)[0]
            for m in (sparse, dense)
        )
        torch.testing.assert_close(first, expected, **close)
        second, wanted = (torch.autograd.grad((grad**2).sum(), x)[0] for grad in (first, expected))
        torch.testing.assert_close(second, wanted, rtol=1e-4, atol=1e-4)


def test_an_isolated_node_is_its_own_subgraph():
    case = Case("gmeta")
    part = case.network.graph.subgraph(0)
    assert part.nodes.tolist() == [0]
    assert part.block.toarray().tolist() == [[1.0]]


def test_the_cut_block_is_exact_at_its_centre_and_not_at_its_rim():
    """G-Meta's mean over a subgraph therefore differs from the mean of the whole graph's rows."""
    a, x = matrices(small().arrays, 20)
    p = Case("gmeta").groups["base"]
    whole, different = embeddings("amm_gnn", a, x, p, list(range(84))), 0
    for node in range(1, 9):
        s = two_hops(a, node)
        cut = embeddings("amm_gnn", a[s][:, s], x[s], p, list(range(len(s))))
        assert torch.allclose(cut[s.index(node)], whole[node], atol=1e-13)
        different += not torch.allclose(cut.mean(0), whole[s].mean(0), atol=1e-4)
    assert different > 4


@pytest.mark.parametrize("name", ["gmeta", "amm_gnn"])
def test_a_far_node_does_not_matter(name):
    """Far is further than two hops, or three for subgraphs.

    The rows of a subgraph's rim are divided by degrees in the whole graph.
    """
    case = Case(name)
    task = case.task()
    nodes = torch.cat((task.support.x, task.query.x), 1)[0].tolist()
    a, _ = matrices(case.data.arrays, 20)
    near = set().union(*(two_hops(a, node) for node in nodes))
    if name == "gmeta":
        near = set((a[list(near)] > 0).any(0).nonzero().ravel().tolist())
    far = next(n for n in range(84) if n not in near and (a[n] > 0).sum() > 1)
    edges, features, labels = case.data.given
    without = Piece(
        edges[:, (edges != far).all(0)], features * (np.arange(84) != far)[:, None], labels
    )
    other = Case(name, data=without)
    logits = []
    for c in (case, other):
        wide = c.method.meet(expand(c.groups, 1), task)
        *_, params = c.method.trajectory(wide, task.support, 3)
        logits.append(c.method.outputs(wide, params, task.query.x, ("meta",))["meta"])
    assert torch.equal(*logits)


@pytest.mark.parametrize(
    ("data", "way", "encoder", "head", "co"),
    [
        ("citeseer", 2, 59_536, 34, 306),
        ("amazon_computer", 2, 12_560, 34, 306),
        ("corafull", 5, 139_648, 85, 357),
    ],
)
def test_parameters_are_the_papers(data, way, encoder, head, co):
    for name, more in (("gmeta", 0), ("amm_gnn", 22)):
        network_options = registry.method(name).network_defaults
        described = describe(f"{name}+cml", "gcn", data, way, 1, 5, network_options=network_options)
        assert described.parameters.test["meta"] == encoder + head + more
        assert described.parameters.co_learner == co
        assert described.parameters.test["co"] == encoder + co + more
        assert described.flops["training"] > described.flops["adaptation"] > 0


def test_initial_values_lie_within_the_fan_out():
    base = Case("amm_gnn").method.init(0)["base"]
    for key, limit in (
        ("gcn1.weight", 5**-0.5),
        ("gcn2.bias", 5**-0.5),
        ("head.weight", 2**-0.5),
        ("alpha.weight", 1),
    ):
        assert 0.5 * limit < base[key].abs().max() <= limit
    torch_like = Case("gmeta", network={"init": "torch"}).method.init(0)["base"]
    assert torch_like["gcn1.weight"].abs().max() <= 20**-0.5


@pytest.mark.parametrize("name", ["maml", "boil+cml", "sharp_maml"])
def test_methods_of_images_work_on_graphs_in_second_order(name):
    rate = {"inner_lr": 0.2, "inner_steps": 2}
    cases = [
        Case(name, path, variant("coded"), network={"readout": "subgraph"}, **rate)
        for path in ("plain", "fast")
    ]
    one, two = (case.gradient(case.task())[1] for case in cases)
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-12


def test_graphs_and_other_data_do_not_mix(tmp_path):
    gcn, mlp = registry.networks.get("gcn"), registry.networks.get("mlp")
    with pytest.raises(
        UserError, match=r"gcn takes nodes, and the examples of sinusoid are no nodes"
    ):
        gcn(gcn.Options(), (1,), 1).bind(make("sinusoid"))
    with pytest.raises(
        UserError, match=r"mlp takes vectors, and the examples of citeseer are nodes"
    ):
        mlp(mlp.Options(), (3703,), 2).bind(make("citeseer"))
    with pytest.raises(UserError, match=r"gmeta works on nodes, and mlp takes vectors"):
        registry.method("gmeta")(
            registry.method("gmeta").Options(), mlp(mlp.Options(), (5,), 2), "classification"
        )
    net = gcn(gcn.Options(), (3703,), 2)
    net.bind(make("citeseer"))
    with pytest.raises(UserError, match=r"bind an open data set"):
        net.graph.near(np.array([0]))


def test_a_large_graph_keeps_no_more_subgraphs_than_allowed(monkeypatch):
    from cml_bench.networks import _sparse

    monkeypatch.setattr(_sparse, "_KEPT", 60)
    case, want = Case("gmeta"), Case("gmeta")
    got = case.gradient(case.task())[1]
    assert 0 < sum(s.block.nnz for s in case.network.graph._subgraphs.values()) <= 60
    monkeypatch.undo()
    assert all(torch.equal(got[k], v) for k, v in want.gradient(want.task())[1].items())
