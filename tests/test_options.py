"""Options that change a whole run: ensembles, the last-model bug, clamp, annealing, noise, a frozen co-learner."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cml_bench
from cml_bench import registry
from cml_bench.engine import run as running
from cml_bench.engine.run import read_models, reevaluate, run
from cml_bench.engine.train import Settings, Training
from cml_bench.records import Store
from cml_bench.spec import Evaluation, canonical
from tests.specs import glyph_spec, sinusoid_spec
from tests.test_engine import Stop, interrupted, same, tensors

ALL = {
    "clamp": 0.05,
    "outer_lr_min": 1e-5,
    "epoch_steps": 4,
    "gradient_noise": 0.5,
    "ensemble_top_k": 3,
    "val_every": 3,
}


def twin_of(settings):
    return Settings(**{**settings.__dict__, "results": settings.results / "twin"})


@pytest.mark.parametrize("option", [{k: v} for k, v in ALL.items() if k not in ("val_every", "epoch_steps")], ids=str)
def test_each_option_changes_the_run_and_its_id(option, settings):
    plain = run(glyph_spec("maml+cml"), settings)
    spec = glyph_spec("maml+cml", protocol_options={"val_every": 4, "epoch_steps": 4, **option})
    changed = run(spec, settings)
    assert changed.spec.id != plain.spec.id
    if "ensemble_top_k" not in option:
        assert not same(tensors(plain, "last"), tensors(changed, "last"))


@pytest.mark.parametrize(
    ("method", "options"),
    [("mamlpp+cml", {"inner_steps": 2, "epoch_steps": 3, "msl_epochs": 2, "first_order_to_second_order_epoch": 1}),
     ("sharp_maml+cml", {"inner_steps": 2, "rho_up": 0.05}), ("boil", {}), ("cl", {}),
     ("maml+cml", {"cml": {"frozen": True}})],
)  # fmt: skip
def test_a_resumed_run_equals_its_uninterrupted_twin_with_every_option(method, options, settings):
    own = {"inner_lr": 0.4} if method != "mamlpp+cml" else {}
    spec = make(method, {**own, **options})
    folder = interrupted(spec, settings, at_step=8)
    assert any(folder.glob("checkpoint-*.pt"))
    resumed, twin = run(spec, settings), run(spec, twin_of(settings))
    for path in sorted(twin.folder.glob("*.safetensors")):
        assert same(load_file(path), load_file(resumed.folder / path.name)), path.name
    assert resumed.content["curves"] == twin.content["curves"]
    assert {k: v.tolist() for k, v in resumed.arrays.items()} == {k: v.tolist() for k, v in twin.arrays.items()}


def make(method: str, options: dict, protocol_options: dict | None = None, **changes):
    """A glyph run of any method."""
    cls = registry.method(method)
    base = glyph_spec("maml", protocol_options=protocol_options or ALL, **changes)
    chosen = canonical(cls.Options.read(options, method))
    return base.model_copy(update={"method": method, "options": chosen, "version": cls.version})


def test_a_run_killed_in_its_test_is_not_trained_again(settings, monkeypatch):
    spec = glyph_spec("maml+cml")
    with monkeypatch.context() as patch:
        patch.setattr(running, "test_results", lambda *args: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            run(spec, settings)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_advance", lambda self: pytest.fail("trained again"))
        record = run(spec, settings)
    twin = run(spec, twin_of(settings))
    assert record.content["curves"] == twin.content["curves"]
    assert (record.status, record.content["results"]) == (twin.status, twin.content["results"])


def test_an_ensemble_is_of_the_best_validations_and_tests_their_mean_logits(settings):
    record = run(make("mamlpp+cml", {"inner_steps": 2}, {"val_every": 3, "ensemble_top_k": 3}), settings)
    scores = dict(
        zip(record.content["curves"]["step"], record.content["curves"]["validation"]["score_meta"], strict=True)
    )
    scores.pop(0)
    chosen = [record.content["selected"][f"top_meta.{i}"] for i in range(3)]
    assert chosen[0] == record.content["selected"]["best_meta"]
    assert sorted((scores[s] for s in chosen), reverse=True) == sorted(scores.values(), reverse=True)[:3]
    assert {"meta@2", "meta_single@2", "co@2", "co_single@2", "co_paired@2"} <= set(record.arrays)
    models = read_models(record.folder)
    assert same(models["top_meta.0"]["base"], models["best_meta"]["base"])
    assert not np.array_equal(record.arrays["meta@2"], record.arrays["meta_single@2"])
    more = record.spec.model_copy(update={"evaluation": Evaluation(tasks=40, query=5, inner_steps=(2,))})
    longer = reevaluate(record, more, settings)
    assert np.array_equal(longer.arrays["meta@2"][:30], record.arrays["meta@2"]), "from the stored models alone"


def test_save_last_tests_the_last_step(settings):
    record = run(sinusoid_spec("maml+cml", protocol_options={"save_last": True}), settings)
    assert record.content["selected"] == {"best_meta": 30, "best_co": 30, "last": 30}


def test_sharp_maml_is_tested_with_or_without_its_ascent(settings):
    """Two runs that differ in the test alone: equal models, other results, also from the stored model."""
    a, b = (
        run(make("sharp_maml", {"inner_steps": 2, "rho_low": 2.0, "sharp_test_perturb": p}, {"val_every": 4}), settings)
        for p in (True, False)
    )
    assert same(tensors(a, "last"), tensors(b, "last"))
    assert not np.array_equal(a.arrays["meta@2"], b.arrays["meta@2"])
    assert cml_bench.load(a.folder).method.rho_low == 2.0
    assert cml_bench.load(b.folder).method.rho_low == 0.0


def test_a_frozen_co_learner_stays_at_its_start_through_a_run(settings):
    record = run(make("maml+cml", {"inner_lr": 0.4, "cml": {"frozen": True}}, {"val_every": 4}), settings)
    start = Training(record.spec, settings, record.folder, print).groups["co"]
    assert same({k: v.detach() for k, v in start.items()}, tensors(record, "colearner"))


def test_cl_reports_all_its_rows(settings):
    record = run(make("cl", {"inner_lr": 0.4}, {"val_every": 4}), settings)
    assert {"meta@1", "co@1", "both@1", "co_fixed@1", "co_unadapted@1"} <= set(record.arrays)
    assert "co_eq9@1" not in record.arrays
    assert json.dumps(record.content)
    steps = record.spec.model_copy(update={"evaluation": Evaluation(tasks=30, query=5, inner_steps=(0, 1))})
    wider = reevaluate(record, steps, settings)
    assert np.array_equal(wider.arrays["co@0"], record.arrays["co_unadapted@1"]), "nothing has moved"


def test_a_reading_added_later_is_made_from_the_stored_models(settings, monkeypatch):
    with monkeypatch.context() as patch:
        readings = registry.method("cl").more_readings
        patch.setattr(registry.method("cl"), "more_readings", readings[:1])
        spec = make("cl", {"inner_lr": 0.4}, {"val_every": 4})
        before = run(spec, settings)
        assert "co_fixed@1" not in before.arrays
        patch.setattr(registry.method("cl"), "more_readings", readings)
        patch.setattr(Training, "run", lambda self: pytest.fail("trained again"))
        after = run(spec, settings)
        assert "co_fixed@1" in after.arrays
        assert all(np.array_equal(after.arrays[k], v) for k, v in before.arrays.items())


# -- the other methods train --------------------------------------------------------------------------

OTHERS = [n for n in registry.method_names() if n.split("+")[0] in ("fomaml", "mamlpp", "sharp_maml", "more_maml")]


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_fifty_steps_lower_the_loss_and_beat_the_untrained_network(method, tmp_path_factory, tmp_path):
    """One seed, 32 filters, 28x28: MAML and BOIL, CL and frozen co-learners have a study of their own."""
    folder = tmp_path_factory.getbasetemp() / "glyphs28"
    cls = registry.datasets.get("glyphs")
    cls(cls.Options()).prepare(folder)
    settings = Settings(results=tmp_path, data_dir=folder, report=lambda text: None, diagnostics=False)
    ends = {}
    for steps in (0, 50):
        spec = make(method, {}, {"val_every": 25, "val_tasks": 40}, steps=steps,
                    evaluation=Evaluation(tasks=100, query=5, inner_steps=()))  # fmt: skip
        network = {**spec.network.options, "filters": 32, **registry.method(method).network_defaults}
        glyphs = cls(cls.Options())
        spec = spec.model_copy(update={
            "network": spec.network.model_copy(update={"options": network}), "data_id": glyphs.data_id,
            "data": spec.data.model_copy(update={"options": {}}),
        })  # fmt: skip
        ends[steps] = run(spec, settings)
    losses = ends[50].content["curves"]["validation"]["loss_meta"]
    assert losses[-1] < losses[0]
    key = next(k for k in ends[50].arrays if k.startswith("meta@"))
    before, after = (ends[s].episodes(key) for s in (0, 50))
    spread = np.sqrt(before.var(ddof=1) / 100 + after.var(ddof=1) / 100)
    assert after.mean() - before.mean() > 3 * spread
    assert Store(tmp_path).read(ends[50].spec) is not None
    assert torch.isfinite(load_file(ends[50].folder / "model.safetensors")["conv1.weight"]).all()
