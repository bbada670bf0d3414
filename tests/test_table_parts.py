"""A reviewer's tables, one command each: results, paired differences, cost, test episodes."""

import csv
import re

import pytest

from cml_bench.__main__ import main
from tests.helpers.plans import dumped, edited
from tests.helpers.simulated import LEVEL, finish, study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plan file and the results of six seeds, which gain."""
    resolved, folder = study(seeds=6, tasks=400), tmp_path_factory.mktemp("parts")
    finish(resolved, folder, LEVEL)
    (folder / "plan.json").write_text(dumped(resolved))
    return folder


def printed(folder, capsys, *arguments) -> str:
    place = ["--plan", str(folder / "plan.json"), "--results", str(folder)]
    assert main(["table", "table1", *place, *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "columns", "lines"), [("results", 3, 3), ("differences", 8, 4), ("cost", 5, 3)]
)
def test_each_part_is_a_table_of_booktabs(part, columns, lines, folder, capsys):
    source = printed(folder, capsys, "--part", part, "--form", "latex")
    body = re.search(r"\\midrule\n(.*?)\n\\bottomrule", source, flags=re.DOTALL)[1].splitlines()
    assert source.count(r"\begin{tabular}") == source.count(r"\toprule") == 1
    assert len(body) == lines
    widths = {len(re.findall(r"(?<!\\)&", line)) for line in body}
    assert widths == {columns + (part == "results") - 1}
    assert rf"\label{{tab:table1-{part}}}" in source
    assert r"\caption{T \& U. " in source
    assert "@" not in source
    assert not re.search(r"[^\x00-\x7f]", source)
    assert not (folder / "simulated").exists(), "a part is printed and not written"


def test_what_each_part_says(folder, capsys):
    results = printed(folder, capsys, "--part", "results")
    assert re.search(r"MAML \+ CML +6 +\d\d\.\d\d ± \d\.\d\d \(\d\.\d\d\)", results)
    assert "Paired" not in results
    differences = printed(folder, capsys, "--part", "differences")
    assert differences.startswith("T & U: paired differences (points)\n")
    line = r"MAML \+ CML − MAML +1-shot +\+3\.\d\d +\+2\.\d\d to \+3\.\d\d \(.* gain\n"
    assert re.search(line, differences)
    cost = printed(folder, capsys, "--part", "cost", "--form", "markdown")
    assert "### T & U: parameters and cost of training" in cost.replace("&amp;", "&")
    assert re.search(r"\| MAML \+ CML +\| 1,500 +\| 1,000 +\| 1\.20× +\| 1\.30× +\|", cost)


def test_a_part_that_a_table_has_not_is_one_sentence(folder, tmp_path, capsys):
    alone = edited(
        study(seeds=2),
        lambda plan: [row.update(against=None) for row in plan["tables"]["table1"]["rows"]],
    )
    (tmp_path / "plan.json").write_text(dumped(alone))
    place = ["--plan", str(tmp_path / "plan.json"), "--results", str(folder)]
    assert main(["table", "table1", *place, "--part", "differences"]) == 2
    assert "error: table1 has no differences: no row is set `against`" in capsys.readouterr().err
    assert main(["table", *place, "--form", "latex"]) == 2
    assert "error: --form is of one part" in capsys.readouterr().err


def test_episodes_are_a_row_each(folder, tmp_path, capsys):
    assert main(["records", str(folder), "--episodes", "--csv", str(tmp_path / "e.csv")]) == 0
    with (tmp_path / "e.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 * 2 * 3 * 400, "seeds, shots, readings, test tasks"
    assert {line["episode"] for line in lines} == {*map(str, range(400))}
    assert {line["unit"] for line in lines} == {"%"}
