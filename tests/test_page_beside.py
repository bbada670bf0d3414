"""The part of a page that sets a table beside the paper's."""

import re

import vl_convert

from cml_bench.evidence.build import build
from cml_bench.records import Store
from cml_bench.report import beside, charts, forest
from tests.helpers import beside_paper
from tests.helpers.pages import specs_in, written
from tests.helpers.simulated import finish


def test_gains_stand_before_levels_and_rows_without_runs_apart(tmp_path):
    resolved = beside_paper.study(tmp_path)
    root = tmp_path / "r"
    finish(resolved, root, beside_paper.LEVEL, 0.3, only=lambda spec: spec.shot == 1)
    section = beside.section(build(resolved, Store(root), "beside"))
    assert section["made"].header[:4] == ["method", "where", "gain [95 %]", "paper's gain"]
    assert [row[:2] for row in section["made"].rows] == [
        ["MAML", "1-shot"],
        ["MAML + CML", "1-shot"],
        ["MAML + CML†", "1-shot"],
    ]
    assert section["waiting"].rows == [
        ["MAML", "5-shot", "58.00 (c)", "–"],
        ["MAML + CML", "5-shot", "63.00", "+5.00"],
    ]
    html = written(resolved, root)
    waiting = re.search(r"<details><summary>2 rows .*?</details>", html, flags=re.DOTALL)[0]
    assert 'id="waiting-beside"' in waiting
    assert 'id="paper-beside"' not in waiting
    assert "gains-beside-beside" in specs_in(html)


def test_our_gain_and_the_papers_are_on_one_line(tmp_path):
    resolved = beside_paper.study(tmp_path)
    store = finish(resolved, tmp_path / "r", beside_paper.LEVEL, 0.3)
    table = build(resolved, store, "beside")
    spec = forest.beside_paper(table)
    values = {value["line"]: value for value in spec["data"]["values"]}
    assert list(values) == ["MAML + CML\n1-shot", "MAML + CML\n5-shot", "MAML + CML†\n1-shot"]
    one = values["MAML + CML\n1-shot"]
    assert one["theirs"] == 4.8
    assert one["low"] < one["value"] < one["high"]
    assert one["outcome"] == "gain"
    assert values["MAML + CML†\n1-shot"]["outcome"] == "not tested", "it is not comparable"
    x = next(layer["encoding"]["x"] for layer in spec["layer"] if "low" in str(layer))
    low, high = x["scale"]["domain"]
    assert all(low < value["theirs"] < high for value in values.values())
    told = spec["layer"][0]["encoding"]["tooltip"]
    assert "paper's gain" in {one["title"] for one in told}
    assert all(re.fullmatch(r"[\w ]+", one["field"]) for one in told), "quotes end a Vega path"
    drawn = vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)
    assert drawn.count("MAML + CML") >= 3


def test_a_row_without_any_run_has_no_chart(tmp_path):
    table = build(beside_paper.study(tmp_path), Store(tmp_path / "r"), "beside")
    assert forest.beside_paper(table) is None
    assert beside.section(table)["made"].rows == []
