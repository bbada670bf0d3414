"""Paired differences as charts and pictures: colours, panels, and what lies far from the rest."""

import io
import math

import numpy as np
import pytest
import vl_convert
from PIL import Image

from cml_bench.evidence import stats
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Difference
from cml_bench.figures.outcomes import LOOKS, look
from cml_bench.records import Store
from cml_bench.report import charts, forest, page, publish, signs
from tests.helpers.pages import LEVEL, specs_in, written
from tests.helpers.plans import edited
from tests.helpers.processes import loaded
from tests.helpers.simulated import finish, study


def drawn(spec: dict) -> str:
    """A chart as SVG, drawn by the library that the page holds."""
    return vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)


def table_of(root, seeds=5, level=LEVEL, **changes):
    resolved = study(seeds=seeds)
    return build(resolved, finish(resolved, root, level, **changes), "table1")


def lines(spec: dict) -> dict[str, dict]:
    """What is drawn on each line of a panel, by the line's label in one line."""
    return {row["line"].replace("\n", ", "): row for row in spec["data"]["values"]}


def difference(value: float, half: float = 0.1, n: int = 5) -> Difference:
    return Difference(stats.Paired(value, half, 0.5, n), np.zeros(n), 1, True)


# -- outcomes


@pytest.mark.parametrize(
    ("diff", "p", "testable", "name", "colour", "shape"),
    [
        (3, 0.049, True, "gain", "#009E73", "triangle-up"),
        (-3, 0.049, True, "loss", "#D55E00", "triangle-down"),
        (3, 0.051, True, "undecided", "#767676", "diamond"),
        (-3, 0.051, True, "undecided", "#767676", "diamond"),
        (3, 1e-9, False, "not tested", "#767676", "circle"),
    ],
)
def test_the_adjusted_p_decides_colour_and_shape(diff, p, testable, name, colour, shape):
    """The interval leaves out 0 in all of these."""
    d = difference(diff)
    d.holm_p, d.testable = p, testable
    assert d.excludes_zero
    assert look(d.outcome)[:3] == (name, colour, shape)


@pytest.mark.parametrize("reason", ["n = 3: shown, not tested", "runs on different data", ""])
def test_every_reason_for_no_test_looks_untested(reason):
    assert look(reason) == LOOKS["not tested"]
    assert look(reason).colour == "#767676", "grey"


def test_outcomes_differ_by_more_than_their_colour():
    assert len({look.shape for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.sign for look in LOOKS.values()}) == len(LOOKS)


def test_the_page_has_the_colours_and_signs_of_the_charts():
    css = page._environment().get_template("page.css").render()
    for name, looks in LOOKS.items():
        assert f"--{name.replace(' ', '-')}: {looks.colour};" in css
        assert signs.mark(name) == (looks.sign, name.replace(" ", "-"))


# -- panels


def test_differences_with_and_without_the_co_learner_have_panels_of_their_own(tmp_path):
    panels = forest.panels(table_of(tmp_path))
    assert {family: list(lines(spec)) for family, spec in panels.items()} == {
        "meta": ["MAML + CML, 1-shot", "MAML + CML, 5-shot"],
        "co": ["MAML + CML†, 1-shot", "MAML + CML†, 5-shot"],
    }
    assert {row["outcome"] for row in lines(panels["meta"]).values()} == {"gain"}
    assert {row["outcome"] for row in lines(panels["co"]).values()} == {"loss"}
    svgs = {family: drawn(spec) for family, spec in panels.items()}
    for family, svg in svgs.items():
        assert svg.count('aria-roledescription="point"') == 2
        assert "currentColor" in svg
        for name in ("gain", "loss"):
            mine = (family, name) in {("meta", "gain"), ("co", "loss")}
            assert svg.count(LOOKS[name].colour) == (6 if mine else 0), (
                "two intervals, two points, fill and line of the legend"
            )


def test_a_table_without_differences_has_no_panel(tmp_path):
    empty = table_of(tmp_path, only=lambda spec: False)
    assert forest.panels(empty) == {}
    assert forest.picture([empty]) is None


def test_an_undecided_difference_is_grey_though_its_interval_leaves_out_zero(tmp_path):
    table = table_of(tmp_path, level={"base": 50, "meta": 53, "co": 54})
    for _, _, d in table.differences():
        d.holm_p = 0.06
        assert d.excludes_zero
    picture = forest.picture([table])
    svg = vl_convert.vegalite_to_svg(picture)
    assert not [look for look in LOOKS.values() if look.colour != "#767676" and look.colour in svg]
    assert {r["outcome"] for p in picture["vconcat"] for r in p["data"]["values"]} == {"undecided"}


def test_a_difference_without_spread_has_no_interval(tmp_path):
    for spec in forest.panels(table_of(tmp_path, seeds=1)).values():
        assert [row["low"] for row in spec["data"]["values"]] == [None] * 2
        assert drawn(spec).count('aria-roledescription="point"') == 2


# -- one specification


def colours(png: bytes) -> set[str]:
    """The colours of at least ten pixels of a picture, as ``#009E73``."""
    counts = Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24)
    return {"#{:02X}{:02X}{:02X}".format(*colour) for n, colour in counts if n >= 10}


def test_the_picture_has_the_panels_of_the_page(tmp_path):
    resolved = edited(
        study(seeds=5), lambda plan: plan["tables"].update(other=plan["tables"]["table1"])
    )
    finish(resolved, tmp_path, LEVEL)
    charts_of_page = specs_in(written(resolved, tmp_path))
    of_page = [spec for name, spec in charts_of_page.items() if name.startswith("forest-")]
    tables = [build(resolved, Store(tmp_path), key) for key in resolved.tables]
    views = forest.picture(tables)["vconcat"]
    panels = [view | {"width": "container"} for view in views if "title" in view]
    assert panels == of_page
    assert len(panels) == 4
    headings = [view for view in views if "title" not in view]
    assert [view["encoding"]["text"]["value"] for view in headings] == [["T & U"]] * 2
    assert len(forest.picture(tables[:1])["vconcat"]) == 2, "one table needs no title"


def test_what_is_published_is_that_picture(tmp_path):
    resolved = study(seeds=5)
    finish(resolved, tmp_path / "results", LEVEL)
    publish.publish(resolved, tmp_path / "results", tmp_path / "reference", tmp_path)
    home = tmp_path / "reference" / "simulated"
    made = charts.png(forest.picture([build(resolved, Store(home), "table1")]))
    assert (home / publish.FOREST).read_bytes() == made, "equal charts give equal bytes"
    assert {LOOKS["gain"].colour, LOOKS["loss"].colour, "#FFFFFF", "#000000"} <= colours(made)
    assert LOOKS["undecided"].colour not in colours(made)


def test_a_picture_of_untested_differences_is_grey(tmp_path):
    """As the demo's, which has three seeds."""
    made = colours(charts.png(forest.picture([table_of(tmp_path, seeds=3)])))
    assert LOOKS["not tested"].colour in made
    assert not {LOOKS["gain"].colour, LOOKS["loss"].colour} & made


def test_only_a_picture_needs_the_library_that_draws():
    code = "import cml_bench.report.publish, cml_bench.report.forest, cml_bench.report.write"
    assert not {name for name in loaded(code) if name.startswith("vl_convert")}


# -- outliers


@pytest.mark.parametrize("far", [45, -45, 1e6])
@pytest.mark.parametrize("others", [1, 2, 7])
def test_an_outlier_does_not_squeeze_the_rest(far, others):
    low, high = forest.reach([difference(far), *[difference(1)] * others])
    assert low < 0 < 1.1 < high
    assert high - low < 1.5


def test_an_axis_holds_what_is_no_outlier():
    low, high = forest.reach([difference(1), difference(-2), difference(4.9, 0.5)])
    assert low < -2.1
    assert high > 5.4
    low, high = forest.reach([difference(2, 20), *[difference(1)] * 3])
    assert 2 < high < 5, "the difference, but not all of its wide interval"
    assert forest.reach([difference(0, math.nan)] * 3) == (-1, 1)
    zeros = [difference(0, 0)] * 9
    assert forest.reach([*zeros, difference(1)])[1] > 1.1, "it stands out, but from nothing"


@pytest.mark.parametrize(("level", "side", "edge"), [(5, "left", 0), (95, "right", 1)])
def test_an_outlier_is_an_arrow_with_its_number_in_its_own_colour(tmp_path, level, side, edge):
    table = table_of(tmp_path, level={"base": 50, "meta": 51, "co": level}, seed_sd=0.2)
    for row in table.rows[2:]:  # one panel has all four
        row.reading = "meta"
    spec = forest.panels(table)["meta"]
    ends = spec["layer"][2]["encoding"]["x"]["scale"]["domain"]
    assert -5 < ends[0] < 0 < ends[1] < 5
    rows = lines(spec)
    other = {"left": "right", "right": "left"}[side]
    for label, row in rows.items():
        out = "†" in label
        assert row[f"cut {side}"] == out
        assert not row[f"cut {other}"]
        assert row[other] == ""
        assert (row["at"] == ends[edge]) == out
        assert bool(row[side]) == out
    text = rows["MAML + CML†, 1-shot"][side]
    assert text == f"{rows['MAML + CML†, 1-shot']['value']:+.2f}".replace("-", "−")
    svg = drawn(spec)
    assert f">{text}<" in svg
    name = "loss" if side == "left" else "gain"
    assert {row["outcome"] for label, row in rows.items() if "†" in label} == {name}
    marks = sum(row["outcome"] == name for row in rows.values())
    assert svg.count(f'fill="{LOOKS[name].colour}"') == marks + 2 + 1, "arrows, the legend"


def test_an_interval_that_is_cut_has_arrows_but_no_number(tmp_path):
    table = table_of(tmp_path, level={"base": 50, "meta": 51, "co": 51}, seed_sd=0.1)
    (_, _, wide), *_ = table.differences()
    wide.paired = wide.paired._replace(half=400.0)
    row = lines(forest.panels(table)["meta"])["MAML + CML, 1-shot"]
    assert row["cut left"]
    assert row["cut right"]
    assert row["left"] == row["right"] == ""
    assert row["at"] == row["value"]
