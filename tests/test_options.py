"""Options that change a whole run: ensembles, clamp, annealing, noise, a frozen co-learner.

Also the last-model bug of a released code.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cml_bench
from cml_bench import registry
from cml_bench.data.episodes import Episodes
from cml_bench.engine import readings
from cml_bench.engine import run as running
from cml_bench.engine import train as training
from cml_bench.engine.build import Settings
from cml_bench.engine.evaluate import Asked, Result, evaluate_all
from cml_bench.engine.models import read_models
from cml_bench.engine.run import reevaluate, run
from cml_bench.engine.train import Training
from cml_bench.records import Store
from cml_bench.spec import Evaluation, canonical
from tests.helpers.runs import Stop, interrupted, same, tensors
from tests.helpers.specs import glyph_spec, sinusoid_spec

ALL = {
    "clamp": 0.05,
    "outer_lr_min": 1e-5,
    "epoch_steps": 4,
    "gradient_noise": 0.5,
    "ensemble_top_k": 3,
    "val_every": 3,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, data_dir):
    """A run without any of the options."""
    settings = Settings(
        results=tmp_path_factory.mktemp("plain"), data_dir=data_dir, report=lambda text: None
    )
    return run(
        glyph_spec("maml+cml", protocol_options={"val_every": 4, "epoch_steps": 4}), settings
    )


def twin_of(settings):
    return Settings(**{**settings.__dict__, "results": settings.results / "twin"})


@pytest.mark.parametrize(
    "option", [{k: v} for k, v in ALL.items() if k not in ("val_every", "epoch_steps")], ids=str
)
def test_each_option_changes_the_run_and_its_id(option, plain, settings):
    spec = glyph_spec("maml+cml", protocol_options={"val_every": 4, "epoch_steps": 4, **option})
    changed = run(spec, settings)
    assert changed.spec.id != plain.spec.id
    moved = not same(tensors(plain, "last"), tensors(changed, "last"))
    assert moved == ("ensemble_top_k" not in option), "an ensemble changes the test alone"
    assert moved or "meta_single@1" in changed.arrays


def test_a_new_optimizer_every_few_steps_changes_the_run(settings):
    kept, reset = (
        run(glyph_spec(protocol_options={"val_every": 4, "optimizer_reset_every": n}), settings)
        for n in (0, 4)
    )
    assert not same(tensors(kept, "last"), tensors(reset, "last"))
    first = [r.content["curves"]["validation"]["loss_meta"][1] for r in (kept, reset)]
    assert first[0] == first[1], "up to the first reset they are the same"


def test_fresh_validation_tasks_are_new_each_time(settings, monkeypatch):
    seen = []
    original = training.evaluate
    monkeypatch.setattr(
        training,
        "evaluate",
        lambda *args, first=0, **rest: seen.append(first) or original(*args, first=first, **rest),
    )
    run(glyph_spec(protocol_options={"val_every": 4, "val_tasks": 6, "val_fresh": True}), settings)
    assert seen == [0, 6, 12, 18]


def test_what_selection_makes_of_the_co_heads_reading(settings):
    joint, separate = (
        run(
            glyph_spec(
                "maml+cml",
                protocol_options={"val_every": 1, "val_tasks": 3, "selection": s},
                seed=1,
            ),
            settings,
        )
        for s in ("joint", "separate")
    )
    assert joint.content["selected"]["best_meta"] != joint.content["selected"]["best_co"], (
        "else there is no difference"
    )
    assert np.array_equal(separate.arrays["co@1"], joint.arrays["co_unpaired@1"])
    assert np.array_equal(separate.arrays["meta@1"], joint.arrays["meta@1"])
    assert not np.array_equal(separate.arrays["co@1"], joint.arrays["co@1"])


@pytest.mark.parametrize("members", [0, 2])
def test_each_reading_is_of_the_model_it_names(members, settings):
    """The models are made to differ; each reading equals the evaluation in the documentation."""
    spec = glyph_spec("maml+cml", evaluation=Evaluation(tasks=8, query=5))
    made = Training(spec, settings, settings.results, print)

    def model(number: int) -> dict:
        return {
            g: {n: p.detach() for n, p in ps.items()} for g, ps in made.method.init(number).items()
        }

    models = {"best_meta": model(1), "best_co": model(2), "last": model(3)}
    for head in ("meta", "co"):
        models |= {f"top_{head}.{i}": model(10 * len(head) + i) for i in range(members)}
    steps = {"best_meta": 4, "best_co": 8, "last": 12}
    got = readings.test_results(
        made.method, made.data, spec, models, steps, spec.evaluation, made.tasks_at_once
    )
    episodes = Episodes(made.data, "test", 5, 1, 5)
    tops = {head: [models[f"top_{head}.{i}"] for i in range(members)] for head in ("meta", "co")}
    mixed = {"base": models["best_meta"]["base"], "co": models["best_co"]["co"]}
    single = "_single" if members else ""
    want = {
        f"meta{single}": (models["best_meta"], "meta", "meta"),
        f"co{single}": (models["best_meta"], "co", "meta"),
        "co_unpaired": (mixed, "co", "meta"),
        "co_eq9": (models["best_co"], "co", "co"),
        "meta_last": (models["last"], "meta", "meta"),
        "co_last": (models["last"], "co", "meta"),
        "co_paired": (tops["co"] if members else models["best_co"], "co", "meta"),
    }
    want |= (
        {"meta": (tops["meta"], "meta", "meta"), "co": (tops["meta"], "co", "meta")}
        if members
        else {}
    )
    assert set(got) == {f"{reading}@1" for reading in want}
    for reading, (groups, head, loss) in want.items():
        asked = Asked(groups if isinstance(groups, list) else [groups], (head,), loss)
        result = evaluate_all(made.method, [asked], episodes, 8, steps=(1,))[0][head, 1]
        assert np.array_equal(got[f"{reading}@1"], np.round(result.score.numpy() * 25)), reading


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (
            "mamlpp+cml",
            {
                "inner_steps": 2,
                "epoch_steps": 3,
                "msl_epochs": 2,
                "first_order_to_second_order_epoch": 1,
            },
        ),
        pytest.param("sharp_maml+cml", {"inner_steps": 2, "rho_up": 0.05}, marks=pytest.mark.slow),
        ("boil", {}),
        ("cl", {}),
        ("maml+cml", {"cml": {"frozen": True}}),
    ],
)
def test_a_resumed_run_equals_its_uninterrupted_twin_with_every_option(method, options, settings):
    own = {"inner_lr": 0.4} if method != "mamlpp+cml" else {}
    spec = make(method, {**own, **options})
    folder = interrupted(spec, settings, at_step=8)
    assert any(folder.glob("checkpoint-*.pt"))
    resumed, twin = run(spec, settings), run(spec, twin_of(settings))
    for path in sorted(twin.folder.glob("*.safetensors")):
        assert same(load_file(path), load_file(resumed.folder / path.name)), path.name
    assert resumed.content["curves"] == twin.content["curves"]
    assert {k: v.tolist() for k, v in resumed.arrays.items()} == {
        k: v.tolist() for k, v in twin.arrays.items()
    }


def test_resumed_at_a_validation_a_scheduled_method_has_its_diagnostics(settings):
    """The checkpoint is older than the validation: the epoch of MAML++ must come back with it."""
    spec = make(
        "mamlpp+cml", {"inner_steps": 2, "epoch_steps": 3, "msl_epochs": 2}, {"val_every": 3}
    )
    interrupted(spec, settings, at_step=9, before="_pause")
    assert run(spec, settings).content["curves"] == run(spec, twin_of(settings)).content["curves"]


def make(method: str, options: dict, protocol_options: dict | None = None, **changes):
    """The specification of a glyph run of any method."""
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
        patch.setattr(Training, "advance", lambda self: pytest.fail("trained again"))
        record = run(spec, settings)
    twin = run(spec, twin_of(settings))
    assert record.content["curves"] == twin.content["curves"]
    assert (record.status, record.content["results"]) == (twin.status, twin.content["results"])


def test_an_ensemble_is_of_the_best_validations_and_tests_their_mean_logits(settings):
    record = run(
        make("mamlpp+cml", {"inner_steps": 2}, {"val_every": 3, "ensemble_top_k": 3}), settings
    )
    scores = dict(
        zip(
            record.content["curves"]["step"],
            record.content["curves"]["validation"]["score_meta"],
            strict=True,
        )
    )
    scores.pop(0)
    chosen = [record.content["selected"][f"top_meta.{i}"] for i in range(3)]
    assert chosen[0] == record.content["selected"]["best_meta"]
    assert (
        sorted((scores[s] for s in chosen), reverse=True)
        == sorted(scores.values(), reverse=True)[:3]
    )
    assert {"meta@2", "meta_single@2", "co@2", "co_single@2", "co_paired@2"} <= set(record.arrays)
    models = read_models(record.folder)
    assert same(models["top_meta.0"]["base"], models["best_meta"]["base"])
    assert not np.array_equal(record.arrays["meta@2"], record.arrays["meta_single@2"])
    more = record.spec.model_copy(
        update={"evaluation": Evaluation(tasks=40, query=5, inner_steps=(2,))}
    )
    longer = reevaluate(record, more, settings)
    assert np.array_equal(longer.arrays["meta@2"][:30], record.arrays["meta@2"]), (
        "from the stored models alone"
    )


def test_save_last_tests_the_last_step(settings):
    record = run(sinusoid_spec("maml+cml", protocol_options={"save_last": True}), settings)
    assert record.content["selected"] == {"best_meta": 30, "best_co": 30, "last": 30}


@pytest.mark.slow
def test_sharp_maml_is_tested_with_or_without_its_ascent(settings):
    """Two runs that differ in the test alone have equal models and other results.

    So does a test of the stored model.
    """
    a, b = (
        run(
            make(
                "sharp_maml",
                {"inner_steps": 2, "rho_low": 2.0, "sharp_test_perturb": p},
                {"val_every": 4},
            ),
            settings,
        )
        for p in (True, False)
    )
    assert same(tensors(a, "last"), tensors(b, "last"))
    assert not np.array_equal(a.arrays["meta@2"], b.arrays["meta@2"])
    assert cml_bench.load(a.folder).method.rho_low == 2.0
    assert cml_bench.load(b.folder).method.rho_low == 0.0


def test_a_frozen_co_learner_stays_at_its_start_through_a_run(settings):
    record = run(
        make("maml+cml", {"inner_lr": 0.4, "cml": {"frozen": True}}, {"val_every": 4}), settings
    )
    start = Training(record.spec, settings, record.folder, print).groups["co"]
    assert same({k: v.detach() for k, v in start.items()}, tensors(record, "colearner"))


def test_cl_reports_all_its_rows(settings):
    record = run(make("cl", {"inner_lr": 0.4}, {"val_every": 4}), settings)
    assert {"meta@1", "co@1", "both@1", "co_fixed@1", "co_unadapted@1"} <= set(record.arrays)
    assert "co_eq9@1" not in record.arrays
    assert json.dumps(record.content)
    steps = record.spec.model_copy(
        update={"evaluation": Evaluation(tasks=30, query=5, inner_steps=(0, 1))}
    )
    wider = reevaluate(record, steps, settings)
    assert np.array_equal(wider.arrays["co@0"], record.arrays["co_unadapted@1"]), (
        "nothing has moved"
    )


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


# -- the other methods train

OTHERS = [
    n
    for n in registry.method_names()
    if n.split("+")[0]
    in (
        *("fomaml", "mamlpp", "sharp_maml", "more_maml"),
        *("anil", "metasgd", "protonet", "reptile", "cavia"),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_fifty_steps_lower_the_loss_and_beat_the_untrained_network(method, settings):
    """One seed, 16x16 pixels. MAML, BOIL, CL and frozen co-learners have a study of their own.

    An inner rate of 0.5 made some seeds, or the same one on another CPU, learn nothing in
    fifty steps. With 0.1 each of three seeds was ahead by more than seven spreads.
    """
    settings = replace(settings, diagnostics=False)
    slow = {"fomaml": "inner_lr", "more_maml": "inner_lr", "metasgd": "inner_lr_init"}
    plain = method.split("+")[0]
    options = {slow[plain]: 0.1} if plain in slow else {}
    ends = {}
    for steps in (0, 50):
        spec = make(
            method,
            options,
            {"val_every": 25, "val_tasks": 40},
            steps=steps,
            evaluation=Evaluation(tasks=200, query=5, inner_steps=()),
        )
        network = {
            **spec.network.options,
            "filters": 16,
            **registry.method(method).network_defaults,
        }
        chosen = spec.network.model_copy(update={"options": network})
        ends[steps] = run(spec.model_copy(update={"network": chosen}), settings)
    losses = ends[50].content["curves"]["validation"]["loss_meta"]
    assert losses[-1] < losses[0]
    key = next(k for k in ends[50].arrays if k.startswith("meta@"))
    before, after = (ends[s].episodes(key) for s in (0, 50))
    spread = np.sqrt(before.var(ddof=1) / 200 + after.var(ddof=1) / 200)
    assert after.mean() - before.mean() > 3 * spread
    assert Store(settings.results).read(ends[50].spec) is not None
    assert torch.isfinite(load_file(ends[50].folder / "model.safetensors")["conv1.weight"]).all()


@pytest.mark.parametrize(("more", "status"), [(0.6, "finished"), (0.2, "collapsed")])
def test_a_run_that_looks_collapsed_by_few_tasks_is_judged_by_more(
    more, status, settings, monkeypatch
):
    """20 accuracies around chance cannot tell whether a run collapsed; 100 can."""
    asked = []

    def judged(method, groups, episodes, tasks, **rest):
        asked.append(tasks)
        score = torch.full((tasks,), more) + 0.1 * (torch.arange(tasks) % 3 - 1)
        return {("meta", 1): Result(score, score)}

    monkeypatch.setattr(running, "evaluate", judged)
    chance = Result(torch.ones(20), 0.2 + 0.2 * (torch.arange(20) % 3 - 1))
    monkeypatch.setattr(
        training.Training,
        "_validate",
        lambda self: (
            setattr(self, "last_validation", chance) or {"loss_meta": 1.0, "score_meta": 0.2}
        ),
    )
    spec = glyph_spec(protocol_options={"val_every": 4, "val_tasks": 20})
    assert run(spec, settings).status == status
    assert asked == [100]
