"""Graph data sets: class splits, files, prepared graphs and the tasks drawn from them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from cml_bench import registry
from cml_bench.data._source import sha256_of
from cml_bench.data.episodes import SPLITS, Episodes
from cml_bench.data.graphs import GraphSet
from cml_bench.errors import UserError
from tests.helpers.cases import CPU
from tests.helpers.damage import flip
from tests.helpers.graph_sets import copies, make

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
    """A ring of 8 nodes of 3 classes as a data set, with the arrays in ``changes`` replaced."""
    there = np.stack((np.arange(8), (np.arange(8) + 1) % 8))

    class Ring(GraphSet):
        name, subgraph, smallest_class, split_sizes = "ring", 5.0, 2, (1, 1, 1)
        nodes, edges, features = 8, 8, 4

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
    """graph2gauss's files hold sparse matrices by rows, and each link in one direction."""

    class Tiny(registry.datasets.get("corafull")):
        nodes, edges, features, smallest_class = 8, 8, 4, 2
        split_sizes, named_splits = (1, 1, 1), {}
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
    flip(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"the prepared data in .* is damaged .*makes it anew"):
        data.open(tmp_path, CPU, torch.float64)
    assert prepared("sbm", tmp_path).sha256 == before


def test_node_tasks_are_drawn_by_the_episode_machinery_of_images(tmp_path):
    data = prepared("sbm", tmp_path)
    for split in SPLITS:
        seed = 0 if split == "train" else None
        task = Episodes(data, split, 2, 3, 4, seed=seed).batch(250, 12)  # of two blocks
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
