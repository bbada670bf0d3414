"""Tables: the numbers in their cells, and the notes and signs beside them."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from cml_bench.errors import UserError
from cml_bench.evidence import notes
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Column
from cml_bench.records import Store, write_record
from cml_bench.report import forms, grids, write
from cml_bench.report.kinds.cost import costs as costs_of
from tests.helpers.plans import edited
from tests.helpers.simulated import ANSWERS, finish, study

FLAT = {"base": 50.0, "meta": 50.0, "co": 50.0}
GAIN = {"base": 50.0, "meta": 55.0, "co": 56.0}


def table_of(tmp_path, level, seeds=5, kind="accuracy", **options):
    resolved = study(seeds, kind)
    return build(resolved, finish(resolved, tmp_path, level, **options), "table1")


def test_a_cell_is_the_mean_over_seeds_with_both_half_widths(tmp_path):
    resolved = study(seeds=4)
    store = finish(resolved, tmp_path, GAIN)
    cell = build(resolved, store, "table1").rows[1].cells[Column(5)]
    runs = [r for r in store.all() if r.spec.method == "maml+cml" and r.spec.shot == 5]
    scores = (
        np.stack([r.arrays["meta@1"] for r in sorted(runs, key=lambda r: r.spec.seed)])
        * 100
        / ANSWERS
    )
    means = scores.mean(1)
    assert cell.summary.mean == pytest.approx(means.mean())
    assert cell.summary.half == pytest.approx(scipy_stats.t.ppf(0.975, 3) * means.std(ddof=1) / 2)
    per_episode = scores.mean(0)
    assert cell.episode_half == pytest.approx(1.96 * per_episode.std(ddof=1) / 20)
    shown = f"{means.mean():.2f} ± {cell.summary.half:.2f} ({cell.episode_half:.2f})"
    assert shown in forms.markdown(build(resolved, store, "table1"))


def test_differences_are_paired_by_seed(tmp_path):
    resolved = study(seeds=6)
    store = finish(resolved, tmp_path, GAIN, seed_sd=5.0)
    table = build(resolved, store, "table1")
    base, cml = (row.cells[Column(1)] for row in table.rows[:2])
    difference = np.array([cml.values[s] - base.values[s] for s in range(6)])
    paired = cml.difference.paired
    assert paired.diff == pytest.approx(difference.mean())
    assert paired.p == pytest.approx(scipy_stats.ttest_1samp(difference, 0).pvalue)
    assert paired.half < cml.summary.half, "pairing removes what seeds have in common"


def test_holm_is_taken_over_a_tables_meta_differences_and_over_its_co_differences(tmp_path):
    table = table_of(tmp_path, {"base": 50, "meta": 50.2, "co": 55}, seeds=6)
    for reading in ("meta", "co"):
        family = [
            cell.difference
            for row, _, cell in table.cells()
            if cell.difference and row.reading == reading
        ]
        raw = np.array([d.paired.p for d in family])
        order = np.argsort(raw)
        want = np.maximum.accumulate(raw[order] * (2, 1)).clip(max=1)
        assert [family[i].holm_p for i in order] == pytest.approx(want)


def test_a_true_gain_gets_signs_and_bold_and_noise_does_not(tmp_path):
    gain, noise = (
        table_of(tmp_path / n, level, seeds=8) for n, level in (("gain", GAIN), ("noise", FLAT))
    )
    assert all(gain.rows[1].cells[c].difference.verdict.startswith("▲") for c in gain.columns)
    assert not any(gain.rows[0].cells[c].bold for c in gain.columns)
    assert all(gain.rows[2].cells[c].bold for c in gain.columns)
    assert all(
        noise.rows[1].cells[c].difference.verdict == "not significant" for c in noise.columns
    )
    assert "After Holm's correction at 5 %, both differences are gains." in gain.notes[0]
    assert "After Holm's correction at 5 %, both differences are undecided." in noise.notes[0]
    assert any("with probability 1.00" in note for note in gain.notes)
    assert any(
        note.startswith("Exact sign flips ") and "The smallest possible p is 0.00781." in note
        for note in gain.notes
    )
    assert any(
        note.startswith("▲ is a gain on the row's own baseline, ▼ a loss. ")
        and note.endswith(
            "Two Holm families are in this table: all differences of the meta-learner (2) and all"
            " differences of the co-learner (2)."
        )
        for note in gain.notes
    )
    assert any(note.startswith("Bold is ") for note in gain.checks)
    assert not any("MAML + CML is above" in note for note in gain.checks)
    assert re.search(r"\(\d\.\d\d\) ▲▲▲ ", forms.text(gain))
    assert not re.search(r"\) [▲▼]", forms.text(noise))


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_below_five_seeds_there_is_no_sign_no_bold_and_no_p(tmp_path, seeds):
    table = table_of(tmp_path, GAIN, seeds=seeds)
    text = forms.text(table) + forms.markdown(table) + forms.latex(table)
    assert f"n = {seeds}: shown, not tested" in text
    assert "p =" not in text
    assert not re.search(r"[▲▼]|triangle", text)
    assert not any(cell.bold for _, _, cell in table.cells())
    assert not any("Across the table" in note for note in table.notes)


def test_a_table_renders_from_whatever_is_finished(tmp_path):
    resolved = study(seeds=5)
    assert "–" in forms.text(build(resolved, Store(tmp_path / "none"), "table1"))
    store = finish(
        resolved,
        tmp_path,
        GAIN,
        only=lambda s: not (s.method == "maml+cml" and s.shot == 5 and s.seed > 1),
    )
    table = build(resolved, store, "table1")
    cell = table.rows[1].cells[Column(5)]
    assert len(cell.values) == 2
    assert cell.difference.paired.n == 2
    assert not cell.difference.testable
    missing = (
        "17 of 20 runs are made and evaluated as asked. Missing: MAML + CML at 5-shot (3), MAML +"
        " CML†"
    )
    assert any(missing in note for note in table.notes)
    assert not any(row.cells[Column(5)].bold for row in table.rows), (
        "the row with missing runs could have been best"
    )
    assert any(row.cells[Column(1)].bold for row in table.rows)


def test_a_diverged_run_stays_marked_and_takes_the_verdict_away(tmp_path):
    table = table_of(
        tmp_path,
        GAIN,
        seeds=7,
        status=lambda s: "diverged" if (s.method, s.seed, s.shot) == ("maml", 3, 1) else "finished",
    )
    base, cml = (row.cells[Column(1)] for row in table.rows[:2])
    assert (base.summary.finished, base.summary.total) == (6, 7)
    assert "‡" in grids.cell_text(base, "accuracy")
    assert cml.difference.paired.n == 6
    assert cml.difference.verdict == "seed 3 of MAML diverged: not tested"
    assert not base.bold
    lost = table_of(
        tmp_path / "all", GAIN, status=lambda s: "collapsed" if s.method == "maml" else "finished"
    )
    assert grids.cell_text(lost.rows[0].cells[Column(1)], "accuracy") == "–‡", (
        "which is not the same as not run"
    )
    assert not any(row.cells[Column(1)].bold for row in table.rows)
    assert table.rows[2].cells[Column(5)].bold
    assert any("6 of 7 finished (1 diverged)" in note for note in table.notes)
    assert table.rows[1].cells[Column(5)].difference.testable


def test_a_loss_is_said_in_words(tmp_path):
    table = table_of(tmp_path, {"base": 55, "meta": 50, "co": 56}, seeds=3)
    assert table.notes[:2] == [
        "MAML + CML is above MAML in none of the 2 columns. No difference has a verdict (n = 3:"
        " shown, not tested).",
        "MAML + CML† is above MAML in both columns. No difference has a verdict (n = 3: shown, not"
        " tested).",
    ]


@pytest.mark.parametrize(
    ("ahead", "of", "said"),
    [(0, 1, "no column"), (1, 1, "the one column"), (0, 3, "none of the 3 columns")],
)
def test_columns_are_counted_in_words(ahead, of, said):
    assert notes._columns(ahead, of) == said


def test_a_significant_loss_is_not_read_as_a_gain(tmp_path):
    table = table_of(tmp_path, {"base": 55, "meta": 50, "co": 56}, seeds=6)
    assert table.notes[0].endswith("After Holm's correction at 5 %, both differences are losses.")


def test_bold_never_goes_to_a_row_behind_one_that_was_left_out(tmp_path):
    level = {"base": 50, "meta": 60, "co": 55}
    broken = table_of(
        tmp_path / "a", level, 6, status=lambda s: "finished" if s.method == "maml" else "diverged"
    )
    assert not any(cell.bold for _, _, cell in broken.cells())
    store = finish(study(6), tmp_path / "b", {"base": 50, "meta": 40, "co": 70})

    def once(plan, reading):
        members, config = plan["members"]["e"], plan["tables"]["table1"]
        members["once"] = {shot: ids[:1] for shot, ids in members["maml+cml"].items()}
        config["rows"][1:] = [
            {"label": "Once", "run": "once", "reading": reading, "against": None, "shown": True}
        ]

    for reading, bold in (("meta", True), ("co", False)):
        resolved = edited(study(6), lambda plan, reading=reading: once(plan, reading))
        rows = build(resolved, store, "table1").rows
        assert [row.cells[Column(1)].bold for row in rows] == [bold, False]


def test_results_of_another_evaluation_are_not_mixed_in(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path / "query", GAIN)
    for path in store.runs.glob("maml+cml-*/record.json"):
        content = json.loads(path.read_text())
        content["evaluation"]["query"] = 3
        path.write_text(json.dumps(content))
    table = build(resolved, store, "table1")
    assert [len(row.cells[Column(1)].values) for row in table.rows] == [5, 0, 0]
    assert any("10 of 20 runs are made and evaluated as asked" in note for note in table.notes)
    fewer = finish(study(seeds=5, tasks=100), tmp_path / "tasks", GAIN)
    assert "0 of 20 runs" in forms.text(build(resolved, fewer, "table1"))


def test_a_baseline_need_not_be_a_row(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, GAIN)
    whole = build(resolved, store, "table1")
    alone = build(
        edited(resolved, lambda plan: plan["tables"]["table1"]["rows"].pop(0)), store, "table1"
    )
    for column in alone.columns:
        assert (
            alone.rows[0].cells[column].difference.paired
            == whole.rows[1].cells[column].difference.paired
        )
    assert alone.notes[0].startswith("MAML + CML is above maml in both columns")


def test_regression_shows_mean_and_median_and_lower_is_better(tmp_path):
    resolved = study(3, "regression")
    store = finish(resolved, tmp_path, {"base": 4.0, "meta": 3.0, "co": 5.0}, seed_sd=0.1)
    table = build(resolved, store, "table1")
    assert [c.title("regression") for c in table.columns[:4]] == [
        "1-shot, 0 steps, mean",
        "1-shot, 1 step, mean",
        "1-shot, 0 steps, median",
        "1-shot, 1 step, median",
    ]
    record = next(
        r for r in store.all() if r.spec.method == "maml" and r.spec.shot == 5 and r.spec.seed == 2
    )
    assert table.rows[0].cells[Column(5, 1, "median")].values[2] == pytest.approx(
        np.median(record.arrays["meta@1"])
    )
    assert table.rows[0].cells[Column(5, 0, "mean")].values[2] == pytest.approx(
        np.mean(record.arrays["meta@0"])
    )
    assert table.rows[1].cells[Column(1, 0, "mean")].difference.wins
    assert not table.rows[2].cells[Column(1, 0, "mean")].difference.wins
    assert table.notes[0].startswith("MAML + CML is below MAML in all 4 columns")


def test_costs_are_relative_to_the_first_row(tmp_path):
    table = table_of(tmp_path, GAIN, seeds=3, kind="cost")
    costs = costs_of(table)
    assert costs["MAML + CML"].relative_flops == pytest.approx(1.2)
    assert costs["MAML + CML†"].relative_seconds == pytest.approx(1.3)
    assert [costs[row.label].test for row in table.rows] == [1000, 1000, 1400]
    assert "1,500" in forms.text(table)


def test_a_cost_is_over_the_runs_that_both_rows_have(tmp_path):
    resolved = study(3, "cost")
    store = finish(resolved, tmp_path, GAIN, only=lambda s: s.method == "maml" or s.seed == 0)
    assert costs_of(build(resolved, store, "table1"))[
        "MAML + CML"
    ].relative_seconds == pytest.approx(1.3)
    for path in store.runs.glob("*/record.json"):
        content = json.loads(path.read_text())
        del content["flops"]
        path.write_text(json.dumps(content))
    table = build(resolved, store, "table1")
    assert np.isnan(costs_of(table)["MAML"].relative_flops)
    assert "1.30×" in forms.text(table)
    assert "nan" not in forms.text(table)


def test_markdown_and_latex_show_signs(tmp_path):
    table = table_of(tmp_path, GAIN, seeds=8)
    assert re.search(r"\*\*[\d.]+ ± [\d.]+ \([\d.]+\) ▲▲▲\*\*", forms.markdown(table))
    assert r") $\bigtriangleup$$\bigtriangleup$$\bigtriangleup$" in forms.latex(table)


def test_latex_is_well_formed(tmp_path):
    for kind, level in (
        ("accuracy", GAIN),
        ("regression", {"base": 4, "meta": 3, "co": 5}),
        ("cost", GAIN),
    ):
        source = forms.latex(table_of(tmp_path / kind, level, seeds=6, kind=kind))
        assert source.count(r"\begin{") == source.count(r"\end{")
        assert source.count("{") == source.count("}")
        body = re.sub(r"\\[%&_#${}]", "", source)
        assert "%" not in body
        assert "_" not in body
        assert "T \\& U" in source
        assert not re.search(r"[^\x00-\x7f]", source), (
            "plain pdflatex has no other characters without packages"
        )
        for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end", source, flags=re.DOTALL):
            for line in re.findall(r"(.*) \\\\", block[1]):
                assert len(re.findall(r"(?<!\\)&", line)) == len(block[0]) - 1


def test_csv_has_the_numbers(tmp_path):
    table = table_of(tmp_path, GAIN, seeds=6)
    frame = pd.read_csv(io.StringIO(forms.csv(table)))
    assert len(frame) == 6
    row = frame[(frame.row == "MAML + CML") & (frame.shot == 5)].iloc[0]
    cell = table.rows[1].cells[Column(5)]
    assert row["mean"] == pytest.approx(cell.summary.mean)
    assert row["p_holm"] == pytest.approx(cell.difference.holm_p)
    assert row["sign_flip_smallest"] == 2**-5
    assert len(row["runs"].split()) == row["runs_finished"] == 6


def test_an_unknown_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"unknown table 'tabel1'\. Did you mean 'table1'"):
        write.tables(study(), tmp_path, ["tabel1"])


@pytest.mark.parametrize(
    "other",
    [{"path": "plain"}, {"device": "cuda:0"}, {"threads": 2}, {"seeds": 4}, {"tasks_at_once": 1}],
)
def test_a_pair_that_is_made_in_two_ways_is_not_tested(other, tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, GAIN)
    specs = [run.spec for run in resolved.runs]
    spec = next(s for s in specs if (s.method, s.seed, s.shot) == ("maml", 3, 1))
    record = store.read(spec)
    content = {**record.content, "engine": {**record.content["engine"], **other}}
    write_record(
        record.folder, {**record.content, **other} if "tasks_at_once" in other else content
    )
    one, five = (
        cell.difference for cell in build(resolved, store, "table1").rows[1].cells.values()
    )
    assert (
        one.verdict
        == "pairs made in different ways (path, device, threads, seeds or tasks at once): not"
        " tested"
    )
    assert five.testable
