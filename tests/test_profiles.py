"""Performance profiles and probabilities of improvement, against examples computed by hand."""

import numpy as np
import pytest
import vl_convert

from cml_bench.evidence import profiles, stats
from cml_bench.evidence.build import build
from cml_bench.figures import style
from cml_bench.report import charts, overview
from tests.helpers.pages import written
from tests.helpers.simulated import finish, study

LEVEL = {"base": 50, "meta": 53, "co": 46}


def test_a_profile_by_hand():
    """Two cells, two seeds: 1, 2 and 2, 4. Above 0 are 4 of 4, above 1 are 3, above 2 is 1."""
    share, low, high = profiles.profile([[1, 2], [2, 4]], [0, 1, 1.5, 2, 4])
    assert share.tolist() == [1, 0.75, 0.75, 0.25, 0]
    assert np.isnan([*low, *high]).all(), "two seeds have no interval"


def test_a_profile_has_the_interval_of_whole_seeds():
    """All cells of a seed are alike: the share is a mean of five draws of 0 or 1, two of them 1."""
    scores = np.tile([1.0, 1.0, 1.0, 3.0, 3.0], (3, 1))
    share, low, high = profiles.profile(scores, [2.0])
    assert share.tolist() == [pytest.approx(0.4)]
    assert (low[0], high[0]) == (pytest.approx(0.0), pytest.approx(0.8))
    with pytest.raises(ValueError, match="finite"):
        profiles.profile([[1.0, float("nan")]], [0])


def test_a_probability_of_improvement_by_hand():
    """First cell: 3 beats 1 and 2, 2 beats 1 and ties with 2: 3.5 of 4. Second cell: 0 of 4."""
    whole = stats.aggregate([[3, 2], [0, 0]], [[1, 2], [5, 6]], seed=0)
    assert whole.improvement.value == (3.5 / 4 + 0) / 2


def test_a_table_of_several_columns_has_both_charts(tmp_path):
    resolved = study(seeds=5)
    table = build(resolved, finish(resolved, tmp_path, LEVEL), "table1")
    profile, improvement = overview.section(resolved, table)
    assert [line["method"] for line in profile["data"]["values"]] == [
        "MAML",
        "MAML + CML",
        "MAML + CML†",
    ]
    assert all(
        line["share"][0] == 1 and line["share"][-1] >= 0 for line in profile["data"]["values"]
    )
    colours = profile["encoding"]["color"]["scale"]["range"]
    assert colours == [style.COLOURS[0], style.COLOURS[1], style.COLOURS[1]]
    dashes = profile["encoding"]["strokeDash"]["scale"]["range"]
    assert dashes == [[1, 0], [1, 0], [6, 2]]
    assert [row["line"] for row in improvement["data"]["values"]] == [
        "MAML + CML\nover MAML",
        "MAML + CML†\nover MAML",
    ]
    assert [row["colour"] for row in improvement["data"]["values"]] == colours[1:]
    better, worse = (row["value"] for row in improvement["data"]["values"])
    assert better > 0.9
    assert worse < 0.1
    for spec in (profile, improvement):
        assert "<svg" in vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)


def test_few_seeds_and_errors_have_no_profile_or_improvement(tmp_path):
    few = study(seeds=4)
    table = build(few, finish(few, tmp_path / "few", LEVEL), "table1")
    assert overview.section(few, table) == []
    errors = study(seeds=5, kind="regression")
    table = build(errors, finish(errors, tmp_path / "errors", LEVEL), "table1")
    assert profiles.profiles(table) == []


@pytest.mark.parametrize("kind", ["accuracy", "regression"])
def test_a_page_explains_the_charts_that_it_has(tmp_path, kind):
    resolved = study(seeds=5, kind=kind)
    finish(resolved, tmp_path, LEVEL)
    html = written(resolved, tmp_path)
    assert "A probability of improvement is" in html
    assert ("A performance profile is" in html) == (kind == "accuracy")
