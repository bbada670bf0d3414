"""configs/paper.yaml: runs of the whole grid, parts by name, and the published numbers."""

import json
import re
from pathlib import Path

import pytest
import yaml

from cml_bench.errors import UserError
from cml_bench.evidence import paper
from cml_bench.evidence.build import build
from cml_bench.report import grids
from cml_bench.study import config, cost, targets
from cml_bench.study.resolve import resolve
from tests.helpers.plans import with_tasks
from tests.helpers.simulated import finish

ROOT = Path(__file__).parent.parent
TABLES = sorted((ROOT / "configs" / "tables").glob("*.yaml"))
RUNS = {
    "table1": 140,
    "table2": 120,
    "table4": 70,
    "table5": 60,
    "table7": 60,
    "table8": 35,
    "table9": 90,
}


def resolved(changes=(), path="configs/paper.yaml"):
    content = config.included(yaml.safe_load(Path(path).read_text()), path)
    return resolve(config.parse({**content, **dict(changes)}, path), path)


@pytest.fixture(scope="module")
def grid():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield resolved()


def cells(plan, table, row, reading=None):
    """Columns and shot -> run ids of a row."""
    return {
        (c.columns, c.shot): c.runs
        for c in plan.cells
        if c.table == table and c.row == row and reading in (None, c.reading)
    }


def test_every_image_table_is_there_with_five_seeds(grid):
    counts = {key: len(ids) for key, ids in cost.runs_by_table(grid).items()}
    assert RUNS.items() <= counts.items()
    assert all(len(cell.runs) == 5 for cell in grid.cells if not cell.table.startswith("table3"))
    assert len(grid.runs) == len({run.id for run in grid.runs})
    assert {item.name for item in grid.data} >= {
        "miniimagenet",
        "omniglot",
        "cifar_fs",
        "fc100",
        "vgg_flower",
        "sinusoid",
    }


def test_equal_runs_of_several_tables_are_one(grid):
    one = cells(grid, "table1", "MAML + CML")
    assert one == cells(grid, "table4", "CML") == cells(grid, "table5", "γ = 1.0")
    assert cells(grid, "table8", "CML")["Conv(2)", 1] == one["", 1]
    assert (
        cells(grid, "table7", "Conv(0), meta-learner")["", 1]
        == cells(grid, "table8", "CML")["Conv(0)", 1]
    )
    base = cells(grid, "table1", "MAML")
    assert base == cells(grid, "table4", "MAML") == cells(grid, "table7", "MAML, Conv(0)")
    assert all(cells(grid, "table8", "MAML")[f"Conv({k})", 1] == base["", 1] for k in range(5))


def test_mamlpp_and_sharp_maml_stand_beside_a_maml_of_their_inner_steps(grid):
    five = [grid.specs[i] for i in cells(grid, "table1", "MAML, five inner steps")["", 1]]
    assert len(five) == 5
    sharp = grid.specs[cells(grid, "table1", "Sharp-MAML")["", 1][0]]
    plusplus = grid.specs[cells(grid, "table1", "MAML++")["", 1][0]]
    for spec in (*five, sharp, plusplus):
        assert (spec.inner_steps, spec.inner_rate) == (5, 0.1)
    assert {spec.options["adapt_norm"] for spec in five} == {False}
    one = grid.specs[cells(grid, "table1", "MAML")["", 1][0]]
    assert (five[0].protocol, five[0].steps) == (one.protocol, one.steps), "MAML's own recipe"


def test_the_grid_has_figures_3_and_4_on_the_papers_data(grid):
    parts = ("a", "b", "c", "c_head", "d")
    assert set(grid.figures) == {"figure2", *(f"figure3{part}" for part in parts), "figure4"}
    runs = grid.members["mini_figures"]
    drawn = [grid.specs[i] for of in runs.values() for i in of[5]]
    assert all(of.keys() == {5} for of in runs.values())
    assert {(spec.data.name, spec.way, spec.steps) for spec in drawn} == {
        ("miniimagenet", 5, 30_000)
    }
    of_tables = {i for ids in cost.runs_by_table(grid).values() for i in ids}
    new = [spec for spec in drawn if spec.id not in of_tables]
    assert len(new) == 5
    assert all(spec.frozen for spec in new), "the other lines are runs of Tables 1 and 4"
    lines = [row.run for row in grid.figures["figure3a"].runs]
    assert "frozen" in lines
    assert "maml+cml" in lines


def test_image_runs_are_official_and_name_their_gamma(grid):
    image = [run for run in grid.runs if run.gpu]
    deviations = {key for run in image for key in run.deviates}
    assert deviations == {
        *("level", "cml.gamma", "cml.depth", "cml.frozen", "network.head_blocks"),
        *("inner_steps", "inner_lr", "adapt_norm"),
    }, "what makes rows of the tables and lines of the figures"
    assert all(run.gamma_named for run in image)
    steps = {
        run.spec.method.removesuffix("+cml"): run.spec.steps for run in image if run.spec.steps
    }
    assert (steps["maml"], steps["mamlpp"], steps["sharp_maml"]) == (30_000, 50_000, 60_000)
    resnet = next(run.spec for run in image if run.spec.network.name == "resnet12")
    assert (resnet.options["inner_lr"], resnet.protocol.outer_lr) == (0.3, 6e-4)


def test_seeds_and_protocol_are_settable(monkeypatch):
    monkeypatch.chdir(ROOT)
    changed = resolved({"seeds": 3, "protocol": "matched"})
    assert {run.spec.seed for run in changed.runs} == {0, 1, 2}
    assert {len(cell.runs) for cell in changed.cells if not cell.table.startswith("table3")} == {3}
    image = [run.spec for run in changed.runs if run.spec.data.name == "miniimagenet"]
    assert {spec.steps for spec in image} == {0, 30_000}
    assert {spec.protocol.selection for spec in image} == {"joint"}
    clean = resolved({"seeds": 1, "protocol": "clean"})
    assert {run.spec.protocol.selection for run in clean.runs if run.gpu} == {"joint"}
    with pytest.raises(UserError, match="unknown protocol preset 'offical'"):
        resolved({"protocol": "offical"})


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_each_table_is_a_study_of_its_own_with_the_same_runs(path, grid, monkeypatch):
    monkeypatch.chdir(ROOT)
    alone = resolved(path=str(path))
    assert {run.id for run in alone.runs} <= {run.id for run in grid.runs}
    assert set(alone.tables) <= set(grid.tables)


def test_parts_of_tables_by_name(grid):
    names, groups = targets.parts(grid), targets.groups(grid)
    assert {"table1", "table1_n3", "table2_cifar_fs", "table2_cifar_fs_n1", "table9_fc100"} <= set(
        names
    )
    assert targets.expand(grid, ["n5", "table1"])[-1] == "table1"
    assert set(targets.expand(grid, ["cifar_fs"])) == {"table2_cifar_fs", "table9_cifar_fs"}
    assert targets.expand(grid, []) == list(grid.tables)
    assert set(groups["cifar_fs"]) == {"table2_cifar_fs", "table9_cifar_fs"}
    assert "table1" in groups["miniimagenet"]
    assert "table1_n3" in groups["n3"]
    assert targets.expand(grid, ["sinusoid_n3"]) == ["sinusoid_n3"], (
        "the table's part, not all of the data set's"
    )
    three = targets.restrict(grid, "table1_n3")
    assert {len(cell.runs) for cell in three.cells} == {3}
    assert len({i for cell in three.cells for i in cell.runs}) == 84
    part = targets.restrict(grid, "table2_fc100")
    assert {cell.columns for cell in part.cells} == {"FC100"}
    assert part.tables["table2_fc100"].title.endswith("(Table 2) (fc100)")
    shot = targets.restrict(grid, "table2_cifar_fs_1shot_n3")
    assert {(cell.columns, cell.shot, len(cell.runs)) for cell in shot.cells} == {
        ("CIFAR-FS", 1, 3)
    }
    title, whole = (
        shot.tables["table2_cifar_fs_1shot_n3"].title,
        shot.tables["table2_cifar_fs_1shot_n3"].whole_columns,
    )
    assert title.endswith("(Table 2) (cifar_fs, 1-shot, the first 3 seeds)")
    assert whole == 8, "one of its eight columns: Holm's family is that of the whole table"
    assert targets.groups(grid)["fc100_5shot_n2"] == [
        "table2_fc100_5shot_n2",
        "table9_fc100_5shot_n2",
    ]
    with pytest.raises(UserError, match=r"unknown table 'table1_n9'.*Parts of them are"):
        targets.restrict(grid, "table1_n9")


def test_every_published_row_and_column_has_a_cell(grid):
    source = paper.read(ROOT / "configs" / "reference" / "paper.yaml")
    for key, table in grid.tables.items():
        if not table.paper:
            continue
        mine = {
            (c.row, f"{c.columns}, {c.shot}-shot".removeprefix(", "))
            for c in grid.cells
            if c.table == key
        }
        theirs = {
            (row.label, place) for row in source.tables[table.paper].rows for place in row.values
        }
        assert theirs <= mine, f"{key}: {theirs - mine}"
    assert {table.paper for table in grid.tables.values()} >= set(RUNS)


def test_the_published_numbers_agree_with_each_other():
    """The paper prints some numbers several times, and its text states gains computed from them."""
    tables = paper.read(ROOT / "configs" / "reference" / "paper.yaml").tables
    rows = {key: {row.label: row.values for row in table.rows} for key, table in tables.items()}
    one = rows["table1"]
    assert rows["table4"]["CML"] == one["MAML + CML"]
    assert rows["table4"]["CML†"] == one["MAML + CML†"]
    assert rows["table4"]["MAML"] == one["MAML"]
    assert rows["table5"]["γ = 1.0"] == {k: v[0] for k, v in one["MAML + CML"].items()}
    assert rows["table8"]["CML"]["Conv(2), 1-shot"] == one["MAML + CML"]["1-shot"]
    assert (
        rows["table8"]["CML"]["Conv(0), 1-shot"]
        == rows["table7"]["Conv(0), meta-learner"]["1-shot"]
    )
    gains = {
        (a, shot): round(one[a][shot][0] - one[a.split(" + ")[0]][shot][0], 2)
        for a in one
        if " + " in a
        for shot in ("1-shot", "5-shot")
    }
    want = [  # 1-shot and 5-shot of each row with a co-learner
        1.88, 4.09,
        2.91, 4.68,
        0.31, 1.76,
        0.71, 2.37,
        0.43, 0.46,
        1.22, 1.05,
        0.50, 1.27,
        0.64, 1.43,
    ]  # fmt: skip
    assert list(gains.values()) == want
    assert {
        row.copied != ""
        for row in tables["table1"].rows
        if "CML" not in row.label and "Sharp" not in row.label
    } == {True}
    assert len(tables["table1"].rows) == 12


def assumptions(plan, key):
    """Row and columns of a published table -> what the configuration had to assume there."""
    path = ROOT / "configs" / "reference" / "paper.yaml"
    source = paper.read(path).table(plan.tables[key].paper, str(path))
    rows, found = {row.label: row for row in source.rows}, {}
    for cell in plan.cells:
        if cell.table == key and cell.row in rows:
            spec = plan.specs[cell.runs[0]]
            structure = {**source.structures.get(cell.columns, {}), **rows[cell.row].structure}
            found[cell.row, cell.columns] = {
                item.what for item in source.not_stated if item.applies(spec, structure)
            }
    return found


def test_what_the_paper_leaves_open_is_known_of_each_row(grid):
    one = {row: what for (row, _), what in assumptions(grid, "table1").items()}
    assert {row for row, what in one.items() if not what} == {
        *("MAML", "MAML + CML", "MAML + CML†", "MAML++", "BOIL")
    }
    assert one["BOIL + CML"] == one["MAML++ + CML†"] == {"γ"}
    assert one["Sharp-MAML"] == {"Sharp-MAML's level"}
    assert one["Sharp-MAML + CML"] == {"Sharp-MAML's level", "γ"}
    two = assumptions(grid, "table2")
    drawn = "Omniglot's rotations and inversion"
    assert two["MAML", "Omniglot"] == {drawn}
    assert two["CML", "Omniglot"] == {drawn, "γ"}
    assert two["MAML", "CIFAR-FS"] == set()
    three = assumptions(grid, "table3")
    assert three["G-Meta", "CiteSeer"] == set()
    assert three["AMM-GNN + CML", "CoraFull"] == {"the layer type of the co-learner"}
    assert all(not what for what in assumptions(grid, "table5").values())
    assert all(not what for what in assumptions(grid, "table7").values())
    depths = assumptions(grid, "table8")
    assert {columns for (_, columns), what in depths.items() if what} == {
        *("Conv(1)", "Conv(3)", "Conv(4)")
    }
    nine = "ResNet-12's recipe and co-learner"
    assert all(nine in what for what in assumptions(grid, "table9").values())
    every = [
        what
        for key, table in grid.tables.items()
        if table.paper
        for what in assumptions(grid, key).values()
    ]
    listed = paper.read(ROOT / "configs" / "reference" / "paper.yaml").not_stated
    assert {item.what for item in listed} == set().union(*every), "each applies somewhere"
    paper.check(grid)


@pytest.mark.parametrize("key", ["table5", "table8"])
def test_finished_official_runs_of_the_grid_get_verdicts(key, monkeypatch, tmp_path):
    """The paper's numbers are held against runs with the settings of the shipped configuration."""
    monkeypatch.chdir(ROOT)
    study = with_tasks(resolved(path=f"configs/tables/{key}.yaml"), 50)
    store = finish(study, tmp_path, {"base": 47.4, "meta": 49.3, "co": 50.3}, seed_sd=0.1)
    table = build(study, store, key)
    verdicts = {line.level.verdict if line.level else line.reason for line in table.beside}
    pools = "setting not stated in the paper: where a co-learner of this depth pools"
    assert verdicts - {"reproduced", "differs", "cannot tell"} == ({pools} & verdicts)
    assert (pools in verdicts) is (key == "table8")
    assert not any(line.gain_reason for line in table.beside), "each gain has its verdict"


def test_files_that_are_included_are_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = {"study": "a", "experiments": {"e": {}}, "tables": {}}
    Path("a.yaml").write_text(yaml.safe_dump(part))
    assert config.included({"study": "b", "include": "a.yaml"}, "b")["experiments"] == {"e": {}}
    for listed, message in (
        (["no.yaml"], "there is no configuration file no.yaml"),
        ([3], "include lists configuration files"),
        (["a.yaml", "a.yaml"], re.escape("experiments has 'e' already")),
    ):
        with pytest.raises(UserError, match=message):
            config.included({"study": "b", "include": listed}, "b.yaml")


def test_tables_over_several_experiments_are_checked():
    base = yaml.safe_load((ROOT / "configs" / "tables" / "table2.yaml").read_text())
    for change, message in (
        (
            lambda t: t["columns"][0].pop("title") and t["columns"][1].pop("title"),
            "give each a title of its own",
        ),
        (
            lambda t: t["columns"][0].update(shots=[2]),
            r"shows 2 shots, and the experiment 'omniglot' has: 1, 5",
        ),
        (lambda t: t.update(kind="regression"), "has columns of one experiment"),
        (lambda t: t["columns"][0].update(experiment="no"), "names the experiment 'no'"),
    ):
        content = json.loads(json.dumps(base))
        change(content["tables"]["table2"])
        with pytest.raises(UserError, match=message):
            config.parse(content, "x")


def test_the_pages_show_what_the_grid_costs(grid):
    """The committed output of `plan` (make plan) fits this grid and stands in docs/hardware.md."""
    text = (ROOT / "results" / "reference" / "paper_plan.txt").read_text().strip()
    assert f"```text\n{text}\n```\n<!-- plan:end -->" in (ROOT / "docs" / "hardware.md").read_text()
    shared, counts = cost.shared_runs(grid), cost.runs_by_table(grid)
    for key, ids in counts.items():
        match = re.search(rf"^{key} +(\d+) +(\d+) ", text, flags=re.MULTILINE)
        assert match, f"{key}: make plan"
        assert (int(match[1]), int(match[2])) == (len(ids), len(ids & shared)), f"{key}: make plan"


def test_rows_for_comparison_alone_stand_among_the_differences(grid, monkeypatch, tmp_path):
    """Table 4 compares CML with MAML, More-MAML and CL⋆: six differences of one family.

    CML's own row is shown once.
    """
    monkeypatch.chdir(ROOT)
    study = with_tasks(resolved(path="configs/tables/table4.yaml"), 30)
    table = build(
        study,
        finish(study, tmp_path, {"base": 47.4, "meta": 49.3, "co": 50.3}, seed_sd=0.1),
        "table4",
    )
    main, differences, *_ = grids.grids(table)
    assert [row[0] for row in main.rows].count("CML") == 1
    rows = [row[0] for row in differences.rows]
    assert [row.partition(" (")[0] for row in rows] == [
        "CML − MAML",
        "CML − More-MAML",
        "CML − CL⋆",
        "CML† − MAML",
    ]
    ours = [cell.difference for row, _, cell in table.cells() if row.label == "CML"]
    assert len(ours) == 6
    assert min(d.holm_p / d.paired.p for d in ours) >= 1
    assert max(d.holm_p / d.paired.p for d in ours) == pytest.approx(6), (
        "the smallest p counts six times"
    )


def test_configuration_files_are_joined_as_by_snakemake(tmp_path):
    (tmp_path / "a.yaml").write_text("study: a\nseeds: 5\nsources: {omniglot: {x: 1}}\n")
    (tmp_path / "b.yaml").write_text("seeds: 3\nsources: {omniglot: {y: 2}, glyphs: {}}\n")
    joined = config.merged([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert joined == {
        "study": "a",
        "seeds": 3,
        "sources": {"omniglot": {"x": 1, "y": 2}, "glyphs": {}},
    }
