"""What the Python API takes, and what it refuses in one sentence each."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cml_bench
from cml_bench import registry
from cml_bench.data.loader import EpisodeLoader, open_data
from cml_bench.data.wrap import wrap
from cml_bench.engine.build import Settings, build_data, build_method
from cml_bench.engine.learner import Learner
from cml_bench.engine.run import run
from cml_bench.engine.step import leaves
from cml_bench.errors import UserError
from cml_bench.records import Record
from tests.helpers.cases import CPU
from tests.helpers.graphs import Case
from tests.helpers.specs import glyph_spec, graph_spec, sinusoid_spec

ROOT = Path(__file__).parent.parent


def refused(call, said: str) -> None:
    """Check that the call ends in a UserError of one sentence with these words."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert said in text
    assert "\n" not in text
    assert text.endswith(".")


# -- adapt and predict


@cache
def learner(kind: str) -> Learner:
    """A learner before any training."""
    if kind.startswith(("gmeta", "amm_gnn")):
        case = Case(kind, dtype=torch.float32)
        record = Record.model_construct(folder=Path("runs/x"), spec=graph_spec(kind))
        return Learner(case.method, case.groups, record, case.data)
    spec = sinusoid_spec("maml") if kind == "sinusoid" else glyph_spec(kind)
    method = build_method(spec, build_data(spec)).for_test()
    groups = leaves(method.init(0), CPU, torch.float32)
    return Learner(method, groups, Record.model_construct(folder=Path("runs/x"), spec=spec))


X, Y = torch.linspace(0, 1, 5 * 256).view(5, 1, 16, 16), torch.arange(5)
WAVES, VALUES = torch.linspace(-5, 5, 5).view(5, 1), torch.zeros(5, 1)
BROKEN = X.clone()
BROKEN[3, 0, 2, 2] = float("nan")

IMAGES = {
    "labels 1..way": (
        dict(y_support=Y + 1),
        "whole numbers from 0 to 4, are wanted, not labels from 1 to 5",
    ),
    "a negative label": (dict(y_support=Y - 1), "not labels from -1 to 3"),
    "one-hot": (
        dict(y_support=torch.eye(5)),
        "not values of shape (5, 5) (labels from one-hot rows: y.argmax(1))",
    ),
    "a column": (dict(y_support=Y[:, None]), "not values of shape (5, 1)."),
    "float labels": (dict(y_support=Y.float()), "are wanted, not float32"),
    "boolean labels": (dict(y_support=[True, False, True, False, True]), "are wanted, not bool"),
    "words": (
        dict(y_support=list("abcde")),
        "y_support must be a tensor, an array or lists of numbers",
    ),
    "one label": (dict(y_support=torch.tensor(0)), "not values of shape ()"),
    "too few": (
        dict(x_support=X[:3], y_support=Y[:3]),
        "no example of class 3, 4: at least one of each of the 5 cl",
    ),
    "a class twice": (dict(y_support=[0, 1, 2, 3, 3]), "no example of class 4"),
    "other lengths": (dict(y_support=Y[:4]), "x_support has 5 examples and y_support has 4"),
    "empty": (dict(x_support=X[:0], y_support=Y[:0]), "x_support is empty"),
    "nothing": (dict(x_support=[], y_support=[]), "not (0,)"),
    "None": (dict(x_support=None), "x_support must be a tensor, an array or lists"),
    "another size": (
        dict(x_support=X[..., 1:]),
        "inputs of shape (n, 1, 16, 16), not (5, 1, 16, 15)",
    ),
    "other channels": (dict(x_support=X.expand(5, 3, 16, 16)), "not (5, 3, 16, 16)"),
    "channels last": (dict(x_support=X.movedim(1, 3).numpy()), "not (5, 16, 16, 1)"),
    "one image": (dict(x_support=X[0]), "not (1, 16, 16)"),
    "of several sizes": (dict(x_support=[[1.0], [1.0, 2.0]]), "lists of numbers that form one"),
    "bytes": (
        dict(x_support=(X * 255).to(torch.uint8)),
        (
            "x_support: images are floats in [0, 1], as open_data and "
            "wrap give them, not uint8 from 0 to 255: divide them by 255"
        ),
    ),
    "0 to 255": (dict(x_support=X.numpy() * 255), "not numbers from 0 to 255: divide bytes by 255"),
    "normalised": (dict(x_support=(X - 0.5) / 0.3), "give them before they are normalised"),
    "complex": (dict(x_support=X + 1j), "x_support must be real numbers, not complex64"),
    "NaN": (dict(x_support=BROKEN), "x_support has values that are not finite"),
    "infinite": (
        dict(x_support=(X / 0).nan_to_num(0, float("inf"))),
        "x_support has values that are not finite",
    ),
    "steps < 0": (dict(steps=-1), "steps must be a whole number from 0 to 200, not -1"),
    "half a step": (dict(steps=1.5), "not 1.5"),
    "True steps": (dict(steps=True), "not True"),
    "endless steps": (dict(steps=10**9), "not 1000000000"),
    "other queries": (dict(x_query=X[..., 1:]), "x_query: this run takes inputs"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_a_support_set_of_images_that_means_nothing_is_refused(case):
    changes, said = IMAGES[case]
    refused(lambda: learner("maml").adapt(**{"x_support": X, "y_support": Y, **changes}), said)


VECTORS = {
    "flat values": (
        dict(y_support=VALUES[:, 0]),
        "values of shape (n, 1) are wanted, not float32 of shape (5,)",
    ),
    "two values": (dict(y_support=VALUES.expand(5, 2)), "not float32 of shape (5, 2)"),
    "infinite values": (
        dict(y_support=VALUES - float("inf")),
        "y_support has values that are not finite",
    ),
    "boolean values": (dict(y_support=VALUES > 0), "not bool"),
    "other lengths": (dict(y_support=VALUES[:2]), "x_support has 5 examples and y_support has 2"),
    "flat inputs": (dict(x_support=WAVES[:, 0]), "inputs of shape (n, 1), not (5,)"),
    "NaN": (dict(x_support=WAVES / WAVES), "x_support has values that are not finite"),
}


@pytest.mark.parametrize("case", VECTORS)
def test_a_support_set_for_regression_that_means_nothing_is_refused(case):
    changes, said = VECTORS[case]
    refused(
        lambda: learner("sinusoid").adapt(**{"x_support": WAVES, "y_support": VALUES, **changes}),
        said,
    )


NODES = {
    "floats": (
        dict(x_support=[0.0, 1.0, 2.0, 3.0]),
        "nodes are whole numbers from 0 to 83, as the graph counts them, not float64",
    ),
    "beyond the graph": (dict(x_support=[0, 1, 2, 84]), "not int64 from 0 to 84"),
    "negative": (dict(x_support=[-1, 1, 2, 3]), "not int64 from -1 to 3"),
    "features": (dict(x_support=torch.zeros(4, 20)), "inputs of shape (n), not (4, 20)"),
    "queries beyond": (dict(x_query=[100]), "x_query: nodes are whole numbers"),
    "labels 1..way": (dict(y_support=[1, 1, 2, 2]), "not labels from 1 to 2"),
}


@pytest.mark.parametrize("name", ["gmeta", "amm_gnn+cml"])
@pytest.mark.parametrize("case", NODES)
def test_a_support_set_of_nodes_that_means_nothing_is_refused(case, name):
    changes, said = NODES[case]
    given = {
        "x_support": [0, 1, 20, 21],
        "y_support": [0, 0, 1, 1],
        "x_query": range(30, 50),
        **changes,
    }
    refused(lambda: learner(name).adapt(**given), said)


def test_what_cannot_be_predicted_is_refused():
    adapted = learner("maml+cml").adapt(X, Y)
    refused(
        lambda: learner("maml").predict(X),
        "adapts before it predicts: learner.adapt(x_support, y_support)",
    )
    refused(
        lambda: adapted.predict(X[0]),
        "x_query: this run takes inputs of shape (n, 1, 16, 16), not (1, 16, 16)",
    )
    refused(lambda: adapted.predict(X[:0]), "x_query is empty")
    refused(lambda: adapted.predict(X * 255), "divide bytes by 255")
    refused(lambda: adapted.outputs(BROKEN), "x_query has values that are not finite")
    refused(lambda: adapted.predict(X, "theta"), "has no head 'theta', only 'meta', 'co'")
    refused(lambda: adapted.predict(X, head=None), "has no head None")
    refused(
        lambda: learner("maml").adapt(X, Y).predict(X, "co"),
        "has no head 'co', only 'meta'; the head 'co' is of runs of maml+cml",
    )
    kept = learner("maml+cml")
    without = Learner(kept.method, {"base": kept.groups["base"]}, kept.record)
    refused(lambda: without.adapt(X, Y).predict(X, "co"), "colearner.safetensors is missing")
    assert without.adapt(X, Y).predict(X).shape == (5,)


def test_arrays_lists_and_tensors_are_taken_alike():
    reversed_, read_only = X.numpy()[::-1], X.numpy().copy()
    read_only.flags.writeable = False
    wanted = learner("maml").adapt(X, Y).outputs(X)
    for x, y in (
        (X.numpy(), Y.numpy()),
        (X.tolist(), Y.tolist()),
        (X.double(), Y.to(torch.uint8)),
        (list(X), [torch.tensor(c) for c in range(5)]),
        (read_only, tuple(range(5))),
        (X.clone().requires_grad_(), Y),
    ):
        torch.testing.assert_close(learner("maml").adapt(x, y).outputs(x), wanted)
    assert learner("maml").adapt(reversed_, Y).predict(reversed_).shape == (5,)
    assert learner("maml").adapt(X * 1.2 - 0.1, Y, steps=np.int64(0)).predict(X[:1]).shape == (1,)
    assert learner("sinusoid").adapt(WAVES, VALUES.long()).predict(WAVES.tolist()).shape == (5, 1)
    assert learner("gmeta").adapt(np.arange(4), [0, 0, 1, 1]).predict([7]).shape == (1,)


# -- load


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Record:
    """A stored run of one step."""
    settings = Settings(results=tmp_path_factory.mktemp("results"), report=lambda text: None)
    return run(sinusoid_spec("maml+cml", steps=1), settings)


def test_what_cannot_be_loaded_is_refused(stored, tmp_path):
    refused(lambda: cml_bench.load(tmp_path), "is no finished run, since it holds no record.json")
    refused(lambda: cml_bench.load(tmp_path / "nowhere"), "no finished run at")
    refused(lambda: cml_bench.load("0123", tmp_path), "no finished run at 0123")
    refused(lambda: cml_bench.load(7), "run must be a path, as a word or a pathlib.Path, not int")
    refused(lambda: cml_bench.load(b"runs"), "not bytes")
    refused(lambda: cml_bench.load(""), "run must be a path, not ''")
    refused(lambda: cml_bench.load("x", results=None), "results must be a path")
    refused(lambda: cml_bench.load(stored.folder, data_dir=1.5), "data_dir must be a path")
    committed = next((ROOT / "results" / "reference" / "demo" / "runs").glob("maml-*"))
    refused(
        lambda: cml_bench.load(committed),
        "holds a record without weights (committed results have none): train",
    )
    nothing_learned = next((ROOT / "results" / "reference" / "demo" / "runs").glob("pixel_nn-*"))
    refused(
        lambda: cml_bench.load(nothing_learned),
        "pixel_nn learns nothing, so there is no model to load",
    )


def test_damaged_weights_are_refused(stored, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(stored.folder, copy)
    whole = load_file(copy / "model.safetensors")
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[:-9])
    refused(lambda: cml_bench.load(copy), "model.safetensors is damaged")
    name = next(iter(whole))
    for weights in (
        {"other": whole[name]},
        {**whole, name: torch.zeros(3)},
        {**whole, "more": torch.zeros(1)},
    ):
        save_file(weights, copy / "model.safetensors")
        refused(
            lambda: cml_bench.load(copy),
            f"the weights in {copy} are not those of its record: move the folder",
        )
    save_file({**whole, name: whole[name] * float("nan")}, copy / "model.safetensors")
    refused(lambda: cml_bench.load(copy), "are not finite")
    save_file(whole, copy / "model.safetensors")
    shutil.copy(copy / "model.safetensors", copy / "last.safetensors")
    refused(lambda: cml_bench.load(copy), f"the models in {copy} are damaged")
    (copy / "last.safetensors").unlink()
    (copy / "colearner.safetensors").unlink()
    refused(
        lambda: cml_bench.load(copy).adapt(WAVES, VALUES).predict(WAVES, "co"),
        f"{copy}/colearner.safetensors is ",
    )
    assert cml_bench.load(str(copy)).adapt(WAVES, VALUES).predict(WAVES).shape == (5, 1)


# -- open_data and EpisodeLoader


@pytest.fixture(scope="module")
def data():
    """Six classes of four images; each image is another grey."""
    return wrap([(np.full((4, 4), 40 * c + i, np.uint8), c) for c in range(6) for i in range(4)])


LOADERS = {
    "no tasks": (dict(batch_size=0), "batch_size must be a whole number from 1 to 100,000, not 0"),
    "fewer": (dict(batch_size=-1), "batch_size must be a whole number"),
    "a float": (dict(batch_size=4.0), "not 4.0"),
    "true": (dict(shot=True), "shot must be a whole number from 1 to 100,000, not True"),
    "a word": (dict(way="5"), "not '5'"),
    "an array": (dict(shot=np.zeros((3, 3))), "shot must be a whole number"),
    "one way": (dict(way=1), "way must be a whole number from 2 to"),
    "more ways than classes": (dict(way=7), "way 7 is impossible, the train split has 6 classes"),
    "no queries": (dict(query=0), "query must be a whole number from 1"),
    "more than a class has": (
        dict(shot=3, query=2),
        "3 support and 2 query images of one class are impossible",
    ),
    "endless": (dict(shot=10**12), "not 1000000000000"),
    "another split": (dict(split="val"), "unknown split 'val'. Did you mean 'validation'?"),
    "no split": (dict(split=None), "unknown split 'None'"),
    "a seed": (dict(seed=-1), "seed must be a whole number from 0"),
    "half a batch": (dict(batches=0.5), "batches must be a whole number from 0"),
}


@pytest.mark.parametrize("case", LOADERS)
def test_episodes_that_cannot_be_drawn_are_refused(case, data):
    changes, said = LOADERS[case]
    refused(lambda: EpisodeLoader(data, **{"way": 5, "shot": 1, "query": 1, **changes}), said)


def test_a_loader_takes_open_data_only(data):
    cls = registry.datasets.get("glyphs")
    for wrong in ([(0, 0)], "glyphs", cls, cls(cls.Options(size=16))):
        refused(
            lambda wrong=wrong: EpisodeLoader(wrong, 5, 1, 1),
            "data must be an open data set, as open_data(NAME)",
        )
    waves = EpisodeLoader(
        open_data("sinusoid"), np.int64(1), torch.tensor(5), 3, batch_size=2, batches=1
    )
    assert next(iter(waves))["train"][0].shape == (2, 5, 1)
    assert not list(EpisodeLoader(data, 2, 1, 1, batches=0))


def test_data_that_cannot_be_opened_is_refused(tmp_path):
    refused(lambda: open_data("glyph"), "unknown data set 'glyph'. Did you mean 'glyphs'?")
    refused(lambda: open_data(None), "the name of a data set must be a word in quotes, not None")
    refused(lambda: open_data("glyphs", tmp_path, sise=16), "unknown key 'sise'; known keys: ")
    refused(lambda: open_data("glyphs", tmp_path, size="small"), "data set glyphs: size: ")
    refused(lambda: open_data("sinusoid", folder=3), "folder must be a path")
    refused(
        lambda: open_data("sinusoid", device="gpu"), "unknown device 'gpu': use cpu, cuda or cuda:N"
    )
    refused(lambda: open_data("sinusoid", device="meta"), "unknown device 'meta'")
    refused(lambda: open_data("sinusoid", device=None), "unknown device 'None'")
    refused(
        lambda: open_data("vgg_flower", tmp_path, accept_terms="no"),
        "accept_terms must be True or False, not 'no'",
    )
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(lambda: open_data("glyphs", tmp_path / "file", size=16), "cannot be prepared in ")
    assert open_data("sinusoid", device=torch.device("cpu")).name == "sinusoid"
