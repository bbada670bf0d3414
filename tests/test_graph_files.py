"""Published files of graphs are read as torch_geometric reads them, and never executed."""

import io
import pickle
import warnings

import numpy as np
import pytest

from cml_bench.data._graph_files import matrix, npz, planetoid
from cml_bench.errors import UserError
from tests.helpers.archives import Command, python2_pickle, python3_pickle
from tests.helpers.graph_sets import PARTS, arrays, copies, make, planetoids


def same(ours, theirs) -> None:
    edges, features, labels = ours
    x, links, y = (part.numpy() for part in (theirs.x, theirs.edge_index, theirs.y))
    dense = np.asarray(features.todense())
    assert dense.dtype == x.dtype == np.float32
    assert np.array_equal(dense, x)
    assert np.array_equal(labels, y)
    kept = edges[:, edges[0] != edges[1]]
    assert np.array_equal(np.unique(kept, axis=1), np.unique(links, axis=1))


def test_both_kinds_of_files_are_read_as_torch_geometric_reads_them(tmp_path, monkeypatch):
    with warnings.catch_warnings(action="ignore"):
        from torch_geometric.io import planetoid as other
        from torch_geometric.io import read_npz

        for path in planetoids(tmp_path).values():
            path.rename(path.with_name(path.name.replace("small", "citeseer")))
        # torch_geometric's masks expect 500 more nodes.
        monkeypatch.setattr(other, "index_to_mask", lambda *args, **more: None)
        theirs = other.read_planetoid_data(str(tmp_path), "citeseer")
        np.savez(tmp_path / "x.npz", **arrays())
        theirs_too = read_npz(str(tmp_path / "x.npz"))
    same(planetoid({path.name: path for path in tmp_path.glob("ind.*")}), theirs)
    same(npz(tmp_path / "x.npz"), theirs_too)


def test_pickles_of_python_2_are_the_same_graph(tmp_path):
    first = planetoid(planetoids(tmp_path))
    for path in planetoids(tmp_path).values():
        if path.suffix != ".index":
            path.write_bytes(python2_pickle(pickle.loads(path.read_bytes())))
    again = planetoid({path.name: path for path in tmp_path.glob("ind.*")})
    assert (first[1] != again[1]).nnz == 0
    assert np.array_equal(first[0], again[0])


@pytest.mark.parametrize("part", PARTS)
def test_no_file_of_planetoids_runs_what_it_asks_for(part, tmp_path):
    """Each file is read as a user's own copy; test.index is text, and is refused as such."""
    data, touched = make("citeseer"), tmp_path / "touched"
    for file in data.files:
        (tmp_path / file.name).write_bytes(
            planetoids(tmp_path)[file.name.replace("citeseer", "small")].read_bytes()
        )
    (tmp_path / f"ind.citeseer.{part}").write_bytes(pickle.dumps({0: Command(touched)}, 2))
    with pytest.raises(
        UserError, match=rf"ind\.citeseer\.{part} is (refused: it holds (posix|nt)\.system|damaged)"
    ):
        data.prepare(tmp_path / "data", copies(data, tmp_path))
    assert not touched.exists()
    assert not (tmp_path / "data" / "prepared").exists()


@pytest.mark.parametrize("part", arrays())
def test_no_array_of_an_npz_runs_what_it_asks_for(part, tmp_path):
    touched = tmp_path / "touched"
    for name in ("amazon_computer", "corafull"):
        data = make(name)
        path = tmp_path / data.files[0].name
        np.savez(path, **arrays(**{part: np.array([Command(touched)], dtype=object)}))
        with pytest.raises(
            UserError, match=rf"{path.name} is refused: its array {part} holds Python objects"
        ):
            data.prepare(tmp_path / "data", copies(data, tmp_path))
    assert not touched.exists()


def test_a_prepared_graph_runs_nothing_either(tmp_path):
    data, touched = make("sbm"), tmp_path / "touched"
    data.prepare(tmp_path)
    path = data.folder(tmp_path) / "graph.npz"
    with np.load(path) as stored:
        parts = dict(stored)
    np.savez(path, **{**parts, "labels": np.array([Command(touched)], dtype=object)})
    with pytest.raises(UserError, match="damaged"):
        data._read(data.folder(tmp_path))
    assert not touched.exists()


WRONG = {
    "a row too few in test.index": {"test_index": b"8\n"},
    "a number twice": {"test_index": b"8\n8\n"},
    "a number cut off": {"test_index": b"8\n"},
    "words": {"test_index": b"a\nb\n"},
    "empty": {"test_index": b""},
    "a far node": {"test_index": b"6\n8000000000000\n"},
    "another file's labels": {"ty": np.eye(3)[:1]},
    "labels without classes": {"ally": np.zeros(6)},
    "an array for the words": {"allx": np.eye(6)},
    "no links": {"graph": {i: [] for i in range(9)}},
    "links of words": {"graph": {i: ["a"] for i in range(9)}},
    "a list for the links": {"graph": [[1], [0]]},
    "a cut pickle": {"graph": python3_pickle({1: [2]})[:-4]},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_files_that_are_not_of_one_graph_are_named(change, tmp_path):
    part = next(iter(change)).replace("_", ".")
    with pytest.raises(UserError, match=r"ind\.small\.\S+(:| is damaged)") as caught:
        planetoid(planetoids(tmp_path, **change))
    assert part in str(caught.value) or "test.index" in str(caught.value)


def test_a_matrix_whose_numbers_point_elsewhere_is_refused():
    """scipy itself takes columns and row starts for addresses in memory."""
    data, columns, rows = np.ones(3), np.array([0, 1, 2]), np.array([0, 1, 2, 3])
    assert matrix(data, columns, rows, (3, 3)).nnz == 3
    for parts in (
        (data, columns + 10**6, rows),
        (data, columns - 1, rows),
        (data, columns, rows * 10**6),
        (data[:1], columns, rows),
        (data, columns, rows[:-1]),
        (data, columns, rows[::-1].copy()),
        (data.astype(complex), columns, rows),
        (data, columns.astype(float), rows),
        (data.tolist(), columns, rows),
        (np.array(["a", "b", "c"]), columns, rows),
    ):
        with pytest.raises(ValueError):
            matrix(*parts, (3, 3))


def test_an_npz_of_another_layout_is_named_for_what_it_holds(tmp_path):
    path = tmp_path / "cora.npz"
    np.savez(path, images=np.zeros(3), names=np.array(["a"]))
    with pytest.raises(UserError, match=r"cora\.npz holds images, names; it has no adj_data"):
        npz(path)
    path.write_text("<html>")
    with pytest.raises(UserError, match=r"cora\.npz is no whole npz"):
        npz(path)
    np.savez(path, **arrays(adj_shape=np.array([5, 4])))
    with pytest.raises(UserError, match=r"cora\.npz is damaged \(ValueError"):
        npz(path)
    np.savez(path, **arrays(attr_shape=np.array([5, 2**40])))
    (tmp_path / "amazon_electronics_computers.npz").write_bytes(path.read_bytes())
    data = make("amazon_computer")
    # The error comes before any memory is asked for.
    with pytest.raises(UserError, match=r"1099511627776, 3\) .* were read"):
        data.prepare(tmp_path / "data", copies(data, tmp_path))


def test_truncated_anywhere_it_is_named(tmp_path):
    whole = io.BytesIO()
    np.savez(whole, **arrays())
    content, path = whole.getvalue(), tmp_path / "cora.npz"
    for end in range(0, len(content), 37):
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match=r"cora\.npz"):
            npz(path)
