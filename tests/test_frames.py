"""Stored runs as data frames, and the paired test of two selections of rows."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cml_bench
from cml_bench.__main__ import main
from cml_bench.errors import UserError
from cml_bench.evidence.build import build
from cml_bench.records import Store
from tests.helpers.simulated import LEVEL, finish, study

OMNIGLOT = Path(__file__).parent.parent / "results" / "reference" / "omniglot"


@pytest.fixture(scope="module")
def plan():
    return study(seeds=6, tasks=20)


@pytest.fixture(scope="module")
def made(plan, tmp_path_factory):
    """A results folder with six seeds, of which one run of MAML + CML diverged."""
    folder = tmp_path_factory.mktemp("made")
    bad = next(s for s in plan.specs.values() if s.method == "maml+cml" and s.seed == 5)
    finish(plan, folder, LEVEL, status=lambda spec: "diverged" if spec == bad else "finished")
    return folder


def selected(frame, method, shot=1, reading="meta"):
    return frame[
        (frame["method"] == method) & (frame["shot"] == shot) & (frame["reading"] == reading)
    ]


def test_a_row_is_a_run_a_reading_and_inner_steps(made, plan):
    frame = cml_bench.load_records(made)
    assert set(frame["run"]) == set(plan.specs)
    assert not frame.duplicated(["run", "reading", "inner_steps", "normalised_with"]).any()
    diverged = frame[frame["status"] == "diverged"]
    assert len(diverged) == 1
    assert diverged["mean"].isna().all()
    assert (frame[frame["method"] == "maml+cml"]["options.cml.gamma"] == 1).all()


def test_means_are_of_the_episodes_in_percent(made):
    frame, episodes = cml_bench.load_records(made), cml_bench.episodes(made)
    means = episodes.groupby(["run", "reading", "inner_steps"])["score"].mean()
    there = frame.dropna(subset="mean").set_index(["run", "reading", "inner_steps"])["mean"]
    stored = there[there.index.isin(means.index)]
    assert len(stored) == len(means) > 0
    np.testing.assert_allclose(stored, means[stored.index], rtol=1e-12)
    assert episodes["episode"].max() == 19
    assert (frame["unit"] == "%").all()


@pytest.mark.parametrize("reading", ["meta", "co"])
def test_compare_is_the_paired_test_of_the_table(made, plan, reading):
    table = build(plan, Store(made), "table1")
    frame = cml_bench.load_records(made)
    for row, column, difference in table.differences():
        if row.reading == reading:
            ours = selected(frame, "maml+cml", column.shot, reading)
            base = selected(frame, "maml", column.shot)
            assert cml_bench.compare(ours, base) == pytest.approx(difference.paired, rel=1e-9)


def test_collapsed_runs_do_not_count_as_in_the_table(plan, tmp_path):
    lost = [s for s in plan.specs.values() if s.method == "maml" and s.seed < 2]
    finish(plan, tmp_path, LEVEL, status=lambda spec: "collapsed" if spec in lost else "finished")
    frame = cml_bench.load_records(tmp_path)
    done = cml_bench.compare(selected(frame, "maml+cml"), selected(frame, "maml"))
    assert done.n == 4
    differences = build(plan, Store(tmp_path), "table1").differences()
    of_table = [d for row, at, d in differences if row.reading == "meta" and at.shot == 1]
    assert [done] == [pytest.approx(d.paired, rel=1e-9) for d in of_table]


def test_unlike_options_of_both_methods_are_refused_by_one_name_of_the_inner_rate(made):
    frame = cml_bench.load_records(made)
    ours, base = selected(frame, "maml+cml"), selected(frame, "maml")
    rate, learned = "options.inner_lr", "options.inner_lr_init"
    for unlike in (ours.assign(**{rate: 0.25}), ours.drop(columns=rate).assign(**{learned: 0.25})):
        with pytest.raises(UserError, match=r"differ in options.inner_lr \(0.25 and 0.5\)"):
            cml_bench.compare(unlike, base)
        assert cml_bench.compare(unlike, base, [rate]) == cml_bench.compare(ours, base)
    own = ours.assign(**{"options.msl_epochs": 3.0})
    assert cml_bench.compare(own, base) == cml_bench.compare(ours, base)


def test_without_a_place_nothing_is_loaded():
    for load in (cml_bench.load_records, cml_bench.curves, cml_bench.episodes):
        with pytest.raises(UserError, match="name at least one place"):
            load()


def test_a_selection_of_two_rows_a_seed_is_refused_with_what_they_differ_in(made):
    frame = cml_bench.load_records(made)
    both = frame[frame["method"] == "maml+cml"]
    with pytest.raises(UserError, match=r"a has \d+ rows of seed 0, which differ in .*reading"):
        cml_bench.compare(both[both["shot"] == 1], selected(frame, "maml"))


def test_unlike_rows_are_refused_unless_the_difference_is_meant(made):
    frame = cml_bench.load_records(made)
    ours, base = selected(frame, "maml+cml"), selected(frame, "maml")
    with pytest.raises(UserError, match=r"not of the same test tasks: shot is 5 and 1"):
        cml_bench.compare(selected(frame, "maml+cml", shot=5), base)
    longer = ours.assign(steps=200)
    with pytest.raises(UserError, match=r"differ in steps \(200 and 100\).*`varies`"):
        cml_bench.compare(longer, base)
    assert cml_bench.compare(longer, base, ["steps"]) == cml_bench.compare(ours, base)
    with pytest.raises(UserError, match="there is no column 'stesp'"):
        cml_bench.compare(ours, base, ["stesp"])


def test_rows_without_partner_are_left_out_and_none_at_all_is_said(made):
    frame = cml_bench.load_records(made)
    ours, base = selected(frame, "maml+cml", shot=5), selected(frame, "maml", shot=5)
    assert cml_bench.compare(ours, base[base["seed"] < 3]).n == 3
    with pytest.raises(UserError, match="share no seed"):
        cml_bench.compare(ours[ours["seed"] > 3], base[base["seed"] < 3])
    with pytest.raises(UserError, match="b has no rows"):
        cml_bench.compare(ours, base[base["seed"] > 9])


def test_class_splits_are_the_pairs_where_there_are_several():
    frame = cml_bench.load_records(OMNIGLOT.parent / "graphs")
    rows = frame[
        (frame["data"] == "citeseer")
        & (frame["shot"] == 1)
        & (frame["reading"] == "meta")
        & (frame["protocol.outer_lr"] == 1e-3)
        & frame["data.split"].str.startswith("r")
        & (frame["steps"] > 0)
    ]
    done = cml_bench.compare(rows[rows["method"] == "gmeta+cml"], rows[rows["method"] == "gmeta"])
    assert done.n == 10


def test_curves_have_a_row_a_step_part_and_head():
    frame = cml_bench.curves(OMNIGLOT)
    assert not frame.duplicated(["run", "step", "part", "head"]).any()
    shown = frame[frame["part"] == "validation"].dropna(subset="score")
    assert shown.groupby("run")["step"].max().eq(400).all()
    last = shown[(shown["step"] == 400) & (shown["head"] == "meta")]["score"]
    assert last.between(20, 100).all()


def test_a_folder_without_runs_is_named(tmp_path, made):
    with pytest.raises(UserError, match=f"{tmp_path} holds no finished run: name a results folder"):
        cml_bench.load_records(made, tmp_path)
    with pytest.raises(UserError, match="place must be a path"):
        cml_bench.load_records(3)


def test_one_run_and_its_folder_of_runs_are_places(made, tmp_path):
    whole = cml_bench.load_records(made)
    assert whole.equals(cml_bench.load_records(made / "runs"))
    run = sorted((made / "runs").iterdir())[0]
    shutil.copytree(run, tmp_path / run.name)
    assert cml_bench.load_records(tmp_path / run.name)["run"].nunique() == 1


def test_two_studies_that_share_a_run_are_told_apart_by_their_folder():
    """The same id with another content: made on another machine, or with other settings of it."""
    places = [OMNIGLOT.parent / name for name in ("omniglot_methods", "omniglot_more_methods")]
    frame = selected(cml_bench.load_records(*places), "maml").query("steps == 1000")
    frame = frame[frame["options.inner_steps"] == 1]
    with pytest.raises(UserError, match=r"2 rows of seed 0, which differ in folder: select one"):
        cml_bench.compare(frame, frame)


def test_the_command_writes_the_same_rows(made, tmp_path, capsys):
    frame = cml_bench.load_records(made)
    assert main(["records", str(made), "--csv", str(tmp_path / "runs.csv")]) == 0
    assert (tmp_path / "runs.csv").read_text() == frame.to_csv(index=False)
    assert main(["records", str(made)]) == 0
    assert capsys.readouterr().out == frame.to_csv(index=False)
    assert main(["records", str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["demo", "graphs"])
def test_parquet_holds_the_rows_of_a_published_study(study, tmp_path):
    pytest.importorskip("pyarrow")
    frame = cml_bench.load_records(OMNIGLOT.parent / study)
    file = tmp_path / "runs.parquet"
    assert main(["records", str(OMNIGLOT.parent / study), "--parquet", str(file)]) == 0
    back = pd.read_parquet(file)
    assert [*back.columns] == [*frame.columns]
    assert [*back["mean"].dropna()] == [*frame["mean"].dropna()]
    for column in ("network.hidden", "status", "options.inner_lr"):  # lists and numbers; text
        if column in frame:
            assert [str(v) for v in back[column].dropna()] == [
                str(v) for v in frame[column].dropna()
            ]


def test_parquet_without_its_library_is_said_and_leaves_no_file(
    made, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["records", str(made), "--parquet", str(tmp_path / "runs.parquet")]) == 2
    assert "pip install pyarrow, or take --csv" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_frames_need_no_torch():
    code = (
        "import sys, cml_bench;"
        f"cml_bench.load_records({str(OMNIGLOT)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
