"""A run from specification to record: pairing, selection, readings, stored models."""

import json
import shutil

import numpy as np
import pytest
import torch

import cml_bench
from cml_bench import registry
from cml_bench.data.episodes import Episodes
from cml_bench.data.stored import ImageSet
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.run import reevaluate, run
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.records import Store, read
from cml_bench.spec import Evaluation
from cml_bench.system import allocator
from tests.helpers.runs import same, tensors
from tests.helpers.specs import glyph_spec, sinusoid_spec


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """One base run and one +CML run of each kind of data, shared by the tests that only read."""
    settings = Settings(
        results=tmp_path_factory.mktemp("runs"), data_dir=data_dir, report=lambda text: None
    )
    specs = [make(m) for make in (sinusoid_spec, glyph_spec) for m in ("maml", "maml+cml")]
    return {(spec.data.name, spec.method): run(spec, settings) for spec in specs}, settings


# -- pairing


@pytest.mark.parametrize("make", [sinusoid_spec, glyph_spec])
def test_base_and_cml_of_one_seed_start_alike_and_see_the_same_tasks(make, settings, tmp_path):
    base, cml = (Training(make(m), settings, tmp_path, print) for m in ("maml", "maml+cml"))
    assert same(base.groups["base"], cml.groups["base"])
    assert set(cml.groups) == {"base", "co"}
    for kind in ("train_tasks", "val_tasks"):
        a, b = (getattr(t, kind).batch(3, 5) for t in (base, cml))
        assert torch.equal(a.support.x, b.support.x)
        assert torch.equal(a.query.y, b.query.y)


@pytest.mark.parametrize("make", [sinusoid_spec, glyph_spec])
def test_seeds_differ_in_start_and_training_tasks_and_agree_in_test_tasks(make, settings, tmp_path):
    zero, one = (Training(make(seed=seed), settings, tmp_path, print) for seed in (0, 1))
    name = "hidden1.weight" if make is sinusoid_spec else "conv1.weight"
    assert not torch.equal(zero.groups["base"][name], one.groups["base"][name])
    assert not torch.equal(
        zero.train_tasks.batch(0, 1).support.x, one.train_tasks.batch(0, 1).support.x
    )
    tests = [
        Episodes(t.data, "test", t.spec.way, t.spec.shot, 5).batch(0, 4).query.x
        for t in (zero, one)
    ]
    assert torch.equal(*tests)


@pytest.mark.parametrize("make", [sinusoid_spec, glyph_spec])
def test_gamma_zero_is_the_baseline_bit_for_bit(make, settings):
    base = run(make("maml"), settings)
    zero = run(make("maml+cml", method_options={"cml": {"gamma": 0.0}}), settings)
    half = run(make("maml+cml", method_options={"cml": {"gamma": 0.5}}), settings)
    assert same(tensors(base, "model"), tensors(zero, "model"))
    assert np.array_equal(base.arrays["meta@1"], zero.arrays["meta@1"])
    assert (
        base.content["curves"]["validation"]["loss_meta"]
        == zero.content["curves"]["validation"]["loss_meta"]
    )
    assert not same(tensors(base, "model"), tensors(half, "model"))


# -- records and stored models


def test_a_record_says_how_memory_was_allocated(monkeypatch):
    """The record names glibc's settings: seconds with and without them cannot be compared.

    The Snakefile sets them; a user's own exports win.
    """
    for name in allocator.KEEP:
        monkeypatch.delenv(name, raising=False)
    assert (allocator.environment("system"), allocator.in_force()) == ({}, "system")
    for name, value in allocator.environment("keep").items():
        monkeypatch.setenv(name, value)
    assert allocator.in_force() == "keep"
    monkeypatch.setenv("MALLOC_TOP_PAD_", "0")
    assert "MALLOC_TOP_PAD_=0" in allocator.in_force()


def test_a_record_is_complete_on_its_own(finished):
    record = finished[0]["glyphs", "maml+cml"]
    content = record.content
    assert content["status"] in ("finished", "collapsed")
    assert content["spec"]["options"]["cml"] == {"gamma": 1.0, "depth": None}
    assert (
        content["data_sha256"]
        == json.loads(next(finished[1].data_dir.rglob("index.json")).read_text())["sha256"]
    )
    assert content["versions"]["torch"] == torch.__version__
    assert content["engine"] == {"device": "cpu", "threads": 1, "path": "fast"}
    assert content["machine"]["allocator"] == allocator.in_force()
    assert content["memory"]["of"] == "process"
    assert 50e6 < content["memory"]["peak"] < 64e9, "bytes, of a process that has loaded torch"
    assert (
        content["parameters"]["train"]
        == content["parameters"]["test"] + content["parameters"]["co"]
    )
    assert set(content["seconds"]) == {"train", "validation", "diagnostics", "test"}
    assert content["flops"]["training"] > finished[0]["glyphs", "maml"].content["flops"]["training"]
    assert len((record.folder / "record.json").read_bytes()) < 20_000
    assert content["results"]["meta@1"] == pytest.approx(record.episodes("meta@1").mean(), abs=1e-6)
    assert not list(record.folder.glob("*.tmp"))
    assert not list(record.folder.glob("checkpoint*"))


@pytest.mark.parametrize("data", ["sinusoid", "glyphs"])
def test_curves_and_diagnostics_of_every_head(finished, data):
    curves = finished[0][data, "maml+cml"].content["curves"]
    assert curves["step"] == ([0, 4, 8, 12] if data == "glyphs" else [0, 10, 20, 30])
    for name in ("loss_meta", "loss_co", "score_meta", "score_co"):
        assert len(curves["train"][name]) == len(curves["validation"][name]) == 4
        assert curves["train"][name][0] is None
        assert all(np.isfinite(curves["train"][name][1:]))
    assert [entry["step"] for entry in curves["diagnostics"]] == curves["step"]
    last = curves["diagnostics"][-1]
    layers = (
        {"conv1", "conv2", "conv3", "conv4", "head"}
        if data == "glyphs"
        else {"hidden1", "hidden2", "head"}
    )
    assert set(last["norm_meta"]) == set(last["norm_co"]) == layers
    assert all(-1 <= value <= 1 for value in last["cosine"].values())
    base = finished[0][data, "maml"].content["curves"]["diagnostics"][-1]
    assert set(base) == {"step", "norm_meta"}


def test_diagnostics_change_nothing(finished, settings):
    off = run(sinusoid_spec("maml+cml"), Settings(**{**settings.__dict__, "diagnostics": False}))
    assert off.content["curves"]["diagnostics"] == []
    assert same(tensors(off, "last"), tensors(finished[0]["sinusoid", "maml+cml"], "last"))


def test_training_lowers_the_loss(finished, settings):
    """The untrained network is the measure; the margin is far outside the noise of 30 episodes."""
    record = run(
        sinusoid_spec(steps=400, protocol_options={"val_every": 200, "outer_lr": 0.005}), settings
    )
    untrained = run(sinusoid_spec(steps=0), settings)
    assert record.content["results"]["meta@1"] < 0.75 * untrained.content["results"]["meta@1"]


def test_evaluating_cml_opens_the_model_only(finished, tmp_path):
    record, settings = finished[0]["glyphs", "maml+cml"], finished[1]
    copy = tmp_path / "runs" / record.folder.name
    shutil.copytree(record.folder, copy)
    (copy / "colearner.safetensors").unlink()
    (copy / "best_co.safetensors").unlink()
    (copy / "last.safetensors").unlink()
    wanted = Evaluation(tasks=40, query=5)
    spec = record.spec.model_copy(update={"evaluation": wanted})
    more = reevaluate(read(copy), spec, Settings(**{**settings.__dict__, "results": tmp_path}))
    assert len(more.arrays["meta@1"]) == 40
    assert np.array_equal(more.arrays["meta@1"][:30], record.arrays["meta@1"])
    assert np.array_equal(more.arrays["co@1"], record.arrays["co@1"]), (
        "results that cannot be made again are kept"
    )


def test_asking_for_more_test_tasks_extends_the_list_without_training(settings):
    first = run(glyph_spec("maml+cml"), settings)
    kept = {key: values.copy() for key, values in first.arrays.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run", lambda self: pytest.fail("trained again"))
        more = run(
            glyph_spec("maml+cml", evaluation=Evaluation(tasks=45, query=5, inner_steps=(0, 1))),
            settings,
        )
    assert len(more.arrays["meta@0"]) == 45
    for key, values in kept.items():
        assert np.array_equal(more.arrays[key][:30], values)
    fewer = run(glyph_spec("maml+cml", evaluation=Evaluation(tasks=10, query=5)), settings)
    assert len(fewer.arrays["meta@1"]) == 45


def test_selection_last_keeps_the_last_step(settings):
    record = run(sinusoid_spec("maml+cml", protocol_options={"selection": "last"}), settings)
    assert record.content["selected"] == {"best_meta": 30, "best_co": 30, "last": 30}
    assert np.array_equal(record.arrays["meta@1"], record.arrays["meta_last@1"])


def test_a_copied_run_is_evaluated_where_it_stands(finished, tmp_path, capsys):
    from cml_bench.__main__ import main

    record = finished[0]["sinusoid", "maml"]
    copy = tmp_path / "backup"
    shutil.copytree(record.folder, copy)
    assert main(["evaluate", str(copy), "--tasks", "35"]) == 0
    assert capsys.readouterr().out.startswith("meta@1")
    assert len(read(copy).arrays["meta@1"]) == 35
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]


def test_a_run_of_other_data_is_refused(settings):
    with pytest.raises(UserError, match=r"made for the data sinusoid/v0; here is sinusoid/v1"):
        run(sinusoid_spec(data_id="sinusoid/v0"), settings)


def test_a_diverging_run_is_recorded_as_such(settings):
    record = run(sinusoid_spec(protocol_options={"outer_lr": 1e30}), settings)
    assert record.status == "diverged"
    more = sinusoid_spec(
        protocol_options={"outer_lr": 1e30}, evaluation=Evaluation(tasks=30, inner_steps=(0, 10))
    )
    assert run(more, settings).content == record.content
    assert record.arrays == {}
    assert record.content["curves"]["step"][-1] <= 20


def test_a_run_that_overflows_at_test_only_is_recorded_as_diverged(settings):
    asked = Evaluation(tasks=30, query=5, inner_steps=(0, 1, 200))
    record = run(
        sinusoid_spec(method_options={"inner_lr": 5.0}, steps=0, evaluation=asked), settings
    )
    assert record.status == "diverged"
    assert record.arrays == {}


def test_a_run_that_does_not_learn_is_recorded_as_collapsed(settings):
    still = {"outer_lr": 0.0, "val_tasks": 100}
    record = run(
        glyph_spec(seed=1, steps=2, protocol_options=still, method_options={"inner_lr": 0.0}),
        settings,
    )
    assert record.status == "collapsed"


def test_one_failed_run_does_not_take_the_others_with_it(settings):
    good, bad = sinusoid_spec(seed=1), glyph_spec()
    stamp = settings.results / "done" / "job.json"
    lost = Settings(**{**settings.__dict__, "data_dir": settings.results / "nowhere"})
    with pytest.raises(UserError, match=r"maml on glyphs.*not prepared.*fetch glyphs"):
        run_all([bad, good], lost, stamp)
    assert not stamp.exists()
    assert Store(settings.results).read(good).status == "finished"


def test_a_damaged_or_foreign_record_is_an_error_that_names_it(settings):
    record = run(sinusoid_spec(), settings)
    path = record.folder / "record.json"
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.raises(UserError, match=r"record\.json is damaged"):
        read(record.folder)
    path.write_text(text.replace('"seed": 0', '"seed": 7'))
    with pytest.raises(UserError, match="its specification does not belong to its id"):
        read(record.folder)


# -- the learner


def test_a_stored_run_adapts_and_predicts(finished):
    """Adapting as in the notebook gives the very answers that the record counts."""
    record, settings = finished[0]["glyphs", "maml+cml"], finished[1]
    cls = registry.datasets.get("glyphs")
    data: ImageSet = cls(cls.Options(size=16)).open(
        settings.data_dir, torch.device("cpu"), torch.float32
    )
    task = Episodes(data, "test", 5, 1, 5).batch(7, 1)
    learner = cml_bench.load(record.folder)
    adapted = learner.adapt(task.support.x[0], task.support.y[0])
    for head, key in (("meta", "meta@1"), ("co", "co@1")):
        right = (adapted.predict(task.query.x[0], head) == task.query.y[0]).sum()
        assert right == record.arrays[key][7]
    with pytest.raises(UserError, match=r"inputs of shape \(n, 1, 16, 16\)"):
        learner.adapt(torch.zeros(5, 1, 28, 28), torch.arange(5))


def test_runs_are_found_by_their_id(finished):
    record, settings = finished[0]["sinusoid", "maml"], finished[1]
    from cml_bench.engine.learner import load

    assert load(record.spec.id[:10], settings.results).record.spec.id == record.spec.id
    with pytest.raises(UserError, match="no finished run at nothing"):
        load("nothing", settings.results)
