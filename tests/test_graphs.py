"""Graph data sets, the graph network's two paths, and what else must hold of it. float64."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from cml_bench import registry
from cml_bench.costs.describe import describe
from cml_bench.data._source import sha256_of
from cml_bench.data.episodes import SPLITS, Episodes
from cml_bench.data.graphs import GraphSet
from cml_bench.engine.step import expand
from cml_bench.errors import UserError
from cml_bench.networks._sparse import Sparse
from tests.helpers.cases import CPU, random
from tests.helpers.graph_sets import KINDS, copies, make, variant
from tests.helpers.graphs import Case, Piece, embeddings, matrices, small, two_hops

FOLDERS = {"citeseer": "Planetoid/CiteSeer/raw", "amazon_computer": "Amazon/Computers/raw"}
TLP = {
    "citeseer": ([3, 5], [0, 4], [1, 2]),
    "amazon_computer": ([1, 3, 4, 6], [0, 5, 8], [2, 7, 9]),
    "corafull": (
        sorted(
            set(range(70))
            - {2, 9, 11, 14, 15, 16, 21, 26, 30, 32, 40, 53, 54, 56, 64}
            - {4, 6, 8, 18, 20, 22, 25, 29, 33, 36, 46, 50, 57, 63, 66}
        ),
        [2, 9, 11, 14, 15, 16, 21, 26, 30, 32, 40, 53, 54, 56, 64],
        [4, 6, 8, 18, 20, 22, 25, 29, 33, 36, 46, 50, 57, 63, 66],
    ),
}
DECODED = {"citeseer": "597cf441d508", "amazon_computer": "ed04ae07834b", "sbm": "756e3bb9b253"}


def prepared(name: str, tmp_path: Path, real_data: Path | None = None, **options):
    data = make(name, **options)
    data.prepare(
        tmp_path, copies(data, real_data / "graphs" / FOLDERS[name]) if name in FOLDERS else None
    )
    return data.open(tmp_path, CPU, torch.float64)


# -- class splits


@pytest.mark.parametrize("name", TLP)
def test_tlps_split_is_the_one_its_code_draws(name):
    data = make(name)
    assert [data.class_split[split].tolist() for split in SPLITS] == [
        list(part) for part in TLP[name]
    ]
    assert data.data_id == f"{name}/tlp-1234"


@pytest.mark.parametrize("name", ["citeseer", "amazon_computer", "corafull", "sbm"])
def test_random_splits_have_the_sizes_and_every_class_once(name):
    sets = [make(name, split=f"r{i}") for i in range(10)]
    for data in sets:
        parts = [data.class_split[split].tolist() for split in SPLITS]
        assert [len(part) for part in parts] == list(data.split_sizes)
        assert sorted(c for part in parts for c in part) == list(range(sum(data.split_sizes)))
    assert len({str(data.class_split) for data in sets}) == 10
    assert len({data.data_id for data in sets}) == 10
    assert str(make(name, split="r3").class_split) == str(sets[3].class_split)


def test_the_first_random_splits_stay_what_they_are():
    assert make("citeseer", split="r0").class_split["test"].tolist() == [2, 3]
    assert make("sbm", split="r0").class_split["train"].tolist() == [0, 1, 3, 5, 6, 9]


@pytest.mark.parametrize("split", ["r01", "r", "x1", "r1.5", "tlp-1235", "r-1"])
def test_another_split_is_refused_by_name(split):
    with pytest.raises(UserError, match=r"split"):
        make("citeseer", split=split)


# -- data sets


@pytest.mark.parametrize("name", FOLDERS)
def test_the_real_graphs_are_read(name, real_data, tmp_path):
    data = make(name)
    folder = real_data / "graphs" / FOLDERS[name]
    assert [(sha256_of(folder / f.name), (folder / f.name).stat().st_size) for f in data.files] == [
        (f.sha256, f.size) for f in data.files
    ]
    data = prepared(name, tmp_path, real_data)
    a = data.arrays
    assert len(a.indices) == 2 * data.edges
    assert set(np.unique(a.feature_values)) == {1.0}
    assert data.sha256.startswith(DECODED[name])
    assert np.bincount(a.labels).min() == data.smallest_class
    graph = registry.networks.get("gcn")
    net = graph(graph.Options(), data.input_shape, 2)
    net.bind(data)
    sizes = [
        len(net.graph.subgraph(node).nodes)
        for node in range(0, data.nodes, 1 if name == "citeseer" else 40)
    ]
    assert abs(np.mean(sizes) - data.subgraph) < 0.15 * data.subgraph


def test_corafulls_reader_on_cora_ml_which_has_its_layout(real_data, tmp_path):
    class CoraML(registry.datasets.get("corafull")):
        nodes, edges, features, smallest_class, split_sizes = 2995, 8158, 2879, 100, (3, 2, 2)
        named_splits = {}
        files = (registry.datasets.get("corafull").files[0],)

    shutil.copy(
        real_data / "graphs" / "CitationFull/cora_ml/raw/cora_ml.npz", tmp_path / "cora.npz"
    )
    data = CoraML(CoraML.Options(split="r0"))
    data.prepare(tmp_path / "data", copies(data, tmp_path))
    data.open(tmp_path / "data", CPU, torch.float64)
    assert len(data.arrays.indices) == 2 * 8158
    whole = make("corafull", split="r0")
    with pytest.raises(
        UserError, match=r"cora\.npz: .2995, .* were read, .19793, .* are expected.*`sources`"
    ):
        whole.prepare(tmp_path / "more", copies(data, tmp_path))


def ring(labels=(0, 0, 1, 1, 2, 2, 0, 1), **changes):
    """A set whose graph is a ring of 8 nodes of 3 classes, or what ``changes`` make of it."""
    there = np.stack((np.arange(8), (np.arange(8) + 1) % 8))

    class Ring(GraphSet):
        name, nodes, edges, features, subgraph, smallest_class, split_sizes = (
            "ring",
            8,
            8,
            4,
            5.0,
            2,
            (1, 1, 1),
        )

        def graph(self, paths):
            given = {
                "edges": np.concatenate((there, there[::-1]), 1),
                "features": np.eye(8, 4),
                **changes,
            }
            return given["edges"], given["features"], np.asarray(labels)

    return Ring(Ring.Options()).build({}), there


def test_what_is_no_graph_is_refused():
    arrays, there = ring()
    assert arrays.indptr.tolist() == list(range(0, 18, 2))
    assert arrays.indices[:4].tolist() == [1, 7, 0, 2]
    with pytest.raises(UserError, match="ring: links join nodes 1 to 8; there are 0 to 7"):
        ring(edges=np.concatenate((there, there[::-1]), 1) + 1)
    with pytest.raises(UserError, match="ring: links must be given in both directions"):
        ring(edges=there)
    with pytest.raises(
        UserError, match=r"ring: \(8, 16, 3, 3\) .* were read, \(8, 16, 4, 3\) are expected"
    ):
        ring(features=np.eye(8, 3))
    with pytest.raises(
        UserError, match=r"ring: classes must be whole numbers from 0 to 2, found: 1 to 3 \(int64\)"
    ):
        ring([1, 1, 2, 2, 3, 3, 1, 2])
    with pytest.raises(UserError, match=r"found: 0\.0 to 2\.0 \(float64\)"):
        ring([0.0, 0, 1, 1, 2, 2, 0, 1])
    with pytest.raises(UserError, match="a class has 1 nodes, 2 at least are expected"):
        ring([0, 0, 1, 1, 2, 0, 0, 1])


def test_a_file_in_corafulls_layout_becomes_the_graph_in_it(tmp_path):
    """The layout of graph2gauss's files: sparse matrices by rows, each link in one direction."""

    class Tiny(registry.datasets.get("corafull")):
        nodes, edges, features, smallest_class, split_sizes, named_splits = (
            8,
            8,
            4,
            2,
            (1, 1, 1),
            {},
        )
        files = (registry.datasets.get("corafull").files[0],)

    words = sp.csr_matrix(np.arange(32).reshape(8, 4) % 3 == 0, dtype=np.float32)
    links = sp.csr_matrix((np.ones(8, np.float32), (np.arange(8), (np.arange(8) + 1) % 8)))
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 1])
    parts = {
        f"{name}_{part}": getattr(matrix, part)
        for name, matrix in (("adj", links), ("attr", words))
        for part in ("data", "indices", "indptr", "shape")
    }
    np.savez(tmp_path / "cora.npz", **parts, labels=labels)
    data = Tiny(Tiny.Options(split="r0"))
    data.prepare(tmp_path / "data", copies(data, tmp_path))
    arrays = data.open(tmp_path / "data", CPU, torch.float64).arrays
    assert arrays.indptr.tolist() == list(range(0, 18, 2))
    assert arrays.indices.tolist() == [1, 7, 0, 2, 1, 3, 2, 4, 3, 5, 4, 6, 5, 7, 0, 6]
    read = sp.csr_matrix(
        (arrays.feature_values, arrays.feature_indices, arrays.feature_indptr), shape=(8, 4)
    )
    assert (read != words).nnz == 0
    assert (arrays.labels == labels).all()


def test_a_damaged_file_is_named(real_data, tmp_path):
    data = make("amazon_computer")
    path = tmp_path / data.files[0].name
    path.write_bytes(
        (real_data / "graphs" / FOLDERS["amazon_computer"] / path.name).read_bytes()[:50_000]
    )
    with pytest.raises(
        UserError, match=r"amazon_electronics_computers\.npz is no whole npz.*`sources`"
    ):
        data.prepare(tmp_path / "data", copies(data, tmp_path))
    assert not (tmp_path / "data" / "prepared").exists()


def test_a_damaged_prepared_graph_is_made_anew(tmp_path):
    data = prepared("sbm", tmp_path)
    before, path = data.sha256, data.folder(tmp_path) / "graph.npz"
    assert before.startswith(DECODED["sbm"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"the prepared data in .* is damaged .*makes it anew"):
        data.open(tmp_path, CPU, torch.float64)
    assert prepared("sbm", tmp_path).sha256 == before


def test_node_tasks_are_drawn_by_the_episode_machinery_of_images(tmp_path):
    data = prepared("sbm", tmp_path)
    for split in SPLITS:
        seed = 0 if split == "train" else None
        task = Episodes(data, split, 2, 3, 4, seed=seed).batch(250, 12)  # across a block
        again = Episodes(data, split, 2, 3, 4, seed=seed).batch(255, 1)
        assert torch.equal(task.query.x[5], again.query.x[0])
        for t in range(12):
            support, query = task.support.x[t].tolist(), task.query.x[t].tolist()
            assert not set(support) & set(query)
            kinds = data.arrays.labels[support].reshape(2, 3)
            assert (kinds == kinds[:, :1]).all()
            assert (data.arrays.labels[query].reshape(2, 4) == kinds[:, :1]).all()
            assert set(kinds[:, 0]) <= set(data.class_split[split].tolist())
            assert task.support.y[t].tolist() == [0, 0, 0, 1, 1, 1]


def test_impossible_tasks_are_refused():
    with pytest.raises(UserError, match=r"way 3 is impossible, the test split has 2 classes"):
        make("citeseer").check("test", 3, 1, 5)
    with pytest.raises(UserError, match=r"corafull: 6 support and 10 query nodes of one class"):
        make("corafull").check("test", 5, 6, 10)
    make("corafull").check("test", 5, 5, 10)


# -- the network


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
    """float32 has another kernel than float64; layouts that are no plain rows (views, expanded
    values) included.
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
    """So the mean differs from that of the whole graph's rows."""
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
    """Further than two hops; for subgraphs three, since the rows of a rim are divided by degrees in
    the whole graph.
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
    found = []
    for c in (case, other):
        wide = c.method.meet(expand(c.groups, 1), task)
        *_, params = c.method.trajectory(wide, task.support, 3)
        found.append(c.method.outputs(wide, params, task.query.x, ("meta",))["meta"])
    assert torch.equal(*found)


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
        found = describe(f"{name}+cml", "gcn", data, way, 1, 5, network_options=network_options)
        assert found["parameters"]["test"]["meta"] == encoder + head + more
        assert found["parameters"]["co_learner"] == co
        assert found["parameters"]["test"]["co"] == encoder + co + more
        assert found["flops"]["training"] > found["flops"]["adaptation"] > 0


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
    found = [
        Case(name, path, variant("coded"), network={"readout": "subgraph"}, **rate)
        for path in ("plain", "fast")
    ]
    one, two = (case.gradient(case.task())[1] for case in found)
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
