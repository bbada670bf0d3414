"""What normalises a query, as an axis of evaluation: the outputs, the stored series, the table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import vl_convert

from cml_bench import load_records
from cml_bench.engine.evaluate import ready
from cml_bench.engine.normalisation import query_outputs
from cml_bench.engine.run import extend, reevaluate, run
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.evidence import power
from cml_bench.evidence.build import build
from cml_bench.figures.outcomes import LOOKS
from cml_bench.records import Store, read
from cml_bench.report import batches as by_batch
from cml_bench.report import charts, write
from cml_bench.spec import Evaluation
from cml_bench.study import config
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.cases import Case, images
from tests.helpers.specs import glyph_spec, sinusoid_spec

ROOT = Path(__file__).parent.parent
WAYS = ("task", "support", "two_classes", "one_class")
EVALUATION = {"tasks": 6, "query": 5, "normalised_with": WAYS}


def batches(how: str, way: int, each: int) -> list[tuple[bool, list[int], list[int]]]:
    """Whether the support set is in the batch, its queries, and which of these are scored."""
    of_class = [list(range(c * each, (c + 1) * each)) for c in range(way)]
    if how == "support":
        return [(True, [q], [q]) for q in range(way * each)]
    if how == "one_class":
        return [(False, queries, queries) for queries in of_class]
    return [(False, of_class[c] + of_class[(c + 1) % way], of_class[c]) for c in range(way)]


@pytest.mark.parametrize("how", WAYS[1:])
@pytest.mark.parametrize("path", ["plain", "fast"])
def test_outputs_are_those_of_the_obvious_batches(how, path):
    case, task = Case(path=path), images(tasks=2, way=3, shot=2, query=6)
    groups = ready(case.method, case.groups, task)
    *_, params = case.method.trajectory(groups, task.support, 1)
    got = query_outputs(case.method, groups, params, task, ("meta", "co"), how)
    for t in range(2):
        base = {name: p[t] for name, p in params.items()}
        co = {name: p[t] for name, p in groups["co"].items()}
        for with_support, queries, scored in batches(how, 3, 6):
            x = torch.cat([task.support.x[t]] * with_support + [task.query.x[t, queries]])
            z = case.ref.features(base, x)
            for head, out in (("meta", case.ref.head(base, z)), ("co", case.ref.co(co, z))):
                own = out[-len(queries) :][: len(scored)]
                assert (got[head][t, scored] - own).abs().max() < 1e-10


def test_the_usual_way_is_the_methods_own_outputs():
    case, task = Case(), images(tasks=2)
    groups = ready(case.method, case.groups, task)
    *_, params = case.method.trajectory(groups, task.support, 1)
    got = query_outputs(case.method, groups, params, task, ("co",), "task")
    assert torch.equal(got["co"], case.method.outputs(groups, params, task.query.x, ("co",))["co"])


def test_stored_models_are_tested_in_other_ways_without_training(settings, monkeypatch):
    first = run(glyph_spec("maml+cml", evaluation=Evaluation(tasks=6, query=5)), settings)
    before = dict(first.arrays)
    monkeypatch.setattr(Training, "run", lambda self: pytest.fail("trained again"))
    more = run(glyph_spec("maml+cml", evaluation=Evaluation(**EVALUATION)), settings)
    for key, values in before.items():
        assert np.array_equal(more.arrays[key], values)
    added = {f"{head}@1,{how}" for head in ("meta", "co") for how in WAYS[1:]}
    assert more.arrays.keys() - before.keys() == added
    assert read(more.folder).evaluation.normalised_with == WAYS
    assert {more.arrays[key].shape for key in added} == {(6,)}


def test_separate_selection_tests_the_co_learners_own_step(settings):
    asked = {"protocol_options": {"selection": "separate", "val_every": 4}}
    record = run(glyph_spec("maml+cml", evaluation=Evaluation(**EVALUATION), **asked), settings)
    for how in WAYS[1:]:
        assert np.array_equal(record.arrays[f"co@1,{how}"], record.arrays[f"co_unpaired@1,{how}"])


def test_records_of_the_usual_way_are_as_before():
    assert "normalised_with" not in Evaluation().model_dump(mode="json")
    assert "normalised_with" not in json.loads(glyph_spec().model_dump_json())["evaluation"]
    kept = Evaluation(**EVALUATION)
    assert Evaluation.model_validate(kept.model_dump(mode="json")) == kept
    assert kept.covers(Evaluation(tasks=6, query=5))
    assert not Evaluation(tasks=6, query=5).covers(kept)
    assert Evaluation(tasks=9, query=5, inner_steps=(1,)).joined(kept) == Evaluation(
        tasks=9, query=5, inner_steps=(1,), normalised_with=WAYS
    )


def study(data: str = "glyphs", network: str = "conv4") -> dict:
    images = data == "glyphs"
    return {
        "study": "s",
        "seeds": 2,
        "experiments": {
            "e": {
                "data": data,
                "data_options": {"size": 16} if images else {},
                "network": network,
                "network_options": {"filters": 4} if images else {},
                "way": 5 if images else 1,
                "shots": [1],
                "query": 5,
                "steps": 2,
                "evaluation": {**EVALUATION, "normalised_with": [*WAYS]},
                "methods": {"maml": {}, "maml+cml": {}},
            }
        },
        "tables": {
            "t": {
                "kind": "normalised" if images else "regression",
                "experiment": "e",
                "title": "Batches",
                "rows": [
                    {"label": "MAML", "run": "maml"},
                    {"label": "MAML + CML†", "run": "maml+cml", "reading": "co", "against": "maml"},
                ],
            }
        },
    }


def test_a_table_has_a_column_for_each_way(settings):
    plan = resolve(parse(study(), "test"), "test")
    records = {i: run(spec, settings) for i, spec in plan.specs.items()}
    table = build(plan, Store(settings.results), "t")
    titles = ["1-shot, all queries", "1-shot, the support set and one query"]
    titles += ["1-shot, queries of two classes", "1-shot, queries of one class"]
    assert [column.place for column in table.columns] == titles
    for column, way in zip(table.columns, WAYS, strict=True):
        how = "" if way == "task" else f",{way}"
        row = table.rows[1]
        mine = [records[i].arrays[f"co@1{how}"].mean() / 25 for i in row.cells[column].runs]
        base = [records[i].arrays[f"meta@1{how}"].mean() / 25 for i in row.cells[column].base.runs]
        assert row.cells[column].mean == pytest.approx(100 * np.mean(mine))
        diff = row.cells[column].difference.paired.diff
        assert diff == pytest.approx(100 * (np.mean(mine) - np.mean(base)))
    drawn = by_batch.panels(table)
    assert [spec["title"]["text"] for spec in drawn] == [["MAML + CML† −", "MAML"]]
    points = {point["way"]: point for point in drawn[0]["data"]["values"]}
    assert [points[way]["gain"] for way in ("all queries", "one class")] == pytest.approx(
        [table.rows[1].cells[table.columns[k]].difference.paired.diff for k in (0, 3)], abs=1e-3
    )
    assert {point["outcome"] for point in points.values()} == {"not tested"}, "two seeds"
    assert "<svg" in vl_convert.vegalite_to_svg(by_batch.picture([table]), config=charts.CONFIG)
    write.tables(plan, settings.results, [])
    spreads = power.of_study(settings.results / "s")
    own = {
        (row.label, column): (spreads.of(table, row, column), d.per_seed.std(ddof=1))
        for row, column, d in table.differences()
        if np.ptp(d.per_seed)
    }
    assert len(own) > 1
    for found, expected in own.values():
        assert found == pytest.approx(expected)


def test_a_table_of_the_usual_way_says_so_where_the_co_learner_is_read(settings):
    def told(**changes):
        content = study() | {"seeds": 1}
        content["experiments"]["e"]["evaluation"] = {"tasks": 6, "query": 5}
        content["tables"]["t"] |= {"kind": "accuracy", **changes}
        notes = build(resolve(parse(content, "test"), "test"), Store(settings.results), "t").notes
        return [note for note in notes if note.startswith("† is read with all queries of a task")]

    assert len(told()) == 1
    assert not told(rows=[{"label": "MAML", "run": "maml"}])


def test_vectors_and_nodes_are_refused_before_anything_runs(settings):
    with pytest.raises(UserError, match=r"sinusoid: evaluation.normalised_with is for images"):
        resolve(parse(study("sinusoid", "mlp"), "test"), "test")
    record = run(sinusoid_spec(steps=2, evaluation=Evaluation(tasks=2, query=5)), settings)
    with pytest.raises(UserError, match="normalised_with is for images"):
        extend(record.folder, {"normalised_with": ["one_class"]}, settings)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"run": "pixel_nn"}, "pixel_nn has no network that is tested"),
        ({"run": "cl", "reading": "both"}, "cl the reading 'both' is not tested"),
        ({"run": "maml", "reading": "meta_last"}, "maml the reading 'meta_last' is not tested"),
    ],
)
def test_a_row_that_no_stored_model_gives_is_refused_before_anything_runs(row, why):
    content = study()
    content["experiments"]["e"]["methods"] |= {"pixel_nn": {}, "cl": {}}
    content["tables"]["t"]["rows"].append({"label": "Other", **row})
    told = rf"t, row 'Other': {why} with other queries in the batch \(support, .*leave the row out"
    with pytest.raises(UserError, match=told):
        resolve(parse(content, "test"), "test")
    content["tables"]["t"]["kind"] = "accuracy"
    assert resolve(parse(content, "test"), "test")


def test_a_method_without_a_network_normalises_nothing(settings, tmp_path):
    committed = next((ROOT / "results" / "reference" / "demo" / "runs").glob("pixel_nn-*"))
    shutil.copytree(committed, tmp_path / committed.name)
    with pytest.raises(UserError, match="pixel_nn has no network that normalises queries"):
        extend(tmp_path / committed.name, {"normalised_with": ["one_class"]}, settings)


def test_a_record_without_weights_says_what_it_lacks(settings, tmp_path):
    record = run(glyph_spec(evaluation=Evaluation(tasks=6, query=5)), settings)
    copy = tmp_path / "runs" / record.folder.name
    shutil.copytree(record.folder, copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"without weights.*normalised with one_class"):
        extend(copy, {"normalised_with": ["one_class"]}, settings)
    with pytest.raises(UserError, match=r"normalised_with.*'sideways'"):
        extend(record.folder, {"normalised_with": ["sideways"]}, settings)
    spec = record.spec.model_copy(update={"evaluation": Evaluation(**EVALUATION)})
    assert "meta@1,support" in reevaluate(record, spec, settings).arrays


# -- controls: a co-learner without statistics of its own


def control(features: torch.Tensor, p: dict, norm: str) -> torch.Tensor:
    """The co-learner of two blocks on features (n, C, H, W), written out."""
    mean, var = features.new_zeros(()), features.new_ones(())
    if norm == "body":
        mean = features.mean((0, 2, 3), keepdim=True)
        var = features.var((0, 2, 3), correction=0, keepdim=True)
    x = features
    for i in (1, 2):
        x = F.conv2d(x, p[f"conv{i}.weight"], p[f"conv{i}.bias"], padding=1)
        x = (x - mean) / (var + 1e-5).sqrt()
        x = x * p[f"norm{i}.weight"][:, None, None] + p[f"norm{i}.bias"][:, None, None]
        x = F.relu(x)
    return F.linear(F.max_pool2d(x, 2).flatten(1), p["head.weight"], p["head.bias"])


@pytest.mark.parametrize("norm", ["none", "body"])
def test_a_control_normalises_as_written_out(norm):
    case, task = Case(cml={"norm": norm}), images(tasks=2)
    groups = ready(case.method, case.groups, task)
    *_, params = case.method.trajectory(groups, task.support, 1)
    got = case.method.outputs(groups, params, task.query.x, ("co",))["co"]
    for t in range(2):
        z = case.ref.features({name: p[t] for name, p in params.items()}, task.query.x[t])
        want = control(z, {name: p[t] for name, p in groups["co"].items()}, norm)
        assert (got[t] - want).abs().max() < 1e-10


def test_without_normalisation_the_co_learner_sees_each_query_alone():
    """The body's batch-norms remain, so the features are fixed here."""
    case = Case(cml={"norm": "none"})
    p = {name: value.expand(1, *value.shape) for name, value in case.groups["co"].items()}
    z = torch.randn(1, 6, *case.network.feature_shape, dtype=torch.float64)
    together = case.method.co.apply(p, z)
    alone = torch.cat([case.method.co.apply(p, z[:, i : i + 1]) for i in range(6)], dim=1)
    assert (together - alone).abs().max() < 1e-12


def test_a_control_is_for_conv4():
    with pytest.raises(UserError, match=r"mlp: cml.norm none is for conv4 alone"):
        Case(net="mlp", cml={"norm": "none"})


def test_the_panels_of_several_comparisons_have_one_scale_of_outcomes():
    """Beside each other they share it, so with scales of their own colours would be mixed up."""
    path = "configs/omniglot_normalisation.yaml"
    plan = resolve(config.read(ROOT / path), path)
    home = ROOT / "results" / "reference" / "omniglot_normalisation"
    drawn = by_batch.panels(build(plan, Store(home), "normalisation"))
    assert len(drawn) == 8
    for channel, part in (("color", "colour"), ("shape", "shape")):
        (scale,) = {json.dumps(spec["layer"][3]["encoding"][channel]["scale"]) for spec in drawn}
        scale = json.loads(scale)
        assert dict(zip(scale["domain"], scale["range"], strict=True)) == {
            name: getattr(LOOKS[name], part) for name in ("gain", "loss", "undecided")
        }


def test_the_words_on_the_study_are_those_of_its_committed_table():
    home = ROOT / "results" / "reference" / "omniglot_normalisation"
    frame = pd.read_csv(home / "tables" / "normalisation.csv")
    mine = frame[(frame["row"] == "MAML + CML†")].set_index(["normalised_with", "shot"])

    def told(way: str, shot: int, sign: str = "+") -> str:
        assert mine["p_holm"][way, shot] < 0.05
        return f"{mine['diff'][way, shot]:{sign}.1f}".replace("-", "−")

    readme, results = (
        " ".join((ROOT / page).read_text("utf-8").split())
        for page in ("README.md", "docs/results.md")
    )
    one = {way: told(way, 1) for way in WAYS}
    assert (
        f"{one['task']} points with all queries in a batch, {one['support']} with the support set"
        f" and one query, {one['two_classes']} with queries of two classes, {one['one_class']} with"
    ) in readme
    both = {way: [told(way, shot, "").lstrip("−") for shot in (1, 5)] for way in WAYS}
    assert "above MAML by {} points (1-shot) and {} (5-shot)".format(*both["task"]) in results
    assert "by {} and {} with the support set".format(*both["support"]) in results
    assert "two classes it is {} and {} points below".format(*both["two_classes"]) in results
    assert "of one class {} and {}.".format(*both["one_class"]) in results
    boil = frame[frame["row"] == "BOIL + CML†"].set_index(["normalised_with", "shot"])
    gains, losses = boil.loc["task"], boil.loc[["two_classes", "one_class"]]
    assert max(gains["p_holm"].max(), losses["p_holm"].max()) < 0.05
    assert "gains {:.1f} and {:.1f} with all queries".format(*gains["diff"]) in results
    assert f"loses {-losses['diff'].max():.1f} to {-losses['diff'].min():.1f} with" in results
    assert {f"{p:.4f}" for p in boil.loc["support"]["p_holm"]} == {"0.0502"}
    assert "are not (p = 0.0502)" in results
    controls = frame[frame["row"].str.contains("CML†, φ")].set_index("normalised_with")["diff"]
    one_class = -controls["one_class"]
    assert f"by {one_class.min():.1f} to {one_class.max():.1f} points" in results
    assert controls["two_classes"].min() > 0, "no longer below MAML"
    plain = frame[frame["row"] == "MAML"].set_index(["normalised_with", "shot"])["mean"]
    assert f"from {plain['task', 1]:.1f} to {plain['one_class', 1]:.1f} %" in results


def test_two_trainings_of_one_run_differ_by_as_much_as_is_told():
    """The studies share ids: settings and seeds are the same, the tasks at once are not."""
    first, second = (
        load_records(ROOT / "results" / "reference" / name)
        for name in ("omniglot", "omniglot_normalisation")
    )
    keys = ["run", "reading", "inner_steps"]
    second = second[second["normalised_with"].fillna("task") == "task"]
    both = first[first["steps"] > 0].merge(second, on=keys)
    apart = (both["mean_x"] - both["mean_y"])[both["reading"] == "meta"]
    assert len(apart) == 64
    results = " ".join((ROOT / "docs/results.md").read_text("utf-8").split())
    assert f"moves single runs by up to {apart.abs().max():.1f} points" in results
