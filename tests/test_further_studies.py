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
    assert f"Omniglot ({signed(plain['diff'])} points: 1-shot, 400 steps) is gone" in page(
        "README.md"
    )
    assert f"MAML + CML: {ours} (" in page("README.md")
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
    assert f"than CML does**: {gain.diff:.1f} ± {gain.half:.1f} points" in page("docs/results.md")


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
