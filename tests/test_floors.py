"""Rows of untrained networks: one key makes them, and a block tells what training adds."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats as scipy_stats

from cml_bench.errors import UserError
from cml_bench.evidence import stats
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Column
from cml_bench.report import grids
from cml_bench.study import config, targets
from cml_bench.study.floors import floor_of
from cml_bench.study.plan import read_plan
from cml_bench.study.resolve import resolve
from tests.helpers.beside_paper import PAPER
from tests.helpers.checkouts import ROOT
from tests.helpers.simulated import ROWS, experiment, finish

LEVEL = {"untrained": 40.0, "base": 60.0, "meta": 63.0, "co": 64.0}
LIKE_TABLES = ["accuracy", "splits", "cost"]  # kinds that show accuracies


def content(seeds=6, kind="accuracy", **table):
    """A study of MAML and MAML + CML on glyphs, with the row of the untrained network."""
    shown = {"kind": kind, "experiment": "e", "title": "T", "rows": ROWS, "untrained": ["maml"]}
    return {
        "study": "s",
        "seeds": seeds,
        "experiments": {"e": experiment(200)},
        "tables": {"table1": {**shown, **table}},
    }


def planned(asked):
    return resolve(config.parse(copy.deepcopy(asked), "my.yaml"), "my.yaml")


def graphs():
    """Two methods over three class splits, with a second line over the seeds of one split."""
    splits = {
        "data": "sbm",
        "network": "gcn",
        "way": 2,
        "shots": [5],
        "query": 5,
        "seeds": [0],
        "splits": ["r0", "r1", "r2"],
        "protocol": "official",
        "evaluation": {"tasks": 20, "query": 10},
        "methods": {"gmeta": {"splits": ["r0", "r1"]}, "amm_gnn": {}},
    }
    one = {key: value for key, value in splits.items() if key not in ("seeds", "splits")}
    one |= {"data_options": {"split": "r1"}, "methods": {"gmeta": {}, "amm_gnn": {"seeds": 2}}}
    table = {
        "kind": "splits",
        "columns": [{"experiment": "many", "fixed": "one"}],
        "title": "T",
        "untrained": ["gmeta", "amm_gnn"],
        "rows": [{"label": "G-Meta", "run": "gmeta"}, {"label": "AMM-GNN", "run": "amm_gnn"}],
    }
    return {
        "study": "s",
        "seeds": 5,
        "experiments": {"many": splits, "one": one},
        "tables": {"table3": table},
    }


def test_one_key_makes_the_row_and_its_runs_of_no_steps(tmp_path):
    by_hand = content()
    del by_hand["tables"]["table1"]["untrained"]
    before = planned(by_hand)
    by_hand["experiments"]["e"]["methods"]["mine"] = {"method": "maml", "steps": 0}
    plan = planned(content())
    (row,) = [c for c in plan.cells if c.row == "untrained, adapted" and c.shot == 1]
    assert row.runs == planned(by_hand).members["e"]["mine"][1]
    assert [plan.specs[i].seed for i in row.runs] == [0, 1, 2, 3, 4, 5]
    assert before.specs == {i: s for i, s in plan.specs.items() if s.steps}, "ids stay"
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.json_values()))
    again = read_plan(path)
    assert [r.label for r in again.tables["table1"].rows] == [*(r["label"] for r in ROWS), row.row]
    part = targets.restrict(plan, "table1_1shot_n3")
    assert [c.runs for c in part.cells if c.row == row.row] == [row.runs[:3]]


def test_a_floor_has_the_class_splits_and_seeds_of_its_method():
    plan = planned(graphs())
    runs = plan.members
    assert [plan.specs[i].split for i in runs["many"]["gmeta_untrained"][5]] == ["r0", "r1"]
    assert len(runs["many"]["amm_gnn_untrained"][5]) == 3
    assert [plan.specs[i].seed for i in runs["one"]["gmeta_untrained"][5]] == [0, 1, 2, 3, 4]
    assert [plan.specs[i].seed for i in runs["one"]["amm_gnn_untrained"][5]] == [0, 1]
    assert [row.label for row in plan.tables["table3"].rows[2:]] == [
        "untrained, adapted as G-Meta",
        "untrained, adapted as AMM-GNN",
    ], "several are told apart"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"untrained": ["pixel_nn"]},
            r"my\.yaml, table1: untrained names 'pixel_nn', which learns",
        ),
        ({"untrained": ["maml+cml"]}, r"table1, untrained names 'maml\+cml', which is maml\+cml"),
        ({"untrained": ["boil"]}, r"untrained names 'boil'; the experiment 'e' has: maml, maml\+"),
        ({"untrained": "maml"}, r"tables\.table1\.untrained: Input should be a valid tuple"),
        (
            {"rows": [*ROWS, {"label": "untrained, adapted", "run": "pixel_nn"}]},
            "two rows called 'untrained, adapted'",
        ),
    ],
)
def test_a_floor_that_cannot_be_is_refused_in_one_sentence(change, message):
    asked = content(**change)
    asked["experiments"]["e"]["methods"]["pixel_nn"] = {}
    with pytest.raises(UserError, match=message) as caught:
        planned(asked)
    assert str(caught.value).count(". ") == 0


def test_a_method_of_the_name_of_a_floor_is_refused():
    asked = content()
    asked["experiments"]["e"]["methods"]["maml_untrained"] = {"method": "boil"}
    with pytest.raises(UserError, match="has a method called 'maml_untrained' already; rename"):
        planned(asked)


def raised(table, label):
    """The differences of a row to its untrained network, by column and whether on one split."""
    return {
        (one.column, one.fixed): one.difference for one in table.raises if one.row.label == label
    }


def test_trained_minus_untrained_is_paired_by_seed_and_has_a_block_of_its_own(tmp_path):
    plan = planned(content())
    store = finish(plan, tmp_path, LEVEL, seed_sd=3.0)
    table = build(plan, store, "table1")
    maml, floor = (table.rows[i].cells[Column(1)] for i in (0, 3))
    d = np.array([maml.values[s] - floor.values[s] for s in range(6)])
    half = scipy_stats.t.ppf(0.975, 5) * d.std(ddof=1) / np.sqrt(6)
    block = grids.grids(table)[-1]
    assert block.heading == "Trained minus untrained (points), with 95 % t intervals over seeds"
    assert block.header == ["", "1-shot", "5-shot"]
    assert [row[0] for row in block.rows] == ["MAML", "MAML + CML", "MAML + CML†"]
    assert block.rows[0][1].startswith(f"+{d.mean():.2f} ± {half:.2f} (")
    assert (
        f"detectable {raised(table, 'MAML')[Column(1), False].detectable:.2f}" in block.rows[0][1]
    )
    assert not any("does not show" in note for note in table.notes)
    page = grids.raise_grid(table)
    assert page.header[:2] == ["method", "where"]
    assert [row[:2] for row in page.rows[:2]] == [["MAML", "1-shot"], ["MAML", "5-shot"]]
    assert page.rows[0][2] == f"+{d.mean():.2f}"
    assert [row[-1] for row in page.rows] == ["gain"] * 4 + ["another head: not tested"] * 2


def test_the_meta_learners_differences_to_untrained_networks_are_a_family(tmp_path):
    plan = planned(content())
    table = build(plan, finish(plan, tmp_path, LEVEL, seed_sd=3.0), "table1")
    own = [*raised(table, "MAML").values(), *raised(table, "MAML + CML").values()]
    want = stats.holm([d.paired.p for d in own], 4)
    assert [d.holm_p for d in own] == pytest.approx(want)
    assert {d.family for d in own} == {4}
    assert min(want) == 4 * min(d.paired.p for d in own)
    assert all(np.isnan(d.holm_p) for d in raised(table, "MAML + CML†").values())
    assert "p = " not in grids.grids(table)[-1].rows[2][1], "another head is read"


def test_fewer_than_five_seeds_are_shown_and_not_tested(tmp_path):
    plan = planned(content(seeds=4))
    table = build(plan, finish(plan, tmp_path, LEVEL), "table1")
    block = grids.grids(table)[-1]
    assert block.rows[0][0] == "MAML (n = 4: shown, not tested)"
    assert "p = " not in block.rows[0][1]
    assert " ± " in block.rows[0][1]


@pytest.mark.parametrize(
    ("untrained", "said"),
    [
        (60.0, "Meta-training itself does not show where it is undecided: MAML at 1-shot; MAML at"),
        (70.0, "The untrained network is better where it is a loss: MAML at 1-shot; MAML at 5-sh"),
    ],
)
def test_the_notes_say_where_meta_training_does_not_show(untrained, said, tmp_path):
    plan = planned(content())
    store = finish(plan, tmp_path, LEVEL | {"untrained": untrained})
    (note,) = [n for n in build(plan, store, "table1").notes if said in n]
    assert "CML†" not in note, "another head is read"


def test_a_family_is_that_of_the_whole_table(tmp_path):
    plan = planned(content())
    store = finish(plan, tmp_path, LEVEL, seed_sd=3.0)
    part = build(targets.restrict(plan, "table1_1shot"), store, "table1_1shot")
    whole = raised(build(plan, store, "table1"), "MAML")[Column(1), False]
    own = raised(part, "MAML")[Column(1), False]
    assert own.family == whole.family == 4
    assert own.detectable == whole.detectable


def test_a_floor_changes_neither_stars_nor_bold(tmp_path):
    """Even where it is the best of its column, or is not made yet."""
    without = content()
    del without["tables"]["table1"]["untrained"]
    want = build(planned(without), finish(planned(without), tmp_path / "0", LEVEL), "table1")
    for name, only in (("1", None), ("2", lambda spec: spec.steps)):
        plan, folder = planned(content()), tmp_path / name
        store = finish(plan, folder, LEVEL | {"untrained": 90.0}, only=only)
        for run in planned(without).runs:  # the same trained results
            for file in ("episodes.npz", "record.json"):
                here = tmp_path / "0" / "runs" / run.folder / file
                (store.folder(run.spec) / file).write_bytes(here.read_bytes())
        table = build(plan, store, "table1")
        for mine, other in zip(table.rows, want.rows, strict=False):
            for column in want.columns:
                assert mine.cells[column].bold == other.cells[column].bold
                if other.cells[column].difference:
                    assert (
                        mine.cells[column].difference.holm_p
                        == other.cells[column].difference.holm_p
                    )
        assert any(cell.bold for _, _, cell in table.cells())
        assert not any(cell.bold for cell in table.rows[3].cells.values())
    assert "untrained, adapted at 1-shot (6)" in "".join(table.notes), "what is missing is named"


def test_the_line_on_one_class_split_has_its_floor_too(tmp_path):
    plan = planned(graphs())
    table = build(plan, finish_graphs(plan, tmp_path), "table3")
    found = raised(table, "G-Meta")
    assert {key[1]: d.paired.n for key, d in found.items()} == {False: 2, True: 5}
    assert [row[0] for row in grids.grids(table)[-1].rows] == [
        "G-Meta (n = 2: shown, not tested)",
        "G-Meta, one split",
        "AMM-GNN (n = 3: shown, not tested)",
        "AMM-GNN, one split (n = 2: shown, not tested)",
    ]
    assert any("as are those on one split" in note for note in table.notes)


def finish_graphs(plan, folder):
    """Results of graph runs: these differ by 20 points from the untrained ones."""
    level = {"untrained": 50.0, "base": 70.0, "meta": 70.0, "co": 70.0}
    store = finish(plan, folder, level)
    for run in plan.runs:  # the helper writes results after one inner step
        path = store.folder(run.spec) / "episodes.npz"
        with np.load(path) as arrays:
            values = arrays["meta@1"]
        np.savez(path, **{"meta@20": values})
    return store


def test_an_untrained_network_that_reaches_the_papers_number_is_told(tmp_path):
    asked, published = content(paper="t9"), tmp_path / "published.yaml"
    published.write_text(yaml.safe_dump(PAPER))
    plan = planned({**asked, "published": str(published)})
    store = finish(plan, tmp_path, LEVEL | {"untrained": 55.0}, seed_sd=0.1)
    (note,) = [n for n in build(plan, store, "table1").notes if "reach the paper" in n]
    assert "MAML at 1-shot (5" in note
    assert "and 50.10)" in note
    assert "58.00" not in note, "the paper's 5-shot number is above"


def test_a_row_is_read_against_its_own_network_or_its_baselines():
    rows = [
        {"label": "MAML", "run": "maml"},
        {"label": "CML", "run": "maml+cml", "against": "maml"},
        {"label": "More", "run": "more_maml", "against": "maml"},
        {"label": "More + CML", "run": "more_maml+cml", "against": "more_maml"},
        {"label": "BOIL", "run": "boil"},
    ]
    asked = content(rows=rows)
    methods = ["maml", "maml+cml", "more_maml", "more_maml+cml", "boil"]
    asked["experiments"]["e"]["methods"] = {name: {} for name in methods}
    for names, want in (
        (["maml"], ["maml"] * 4 + [None]),
        (["maml", "more_maml"], ["maml", "maml", "more_maml", "more_maml", None]),
    ):
        asked["tables"]["table1"]["untrained"] = names
        table = config.parse(asked, "x").tables["table1"]
        assert [floor_of(table, row) for row in table.rows[:5]] == want


def test_a_table_of_costs_says_that_an_untrained_network_costs_no_training(tmp_path):
    plan = planned(content(kind="cost"))
    table = build(plan, finish(plan, tmp_path, LEVEL), "table1")
    lines = {row[0]: row[-2:] for row in grids.grids(table)[0].rows}
    assert lines["untrained, adapted"][0] == "0.00×"
    assert lines["MAML + CML"] == ["1.20×", "1.30×"]


def test_where_less_is_better_a_larger_error_is_worse(tmp_path):
    asked = content(kind="regression")
    steps = {"tasks": 50, "query": 5, "inner_steps": [0, 1]}
    sinusoid = {"data": "sinusoid", "network": "mlp", "way": 1, "evaluation": steps}
    asked["experiments"]["e"] = experiment(50, **sinusoid)
    plan = planned(asked)
    level = {"untrained": 2.0, "base": 4.0, "meta": 4.0, "co": 4.0}
    table = build(plan, finish(plan, tmp_path, level, seed_sd=0.1), "table1")
    (note,) = [n for n in table.notes if n.startswith("The untrained network is better")]
    assert "MAML at 1-shot" in note
    assert [row[:2] for row in grids.grids(table)[-1].rows[:2]] == [
        ["1-shot", "MAML"],
        ["1-shot", "MAML + CML"],
    ]


def test_of_rows_with_one_label_the_shown_one_is_set_beside_the_paper(tmp_path):
    """Table 4 compares CML with MAML, More-MAML and CL; each of these has its own floor."""
    asked, published = content(paper="t9", untrained=["maml", "boil"]), tmp_path / "published.yaml"
    asked["experiments"]["e"]["methods"]["boil"] = {}
    hidden = {"label": "MAML + CML", "run": "maml+cml", "against": "boil", "shown": False}
    asked["tables"]["table1"]["rows"] = [*ROWS, {"label": "BOIL", "run": "boil"}, hidden]
    published.write_text(yaml.safe_dump(PAPER))
    plan = planned({**asked, "published": str(published)})
    other = set(plan.members["e"]["boil_untrained"][1])
    store = finish(plan, tmp_path, LEVEL | {"untrained": 90.0}, only=lambda s: s.id not in other)
    (note,) = [n for n in build(plan, store, "table1").notes if "reach the paper" in n]
    assert "MAML + CML at 1-shot" in note


@pytest.mark.parametrize(
    "path",
    [
        "paper.yaml",
        "graphs.yaml",
        "omniglot_study.yaml",
        "omniglot_methods.yaml",
        "omniglot_more_methods.yaml",
        "omniglot_normalisation.yaml",
    ],
)
def test_every_table_of_accuracies_has_its_floors(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = config.read(Path("configs") / path)
    tables = {key: t for key, t in study.tables.items() if t.kind in (*LIKE_TABLES, "normalised")}
    assert tables
    for key, table in tables.items():
        floors = {f"{method}_untrained" for method in table.untrained}
        bare = [r.label for r in table.rows if r.run not in floors and not floor_of(table, r)]
        assert not bare, f"{key}: {bare}"
