"""What a planned study can detect, said by ``plan``."""

import numpy as np
import pytest

from cml_bench.__main__ import main
from cml_bench.errors import UserError
from cml_bench.evidence import power, stats
from cml_bench.evidence.build import build
from cml_bench.report import write
from tests.helpers import beside_paper
from tests.helpers.plans import edited
from tests.helpers.simulated import finish, study

GAIN = {"base": 50.0, "meta": 55.0, "co": 56.0}


def block(text: str, place: int) -> list[list[str]]:
    """The cells of a table in the text, by two or more spaces between them."""
    lines = text.split("\n\n")[2 * place + 1].splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[2:]]


def test_a_given_spread_says_what_each_family_detects():
    rows = block(power.told(study(seeds=6), power.given(1.5)), 0)
    effect = stats.detectable(6, 2)
    want = ["2", "6", f"{effect:.2f}", f"{1.5 * effect:.3g}"]
    assert rows == [["table1", "meta-learner", *want], ["table1", "co-learner", *want]]


def test_below_five_seeds_and_without_a_spread_nothing_is_promised():
    assert block(power.told(study(seeds=3), power.given(1.5)), 0)[0][3:] == ["3", "–", "–"]
    rows = block(power.told(study(5, "regression"), power.given(1.5)), 0)
    assert rows[0][2:] == ["4", "5", f"{stats.detectable(5, 4):.2f}", "–"], (
        "points are of no use for squared errors"
    )


def test_the_papers_gains_need_so_many_seeds(tmp_path):
    rows = block(power.told(beside_paper.study(tmp_path, seeds=6), power.given(2.0)), 1)
    needed = {(row[1], row[2]): row[3:] for row in rows}
    detected = f"{2 * stats.detectable(6, 2):.3g}"
    assert needed == {
        ("MAML + CML − MAML", "1-shot"): ["6", detected, "+4.80", _seeds(4.8)],
        ("MAML + CML − MAML", "5-shot"): ["6", detected, "+5.00", _seeds(5.0)],
        ("MAML + CML† − MAML", "1-shot"): ["6", detected, "−0.10", "more than 1000"],
    }


def _seeds(gain: float) -> str:
    return str(stats.seeds_needed(gain / 2.0, 1000, family=2))


def test_a_finished_study_gives_its_own_spreads_and_their_median_elsewhere(tmp_path):
    resolved = study(seeds=6)
    store = finish(resolved, tmp_path, GAIN)
    write.tables(resolved, tmp_path, [])
    cells = build(resolved, store, "table1").rows[1].cells
    own = [cell.difference.per_seed.std(ddof=1) for cell in cells.values()]
    spreads = power.of_study(tmp_path / "simulated")
    effect = stats.detectable(6, 2)
    low, high = (f"{effect * sd:.3g}" for sd in sorted(own))
    same = block(power.told(resolved, spreads), 0)
    assert same[0] == ["table1", "meta-learner", "2", "6", f"{effect:.2f}", f"{low} to {high}"]
    other = block(power.told(beside_paper.study(tmp_path / "other"), spreads), 0)
    assert other[0][-1] == f"{effect * np.median(own):.3g}"
    assert other[1][-1] != other[0][-1], "the co-learner's differences vary by another amount"


def test_spreads_of_errors_are_those_of_the_same_shot_and_steps(tmp_path):
    resolved = study(6, "regression")
    store = finish(resolved, tmp_path, {"base": 4.0, "meta": 3.0, "co": 5.0}, seed_sd=0.1)
    write.tables(resolved, tmp_path, [])
    spreads = power.of_study(tmp_path / "simulated")
    table = build(resolved, store, "table1")
    for row, column, d in table.differences():
        assert spreads.of(table, row, column) == pytest.approx(d.per_seed.std(ddof=1))
    other = edited(resolved, lambda plan: plan["tables"].update(t=plan["tables"].pop("table1")))
    assert block(power.told(other, spreads), 0)[0][-1] == "–"


def test_a_folder_without_tables_or_spreads_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no tables/\*\.csv in it\. Name the folder of a"):
        power.of_study(tmp_path)
    resolved = study(seeds=1)
    finish(resolved, tmp_path, GAIN)
    write.tables(resolved, tmp_path, [])
    with pytest.raises(UserError, match="no difference of two or more runs"):
        power.of_study(tmp_path / "simulated")
    path = tmp_path / "simulated" / "tables" / "table1.csv"
    path.write_text(path.read_text().replace("table1,MAML,meta,1", "table1,MAML,meta,one"))
    with pytest.raises(UserError, match=r"table1\.csv, line 2, is damaged .*make the tables anew"):
        power.of_study(tmp_path / "simulated")
    path.write_text(path.read_text().replace(",pairs,", ",n,"))
    with pytest.raises(UserError, match=r"table1\.csv has no column 'pairs': make the tables anew"):
        power.of_study(tmp_path / "simulated")


# -- the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spread", "0"], "'0' is no number above 0"),
        (["--spread", "nan"], "'nan' is no number above 0"),
        (["--spread", "1", "--spread-from", "x"], "not allowed with argument"),
        (["--spread", "1", "--json"], "leave out --json and --out, or --spread"),
        (["--spread-from", "nowhere"], "--spread-from nowhere: there is no tables/*.csv in it."),
    ],
)
def test_a_spread_that_makes_no_sense_is_told_before_anything_is_resolved(options, message, capsys):
    try:
        code = main(["plan", "--config", "there/is/none.yaml", *options])
    except SystemExit as stop:
        code = stop.code
    assert code
    assert message in capsys.readouterr().err
