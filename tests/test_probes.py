"""Figures 3 and 4 of a small trained study: what they are made from, what is kept and refused."""

import shutil

import numpy as np
import pytest

from cml_bench import registry
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.errors import UserError
from cml_bench.figures import make
from cml_bench.records import Store, read_arrays
from cml_bench.report import write
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.plans import edited

FOUR = {
    "maml": {"options": {"inner_lr": 0.4}},
    "maml+cml": {},
    "cl": {"options": {"inner_lr": 0.4}},
    "still": {"method": "maml", "options": {"inner_lr": 0.0}},
}


def line(run: str, **more) -> dict:
    return {"label": run.upper(), "run": run, **more}


def config() -> dict:
    experiment = {
        "data": "glyphs",
        "data_options": {"size": 16},
        "network": "conv4",
        "network_options": {"filters": 4},
        "shots": [2],
        "query": 3,
        "steps": 6,
        "protocol_options": {"val_every": 3, "val_tasks": 5},
        "evaluation": {"tasks": 6, "query": 4},
        "methods": FOUR,
    }
    every = [line(run) for run in ("maml", "cl", "maml+cml", "still")]
    figures = {
        "figure3a": {"kind": "accuracy", "runs": every, "smooth": 2},
        "figure3b": {"kind": "cosine", "runs": [line("cl"), line("maml+cml")]},
        "figure3c": {"kind": "gradients", "runs": every, "tasks": 5},
        "figure3d": {"kind": "cka", "runs": [*every, line("maml+cml", reading="co")], "tasks": 5},
        "figure4": {
            "kind": "tsne",
            "runs": every[:1],
            "tasks": 5,
            "task": 2,
            "seed": 1,
            "perplexity": 3,
        },
    }
    for key, figure in figures.items():
        figure |= {"experiment": "g", "title": f"The {key}", "caption": "Small."}
    return {"study": "drawn", "seeds": 2, "experiments": {"g": experiment}, "figures": figures}


def resolved(data_dir="data", **changes) -> dict:
    """The plan of the figures; ``changes``: figure -> keys to set in it."""
    content = config() | {"data_dir": str(data_dir)}
    for key, change in changes.items():
        content["figures"][key] |= change
    return resolve(parse(content, "my.yaml"), "my.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A tiny trained study: its results, its plan, the drawn files and the figures' arrays."""
    root, plan = tmp_path_factory.mktemp("figures"), resolved(data_dir)
    specs = [run.spec for run in plan.runs]
    run_all(specs, Settings(results=root, data_dir=data_dir, report=lambda text: None))
    # After six steps some runs count as collapsed, and figures would leave these out.
    for path in root.glob("runs/*/record.json"):
        path.write_text(path.read_text().replace('"status": "collapsed"', '"status": "finished"'))
    made = write.figures(plan, root, [])
    return (
        root,
        plan,
        made,
        {key: read_arrays(root / "drawn" / "probes" / f"{key}.npz", "") for key in plan.figures},
    )


def test_all_figures_are_drawn_and_say_in_their_captions_what_they_show(trained):
    _, plan, made, _ = trained
    assert len(made) == 3 * 5
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in made if path.suffix == ".png")
    for key, words in {
        "figure3a": "each point the mean of the last 2",
        "figure3b": "(not the biases) of conv4 before adaptation",
        "figure3c": "with respect to the adapted weights",
        "figure3d": "biased estimator",
        "figure4": "perplexity 3",
    }.items():
        assert plan.figures[key].caption.startswith("Small. ")
        assert words in plan.figures[key].caption


def test_accuracies_and_cosines_are_those_of_the_records(trained):
    root, plan, _, arrays = trained
    for run in plan.runs:
        spec = run.spec
        if spec.method != "maml+cml":
            continue
        curves = Store(root).read(spec).content["curves"]
        a, b = arrays["figure3a"], arrays["figure3b"]
        assert a["steps/2"].tolist() == curves["step"] == [0, 3, 6]
        assert a["validation/2"][2, spec.seed].tolist() == curves["validation"]["score_meta"]
        assert np.isnan(a["training/2"][2, spec.seed, 0])
        assert a["training/2"][2, spec.seed, 1:].tolist() == curves["train"]["score_meta"][1:]
        assert b["cosine/2"][1, spec.seed].tolist() == [
            p["cosine"]["conv4"] for p in curves["diagnostics"]
        ]
    assert arrays["figure3b"]["layer"] == "conv4"


def test_a_model_that_does_not_move_has_cka_one_in_every_layer_and_others_less(trained):
    cka = trained[3]["figure3d"]
    assert cka["layers"].tolist() == ["conv1", "conv2", "conv3", "conv4", "head"]
    values = cka["cka/2"]
    assert values.shape == (5, 2, 5)
    assert values[3] == pytest.approx(1, abs=1e-9)
    assert (values[:3] < 1 - 1e-6).all()
    assert values[2, :, :4] == pytest.approx(values[4, :, :4], abs=1e-12), (
        "psi is the same whichever head is shown"
    )
    assert abs(values[2, :, 4] - values[4, :, 4]).min() > 1e-3


def test_embeddings_are_of_the_named_task_and_scores_of_all(trained):
    arrays = trained[3]["figure4"]
    assert arrays["points/2/before"].shape == (1, 10, 2)
    assert arrays["points/2/queries"].shape == (1, 20, 2)
    assert np.bincount(arrays["labels/2/queries"]).tolist() == [4] * 5
    assert arrays["score/2/after"].shape == (1, 2)
    assert abs(arrays["score/2/before"] - arrays["score/2/after"]).min() > 1e-4
    assert not np.isnan(arrays["drawn/2/queries"]).any()


# -- what is kept


def test_without_models_figures_are_drawn_from_their_arrays_if_they_are_of_the_same(
    trained, tmp_path
):
    root, plan, _, _ = trained
    home = tmp_path / "drawn"
    shutil.copytree(root / "runs", home / "runs", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(root / "drawn" / "probes", home / "probes")
    made = write.figures(edited(plan, lambda values: None), home, [], out=home)
    same = [
        (root / "drawn" / "figures" / path.name).read_bytes() == path.read_bytes() for path in made
    ]
    assert all(same)
    write.figures(resolved(figure3c={"title": "Another"}), home, ["figure3c"], out=home)
    for change in ({"tasks": 4}, {"at": "initial"}, {"loss": "head"}, {"runs": [line("cl")]}):
        with pytest.raises(
            UserError,
            match=r"figure3c\.npz is of other runs, readings or tasks than figure3c shows",
        ):
            write.figures(resolved(figure3c=change), home, ["figure3c"], out=home)
    (home / "probes" / "figure3d.npz").unlink()
    with pytest.raises(UserError, match="holds a record without weights"):
        write.figures(plan, home, ["figure3d"], out=home)


def test_one_name_means_all_parts_of_a_figure(trained, tmp_path):
    root, plan, _, _ = trained
    made = write.figures(plan, root, ["figure3", "figure4"], out=tmp_path)
    assert {path.stem for path in made} == set(plan.figures)
    with pytest.raises(UserError, match="figure 'figure5'"):
        write.figures(plan, root, ["figure5"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"figure3b": {"runs": [line("maml")]}},
            "row 'MAML': a figure of kind cosine is for runs with two heads",
        ),
        ({"figure3a": {"shots": [7]}}, "figure3a shows 7 shots, and the experiment 'g' has: 2"),
        (
            {"figure4": {"seed": 5}},
            "figure4, row 'MAML': no run has the figure's seed 5, only 0, 1",
        ),
        ({"figure3d": {"estimator": "some"}}, "estimator"),
        ({"figure3d": {"kind": "svcca"}}, "svcca"),
        ({"figure3c": {"perplexity": 3}}, "perplexity"),
        ({"figure3a": {"runs": [line("still", reading="co")]}}, "reading 'co'"),
        ({"figure3b": {"layer": "conv9"}}, "layer 'conv9'.*conv4"),
        ({"figure3b": {"layer": "head"}}, "layer 'head'"),
        (
            {"figure4": {"perplexity": 10}},
            "t-SNE of 10 examples needs a perplexity below their number, not 10",
        ),
    ],
)
def test_figures_that_cannot_be_are_refused_before_training(change, message):
    with pytest.raises(UserError, match=message):
        resolved(**change)


def test_unknown_layers_are_named_with_those_that_there_are(trained, data_dir):
    with pytest.raises(UserError, match=r"layer 'conv9'.*conv1"):
        write.figures(resolved(data_dir, figure4={"layer": "conv9"}), trained[0], ["figure4"])


def test_figures_of_other_data_than_is_prepared_are_refused(trained, data_dir, monkeypatch):
    monkeypatch.setattr(
        "cml_bench.data.prepared.index", lambda folder, data_id: {"sha256": "0" * 64}
    )
    with pytest.raises(UserError, match="was trained on other data"):
        make.figures(resolved(data_dir), trained[0], ["figure3d"], trained[0] / "elsewhere")


def test_runs_that_failed_are_left_out_and_the_label_says_so(trained, tmp_path):
    root, plan, _, _ = trained
    shutil.copytree(root / "runs", tmp_path / "runs")
    lost = [run.spec for run in plan.runs if run.spec.method == "cl"]
    for spec in lost[:1]:
        path = Store(tmp_path).folder(spec) / "record.json"
        path.write_text(path.read_text().replace('"status": "finished"', '"status": "collapsed"'))
    write.figures(plan, tmp_path, ["figure3b"], out=tmp_path)
    arrays = read_arrays(tmp_path / "probes" / "figure3b.npz", "")
    assert arrays["labels"].tolist() == ["CL (1 of 2 runs)", "MAML+CML"]
    assert np.isnan(arrays["cosine/2"][0, 1]).all()
    assert not np.isnan(arrays["cosine/2"][0, 0]).any()
    path = Store(tmp_path).folder(lost[1]) / "record.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "diverged"'))
    with pytest.raises(UserError, match="its runs diverged or collapsed; there is nothing to draw"):
        write.figures(plan, tmp_path, ["figure3b"], out=tmp_path)


def test_of_class_splits_the_first_is_embedded_for_each_row(settings, tmp_path):
    """All points have the figure's seed; points of one row are never shown as another's."""
    source = registry.datasets.get("sbm")
    for split in ("r0", "r1"):
        source(source.Options(split=split)).prepare(settings.data_dir)
    experiment = {
        "data": "sbm",
        "network": "gcn",
        "way": 2,
        "shots": [4],
        "query": 5,
        "steps": 2,
        "seeds": [0],
        "splits": ["r0", "r1"],
        "protocol": "official",
        "evaluation": {"tasks": 4, "query": 5},
        "methods": {"gmeta": {}, "gmeta+cml": {}},
    }
    figure = {
        "kind": "tsne",
        "experiment": "g",
        "title": "T",
        "tasks": 2,
        "perplexity": 3,
        "runs": [line("gmeta"), line("gmeta+cml")],
    }
    content = {
        "study": "s",
        "experiments": {"g": experiment},
        "figures": {"figure4": figure},
        "data_dir": str(settings.data_dir),
    }
    plan = resolve(parse(content, "test"), "test")
    assert "all class splits" in plan.figures["figure4"].caption
    specs = [run.spec for run in plan.runs]
    run_all(specs, settings)
    write.figures(plan, settings.results, [], out=tmp_path)
    arrays = read_arrays(tmp_path / "probes" / "figure4.npz", "")
    assert arrays["points/4/before"].shape == (2, 8, 2)
    assert arrays["score/4/before"].shape == (2, 2)
