"""The words on the studies beyond the paper are those of their committed tables."""

import re

import pandas as pd
import pytest

from cml_bench import compare, load_records
from cml_bench.records import Store
from cml_bench.study import selection
from cml_bench.study.config import read
from cml_bench.study.resolve import resolve
from tests.helpers.checkouts import ROOT

REFERENCE = ROOT / "results" / "reference"


def page(name: str) -> str:
    """A page as one line."""
    return " ".join((ROOT / name).read_text("utf-8").split())


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


@pytest.fixture(scope="module")
def tuned():
    frame = pd.read_csv(REFERENCE / "omniglot_tuned" / "tables" / "tuned.csv")
    return frame.set_index("row")


def test_the_words_on_a_tuned_maml(tuned):
    words = page("docs/results.md")
    plain, selected = tuned.loc["MAML + CML"], tuned.loc["MAML + CML, tuned"]
    assert plain["p_holm"] < 0.05 < selected["p_holm"]
    ours = f"{signed(selected['diff'])} ± {selected['diff_half']:.1f}"
    assert f"it is {signed(plain['diff'])} points; with selected ones it is {ours}." in words
    assert f"Omniglot ({signed(plain['diff'])} points: 1-shot, 400 steps) shrinks" in page(
        "README.md"
    )
    assert f"MAML + CML: none is left to see, {ours} (" in page("README.md")
    upper = selected["diff"] + selected["diff_half"]
    assert f"up to {upper:.1f} points lie within the interval" in words
    co, selected = tuned.loc["MAML + CML†"], tuned.loc["MAML + CML†, tuned"]
    assert selected["p_holm"] < 0.05
    kept = f"{signed(selected['diff'])} ± {selected['diff_half']:.1f}"
    assert f"a gain remains**: {kept} instead of {signed(co['diff'])} points" in words


def test_the_words_on_the_change_are_those_of_its_test():
    """What ``test_changes.py`` finds in the records again."""
    results = page("docs/results.md")
    text = r"step sizes as published minus with selected step sizes: (\S+ ± \S+), .*? Holm (\S+?)\)"
    diff, p = re.search(rf"of MAML \+ CML over MAML shrinks.*?{text}", results).groups()
    diff, half = (f"{float(value):.1f}" for value in diff.split(" ± "))
    assert f"and holds (+{diff} ± {half}, p = {float(p):.3f} after Holm's correction)" in results


def test_the_words_on_what_tuning_gives():
    """The selected setting against the released one, paired by seeds."""
    frame = load_records(REFERENCE / "omniglot_tuned")
    rows = frame[(frame["method"] == "maml") & (frame["reading"] == "meta") & frame["mean"].notna()]
    steps = ["options.inner_lr", "protocol.outer_lr"]
    best = rows[(rows[steps] == [0.2, 0.0025]).all(axis=1)]
    released = rows[(rows[steps] == [0.5, 0.001]).all(axis=1)]
    gain = compare(best, released, steps)
    assert gain.n == 8
    assert gain.p < 0.001
    words = page("docs/results.md")
    assert f"than CML does**: {gain.diff:.1f} ± {gain.half:.1f} points" in words
    every = frame[(frame["method"] == "maml+cml") & (frame["reading"] == "meta")]
    published = every[every["mean"].notna() & (every[steps] == [0.5, 0.001]).all(axis=1)]
    above = compare(best, published, steps)
    assert above.n == 8
    assert above.p < 0.001
    told = f"{above.diff:.1f} ± {above.half:.1f} (p < 0.001; one test"
    assert f"Tuned MAML is above MAML + CML as published by {told}" in words


def test_the_words_on_the_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = resolve(read("configs/omniglot_tuned.yaml"), "configs/omniglot_tuned.yaml")
    found = selection.selections(plan, Store(REFERENCE / "omniglot_tuned"))
    scores = {
        one.sweep.method: {
            tuple(setting.values.values()): tried.mean
            for setting, tried in zip(one.sweep.settings, one.tried, strict=True)
        }
        for one in found
    }
    ahead = {key: scores["maml+cml"][key] - scores["maml"][key] for key in scores["maml"]}
    gains = [value for value in ahead.values() if value > 0]
    assert (
        f"in {len(gains)} of the {len(ahead)} settings**, by {min(gains):.1f} to"
        f" {max(gains):.1f} points"
    ) in page("docs/results.md")
    (behind,) = [key for key, value in ahead.items() if value < 0]
    assert behind == max(scores["maml"], key=scores["maml"].get)
    selected = [one.sweep.settings[one.chosen].values for one in found]
    assert [values["inner_lr"] for values in selected] == [0.2, 0.2]
    assert selected[0]["protocol.outer_lr"] == 0.0025


@pytest.fixture(scope="module")
def further():
    """The words on further methods, and the rows of their two tables by row and shot."""
    words = page("docs/results.md")
    words = words.split("## What holds of further methods")[1].split("<!--")[0]
    folder = REFERENCE / "omniglot_more_methods" / "tables"
    names = ("omniglot_more_methods", "omniglot_more_steps")
    one, steps = (
        pd.read_csv(folder / f"{name}.csv").set_index(["row", "shot"]).sort_index()
        for name in names
    )
    return words, one, steps


def difference(row: pd.Series) -> str:
    return f"{signed(row['diff'])} ± {row['diff_half']:.1f}"


def test_the_words_on_further_methods_with_cml(further):
    words, rows, _ = further
    methods = ["ANIL", "Meta-SGD", "CAVIA"]
    cells = {(m, shot): rows.loc[(f"{m} + CML", shot)] for m in methods for shot in (1, 5)}
    assert [key for key, row in cells.items() if row["p_holm"] < 0.05] == [("Meta-SGD", 1)]
    told = {key: difference(row) for key, row in cells.items()}
    assert f"gains in one of six cells**: Meta-SGD at 1-shot, {told['Meta-SGD', 1]} points" in words
    assert f"At 5-shot it is {told['Meta-SGD', 5]}." in words
    assert f"ANIL's differences are {told['ANIL', 1]} and {told['ANIL', 5]}, CAVIA's" in words
    assert f"CAVIA's {told['CAVIA', 1]} and {told['CAVIA', 5]}, and none" in words


def test_the_words_on_further_methods_with_the_co_learner_at_test(further):
    words, rows, _ = further
    co = rows[rows["reading"] == "co"].dropna(subset="diff")
    assert set(co.index) == {
        (f"{m} + CML†", shot) for m in ("Meta-SGD", "CAVIA") for shot in (1, 5)
    }
    assert list(co.index[co["p_holm"] >= 0.05]) == [("CAVIA + CML†", 1)]
    told = {key: difference(row) for key, row in co.iterrows()}
    first, second = told["Meta-SGD + CML†", 1], told["Meta-SGD + CML†", 5]
    assert f"gains in both columns** ({first} and {second})" in words
    first, second = told["CAVIA + CML†", 1], told["CAVIA + CML†", 5]
    assert f"CAVIA + CML† at 5-shot ({second}; 1-shot {first})" in words


def test_the_words_on_further_methods_against_maml(further):
    words, rows, steps = further
    told = {}
    for method in ("ANIL", "Meta-SGD", "ProtoNet", "CAVIA"):
        both = rows.loc[[(method, 1), (method, 5)]]
        assert set(both["p_holm"] < 0.05) == {method != "Meta-SGD"}
        assert set(both["diff"] > 0) == {method in ("Meta-SGD", "ProtoNet")}
        told[method] = [
            f"{abs(d):.1f} ± {h:.1f}" for d, h in zip(both["diff"], both["diff_half"], strict=True)
        ]
    assert "ProtoNet is better, by {} and {} points".format(*told["ProtoNet"]) in words
    assert (
        "ANIL is worse, by {} and {}, CAVIA by {} and {}, Reptile".format(
            *told["ANIL"], *told["CAVIA"]
        )
        in words
    )
    reptile = steps.loc[("Reptile", 1)]
    assert reptile["diff"] < 0
    assert reptile["p_holm"] < 0.05
    assert f"Reptile by {-reptile['diff']:.1f} ± {reptile['diff_half']:.1f} (1-shot" in words
    assert "Meta-SGD's gains of {} and {} are not".format(*told["Meta-SGD"]) in words


def test_the_words_on_the_start_of_further_methods(further):
    words, rows, steps = further
    untrained = {
        name: rows.loc[(f"untrained, adapted as {name}", 1), "mean"]
        for name in ("ProtoNet", "MAML")
    }
    five_untrained = steps.loc[("untrained, adapted", 1), "mean"]
    assert (
        f"Untrained, ProtoNet has {untrained['ProtoNet']:.1f} % at 1-shot, MAML"
        f" {untrained['MAML']:.1f} %, and MAML with five inner steps {five_untrained:.1f} %"
    ) in words
    folder = REFERENCE / "omniglot_methods" / "tables"
    before, five = (
        pd.read_csv(folder / f"{name}.csv").set_index(["row", "shot"])["mean"]
        for name in ("omniglot_methods", "omniglot_five_steps")
    )
    moved = [
        rows.loc[("MAML", 1), "mean"] - before[("MAML", 1)],
        rows.loc[("MAML", 5), "mean"] - before[("MAML", 5)],
        steps.loc[("MAML", 1), "mean"] - five[("MAML", 1)],
    ]
    one, other, last = (f"{abs(value):.1f}" for value in moved)
    assert f"Its means are {one} and {other} (one inner step) and {last} points (five)" in words
