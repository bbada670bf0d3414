"""Validation tasks alone select the setting of a sweep, by a rule that is said."""

import json

import pytest

from cml_bench.__main__ import main
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Column
from cml_bench.records import Store
from cml_bench.report import sweeps as told
from cml_bench.report import write
from cml_bench.report.publish import publish
from cml_bench.study import cost, selection
from tests.helpers.simulated import LEVEL, finish
from tests.helpers.swept import (
    STEPS,
    chosen,
    content,
    edited,
    finished,
    planned,
    tried_ids,
    validated,
)

A = {"inner_lr": 0.5, "protocol.outer_lr": 0.01}
B = {"inner_lr": 1.0, "protocol.outer_lr": 0.001}
FIRST = {"inner_lr": 0.1, "protocol.outer_lr": 0.001}


@pytest.fixture(scope="module")
def plan():
    return planned(content())


def report_runs(plan, folder):
    """Records of all runs of the report, in the selected settings."""
    narrow = selection.narrowed(plan, Store(folder))
    wanted = narrow.specs.keys() - tried_ids(plan)
    finish(narrow, folder, LEVEL, only=lambda spec: spec.id in wanted)
    return narrow


def test_each_method_has_its_own_best_setting(plan, tmp_path):
    finished(plan, tmp_path, {"maml": A, "maml+cml": B})
    assert chosen(plan, tmp_path) == {"maml": A, "maml+cml": B}
    narrow = selection.narrowed(plan, Store(tmp_path))
    specs = [narrow.specs[run] for run in narrow.members["e"]["maml_tuned"][1]]
    assert {(s.options["inner_lr"], s.protocol.outer_lr) for s in specs} == {(0.5, 0.01)}
    assert [s.seed for s in specs] == [0, 1, 2, 3, 4]
    specs = [narrow.specs[run] for run in narrow.members["e"]["maml+cml_tuned"][1]]
    assert {(s.method, s.options["inner_lr"], s.protocol.outer_lr) for s in specs} == {
        ("maml+cml", 1.0, 0.001)
    }
    made = {run for job in narrow.jobs for run in job.runs}
    assert made == narrow.specs.keys(), "no job has a run of a setting that is not selected"
    assert len(made) == 2 * 6 * 2 + 2 * 5 + 2 * 5


def test_no_test_result_can_change_the_selection(plan, tmp_path):
    """Not even where another study has tested the runs of the selection."""
    finished(plan, tmp_path, {"maml": A, "maml+cml": A})
    before = chosen(plan, tmp_path)
    assert before == {"maml": A, "maml+cml": A}
    for place, run in enumerate(sorted(tried_ids(plan))):
        tested = {"tasks": 100, "query": 5, "inner_steps": [1]}
        edited(plan, tmp_path, run, results={"meta@1": place / 100}, evaluation=tested)
    assert chosen(plan, tmp_path) == before
    report_runs(plan, tmp_path)
    assert chosen(plan, tmp_path) == before


def test_the_runs_of_the_selection_are_not_tested_and_have_seeds_of_their_own(plan):
    tried = [plan.specs[run] for run in tried_ids(plan)]
    assert {spec.seed for spec in tried} == {1000, 1001}
    assert {spec.evaluation.tasks for spec in tried} == {0}
    report = [spec for run, spec in plan.specs.items() if run not in tried_ids(plan)]
    assert {spec.evaluation.tasks for spec in report} == {100}
    assert {spec.seed for spec in report} == {0, 1, 2, 3, 4}


def test_the_score_is_that_of_the_model_that_would_be_tested(plan, tmp_path):
    """A later step may be better on no task; what counts is the selected step's."""
    finished(plan, tmp_path, {"maml": A, "maml+cml": A})
    (run, _) = plan.sweeps[0].settings[0].tried
    curves = {"step": [0, 50, 100], "validation": {"score_meta": [0.2, 0.5, 0.99]}}
    edited(plan, tmp_path, run, curves=curves)
    assert chosen(plan, tmp_path)["maml"] == A
    edited(plan, tmp_path, run, curves=curves, selected={"best_meta": 100, "last": 100})
    assert chosen(plan, tmp_path)["maml"] == FIRST


def test_of_equal_settings_the_first_is_selected_and_that_is_said(plan, tmp_path):
    store = finished(plan, tmp_path)
    assert chosen(plan, tmp_path) == {"maml": FIRST, "maml+cml": FIRST}
    (maml, _) = told.sections(plan, store)
    assert any(note.startswith("6 settings have the best score") for note in maml.notes)


def test_a_diverged_setting_is_named_and_never_selected(plan, tmp_path):
    store = finished(plan, tmp_path, {"maml": A, "maml+cml": A})
    by_values = {tuple(one.values.values()): one for one in plan.sweeps[0].settings}
    best = by_values[tuple(A.values())]
    edited(plan, tmp_path, best.tried[0], status="diverged")
    assert chosen(plan, tmp_path)["maml"] == FIRST
    (maml, _) = told.sections(plan, store)
    named = "Cannot be selected, since a run diverged: inner_lr 0.5, protocol.outer_lr 0.01."
    assert named in maml.notes
    assert "– diverged" in maml.grid.rows[1]
    for setting in plan.sweeps[0].settings:
        validated(plan, tmp_path, setting.tried[1], None)
    (one, _) = selection.selections(plan, store)
    assert (one.chosen, one.reason) == (None, "every setting has a run that diverged")


def test_nothing_is_selected_while_a_run_is_missing_and_that_is_named(plan, tmp_path):
    store = finished(plan, tmp_path, {"maml": A, "maml+cml": A})
    lost = plan.sweeps[0].settings[2].tried[0]
    (store.folder(plan.specs[lost]) / "record.json").unlink()
    one, other = selection.selections(plan, store)
    assert one.chosen is None
    named = "inner_lr 0.5, protocol.outer_lr 0.001, seed 1000"
    assert one.reason == f"1 of 12 runs are not finished ({named})"
    assert other.chosen is not None
    narrow = selection.narrowed(plan, store)
    assert [row.label for row in narrow.tables["table1"].rows] == [
        "MAML",
        "MAML + CML",
        "MAML + CML†",
    ], "no row of a setting that is not known"
    assert narrow.specs.keys() == tried_ids(plan) | {
        run for key in ("maml", "maml+cml") for run in plan.members["e"][key][1]
    }


def test_the_plan_says_the_budget_and_what_is_to_follow(tmp_path):
    swept = {"seeds": 2, "methods": {"maml": {"inner_lr": [0.1, 0.5]}}}
    plan = planned({**content(swept), "results": str(tmp_path)})
    said = cost.summary(selection.narrowed(plan, Store(tmp_path)))
    assert "a grid of 2 settings, 2 seeds each, 4 runs; nothing is selected: 4 of 4 runs" in said
    titles = [run.title for run in plan.runs]
    assert len(set(titles)) == len(titles), "each run is told from the others"
    assert "maml on glyphs, 5-way 1-shot, seed 1000 (inner_lr 0.1)" in titles
    assert "to follow, of selected settings: up to 5 runs" in said
    finished(plan, tmp_path, {"maml": {"inner_lr": 0.1}})
    said = cost.summary(selection.narrowed(plan, Store(tmp_path)))
    assert "4 runs; selected: inner_lr 0.1\n" in said
    assert "to follow" not in said


@pytest.mark.parametrize(
    ("draw", "said"),
    [("grid", "a grid of 1 setting, 1 seed each, 1 run"), (1, "1 setting drawn at random with")],
)
def test_one_setting_is_told_in_the_singular(draw, said):
    swept = {"seeds": 1, "draw": draw, "methods": {"maml": {"inner_lr": [0.1]}}}
    (one,) = planned(content(swept)).sweeps
    assert f"sweep of maml in e, 1-shot: {said}" in selection.budget(one)
    assert not selection.budget(one).endswith("runs")


def test_a_setting_at_the_edge_is_told_in_words(plan, tmp_path):
    store = finished(plan, tmp_path, {"maml": A, "maml+cml": B})
    one, other = selection.selections(plan, store)
    assert one.edges() == {"protocol.outer_lr": "largest"}
    assert other.edges() == {"inner_lr": "largest", "protocol.outer_lr": "smallest"}
    maml, _ = told.sections(plan, store)
    assert [note for note in maml.notes if "edge" in note or "beyond" in note] == [
        "The selected protocol.outer_lr is the largest of those tried: a better setting may lie"
        " beyond."
    ]


def test_all_settings_are_shown_with_the_budget_and_the_selected_one(plan, tmp_path):
    store = finished(plan, tmp_path, {"maml": A, "maml+cml": B})
    maml, cml = told.sections(plan, store)
    assert maml.grid.header == [
        "inner_lr",
        "protocol.outer_lr 0.001",
        "protocol.outer_lr 0.01",
    ]
    assert maml.grid.rows == [
        ["0.1", "50.00, SD 0.00", "50.00, SD 0.00"],
        ["0.5", "50.00, SD 0.00", "60.00, SD 0.00 ✓"],
        ["1.0", "50.00, SD 0.00", "50.00, SD 0.00"],
    ]
    assert (maml.grid.bold, cml.grid.bold) == ({(1, 2)}, {(2, 1)})
    assert maml.notes[0] == (
        "Sweep of MAML in e, 1-shot: a grid of 6 settings, 2 seeds each, 12 runs (144 core-seconds,"
        " 12.0 a run); selected: inner_lr 0.5, protocol.outer_lr 0.01."
    )
    assert told.notes(plan, store) == ["e, 1-shot: MAML and MAML + CML have equal budgets."]
    kept = selection.content(plan, selection.selections(plan, store))
    assert json.loads(json.dumps(kept))["sweeps"][0]["selected"] == A


def test_tuned_rows_stand_beside_the_published_ones_and_are_tested_with_each_other(plan, tmp_path):
    finished(plan, tmp_path, {"maml": A, "maml+cml": B})
    narrow = report_runs(plan, tmp_path)
    table = build(narrow, Store(tmp_path), "table1")
    rows = {row.label: row for row in table.rows}
    assert [(row.label, row.against) for row in table.rows] == [
        ("MAML", None),
        ("MAML + CML", "MAML"),
        ("MAML + CML†", "MAML"),
        ("MAML, tuned", None),
        ("MAML + CML, tuned", "MAML, tuned"),
        ("MAML + CML†, tuned", "MAML, tuned"),
    ]
    difference = rows["MAML + CML, tuned"].cells[Column(1)].difference
    assert difference.testable
    assert difference.paired.n == 5
    assert (
        "MAML + CML, tuned and MAML, tuned differ in what was selected for each: inner_lr (1.0 and"
        " 0.5), protocol.outer_lr (0.001 and 0.01)."
    ) in table.findings
    assert (
        "MAML, tuned, 1-shot: inner_lr 0.5, protocol.outer_lr 0.01, selected by validation tasks"
        " among 6 settings with 2 seeds each, which are not those of this table. It has the largest"
        " protocol.outer_lr of all, so a better setting may lie beyond."
    ) in table.findings
    bold = {row.label: row.cells[Column(1)].bold for row in table.rows}
    assert any(bold[label] for label in rows if label.endswith("tuned"))
    assert any(bold[label] for label in rows if not label.endswith("tuned")), (
        "a row that was chosen among several does not compete with one that was not"
    )


def test_the_published_setting_may_be_the_best_and_its_runs_are_shared(tmp_path):
    plan = planned(content())
    published = {"inner_lr": 0.5, "protocol.outer_lr": 0.001}
    finished(plan, tmp_path, {"maml": published, "maml+cml": published})
    narrow = report_runs(plan, tmp_path)
    members = narrow.members["e"]
    assert members["maml_tuned"] == members["maml"]
    notes = build(narrow, Store(tmp_path), "table1").findings
    assert any("protocol.outer_lr 0.001, as published, selected by" in note for note in notes)


def test_settings_of_one_method_are_not_compared_with_each_other(plan):
    """A plan of 200 settings stays small; rows of two readings show one setting."""
    shared = {run for key in ("maml", "maml+cml") for run in plan.members["e"][key][1]}
    for sweep in plan.sweeps:
        runs = {run for setting in sweep.settings for run in setting.tuned} - shared
        for run in runs:
            assert not plan.unlike_rows.get(run, {}).keys() & runs


def test_unequal_budgets_are_not_compared(tmp_path):
    swept = {"seeds": 2, "methods": {"maml+cml": {"cml.gamma": [0.2, 1.0, 2.0]}}}
    plan = planned(content(swept))
    finished(plan, tmp_path, {"maml+cml": {"cml.gamma": 0.2}})
    table = build(report_runs(plan, tmp_path), Store(tmp_path), "table1")
    (row,) = [row for row in table.rows if row.label == "MAML + CML, tuned"]
    assert row.against == "MAML"
    assert row.cells[Column(1)].difference.outcome == (
        "unequal budgets (3 settings with 2 seeds and one setting as published): not tested"
    )
    assert not row.cells[Column(1)].bold, "nor is it set beside the published row for bold type"


@pytest.mark.parametrize(("gammas", "bold"), [([0.2, 1.0, 2.0], set()), ([0.2, 1.0], {"B"})])
def test_bold_type_compares_rows_of_equal_budgets(gammas, bold, tmp_path):
    methods = {"maml": {"inner_lr": [0.1, 0.5]}, "maml+cml": {"cml.gamma": gammas}}
    asked = content({"seeds": 2, "methods": methods})
    rows = [{"label": "A", "run": "maml_tuned"}, {"label": "B", "run": "maml+cml_tuned"}]
    asked["tables"]["table1"]["rows"] = rows
    plan = planned(asked)
    finished(plan, tmp_path)
    table = build(report_runs(plan, tmp_path), Store(tmp_path), "table1")
    assert {row.label for row in table.rows if row.cells[Column(1)].bold} == bold


def test_a_plan_whose_selection_was_not_asked_for_makes_no_table(plan, tmp_path):
    with pytest.raises(AssertionError, match="what is selected is not known"):
        build(plan, Store(tmp_path), "table1")


def test_committed_records_select_the_same_setting_and_the_page_shows_it(plan, tmp_path):
    """There is no file of the selection: it follows from the records again."""
    finished(plan, tmp_path / "results", {"maml": A, "maml+cml": B})
    narrow = report_runs(plan, tmp_path / "results")
    publish(narrow, tmp_path / "results", tmp_path / "reference", tmp_path)
    publish(plan, tmp_path / "nowhere", tmp_path / "reference", tmp_path)
    home = tmp_path / "reference" / "s"
    assert chosen(plan, home) == {"maml": A, "maml+cml": B}
    page = (home / "report.html").read_text()
    assert "Sweeps: all settings, and which was selected" in page
    assert page.count("60.00, SD 0.00 ✓") == 2
    assert "MAML + CML, tuned" in page
    shown = write.text(selection.narrowed(plan, Store(home)), home, [])
    assert "MAML on e, 1-shot: accuracy, % in validation" in shown


def test_less_is_better_where_a_score_is_an_error(tmp_path):
    swept = {"seeds": 2, "methods": {"maml": {"inner_lr": STEPS["inner_lr"]}}}
    asked = content(swept, data="sinusoid", network="mlp", way=1)
    asked["experiments"]["e"]["evaluation"] = {"tasks": 100, "query": 5, "inner_steps": [0, 1]}
    asked["tables"] = {}
    plan = planned(asked)
    finished(plan, tmp_path, {"maml": {"inner_lr": 1.0}})  # an error of 0.6 instead of 0.5
    assert chosen(plan, tmp_path)["maml"] == {"inner_lr": 0.1}
    (one,) = told.sections(plan, Store(tmp_path))
    assert one.grid.rows[0] == ["0.1", "0.500, SD 0.000 ✓"]


def test_the_command_prints_the_selection_and_writes_every_setting(plan, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(json.dumps(plan.json_values()))
    out, folders = tmp_path / "selected.json", [f"--results={tmp_path}"]
    command = ["select", f"--plan={tmp_path / 'plan.json'}", f"--out={out}", *folders]
    assert main(command) == 0
    kept = json.loads(out.read_text())["sweeps"][0]
    assert (kept["selected"], kept["reason"]) == (None, "12 of 12 runs are not finished")
    finished(plan, tmp_path, {"maml": A, "maml+cml": B})
    capsys.readouterr()
    assert main(command) == 0
    assert "12 runs; selected: inner_lr 1.0, protocol.outer_lr 0.001" in capsys.readouterr().out
    kept = json.loads(out.read_text())["sweeps"][0]
    (best,) = [one for one in kept["settings"] if one["values"] == A]
    assert (best["mean"], best["validation"]) == (60.0, {"1000": 60.0, "1001": 60.0})
    assert main([*command, "--set", "e.maml.inner_lr=1"]) == 2
    assert "--set changes a configuration, and --plan has none" in capsys.readouterr().err
    without = content()
    del without["experiments"]["e"]["sweep"]
    (tmp_path / "plan.json").write_text(json.dumps(planned(without).json_values()))
    assert main(command) == 2
    assert "the study s has no `sweep`: nothing is selected." in capsys.readouterr().err
