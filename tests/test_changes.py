"""Whether a gain shrinks: a difference of differences, and the words that follow from it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cml_bench.errors import UserError
from cml_bench.evidence import change, changes, stats
from cml_bench.evidence.build import build
from cml_bench.records import Store, write_episodes
from cml_bench.report import changes as words
from cml_bench.report import publish
from cml_bench.study import config, selection
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers import simulated, swept

ROOT = Path(__file__).parent.parent
CONFIG = "configs/made_up.yaml"
ASKED = {
    "first": {"config": CONFIG, "table": "short", "called": "after 100 steps"},
    "second": {"config": CONFIG, "table": "long", "called": "after 200"},
    "rows": ["MAML + CML"],
    "shots": [1],
}


def plan(seeds: int = 6, more_seeds: int | None = None):
    """MAML and MAML + CML after 100 steps, and in another experiment after 200."""
    experiments = {
        "short": simulated.experiment(100, shots=[1]),
        "long": simulated.experiment(100, shots=[1], steps=200, seeds=more_seeds or seeds),
    }
    tables = {
        name: {"kind": "accuracy", "experiment": name, "title": name, "rows": simulated.ROWS}
        for name in experiments
    }
    content = {"study": "s", "seeds": seeds, "experiments": experiments, "tables": tables}
    return resolve(parse(content, "test"), "test")


def finished(resolved, root, gain, spread) -> Store:
    """Records in which CML gains ``gain[steps]`` points, and seed s ``spread[steps][s]`` more."""
    store = simulated.finish(resolved, root / "s", simulated.LEVEL)
    for run in resolved.runs:
        spec, readings = run.spec, ("meta", "co") if "+cml" in run.spec.method else ("meta",)
        more = gain[spec.steps] + spread[spec.steps][spec.seed] if "+cml" in spec.method else 0
        right = np.full(100, round(50 + more), dtype=np.uint16)
        write_episodes(store.folder(spec), {f"{reading}@1": right for reading in readings})
    return store


def said(resolved, root, path, **options) -> str:
    path.write_text(json.dumps({"changes": [ASKED | options]}))
    return words.block(root, lambda _: resolved, path)


EVEN = {100: [0, 1, -1, 0, 1, -1], 200: [1, -1, 0, 0, 1, -1]}


def test_the_change_is_the_paired_difference_of_two_gains():
    first, second = {0: 5.0, 1: 7.0, 2: 6.0, 9: 50.0}, {2: 1.0, 1: 3.0, 0: 2.0, 4: -50.0}
    found = change.change(first, second)
    assert found.paired == stats.paired([5, 7, 6], [2, 3, 1]), "over shared seeds alone"
    assert (found.first.mean, found.second.mean) == (6.0, 2.0)


def test_the_adjusted_p_decides():
    one = change.change(dict(enumerate([5, 6, 7, 5, 6.0])), dict(enumerate([3, 5, 7, 2, 4.0])))
    assert one.paired.p < 0.05
    assert [c.outcome for c in change.adjusted([one], [0])] == ["shrinks"]
    assert {c.outcome for c in change.adjusted([one] * 4, [0] * 4)} == {"not shown"}
    assert {c.outcome for c in change.adjusted([one] * 4, range(4))} == {"shrinks"}


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [
        ({100: 9, 200: 3}, "shrinks"),
        ({100: 3, 200: 9}, "grows"),
        ({100: -3, 200: -9}, "falls"),
        ({100: -9, 200: -3}, "rises"),
        ({100: 6, 200: 6}, "not shown"),
    ],
)
def test_the_words_follow_from_the_test(tmp_path, gain, outcome):
    resolved = plan()
    finished(resolved, tmp_path, gain, EVEN)
    text = said(resolved, tmp_path, tmp_path / "changes.json")
    lead = text.splitlines()[0]
    if outcome == "not shown":
        assert lead.startswith("* **Not shown: that the gain of MAML + CML over MAML shrinks or")
        assert "+0.00 ± " in lead, "its numbers stand there"
    else:
        noun = "gain" if outcome in ("shrinks", "grows") else "difference"
        assert lead.startswith(f"* **The {noun} of MAML + CML over MAML {outcome}**")
        assert f"{gain[100] - gain[200]:+d}.00 ± ".replace("-", "−") in lead
    assert text.count("shrinks") == (1 if outcome == "not shown" else 2 * (outcome == "shrinks"))


def test_two_gains_of_which_one_is_significant_need_not_differ(tmp_path):
    resolved = plan()
    finished(resolved, tmp_path, {100: 4, 200: 3}, {100: EVEN[100], 200: [-9, 6, 3, -6, 9, -3]})
    lead = said(resolved, tmp_path, tmp_path / "changes.json").splitlines()[0]
    assert lead.startswith("* **Not shown")


def test_a_changed_record_moves_the_sentence(tmp_path):
    resolved = plan()
    store = finished(resolved, tmp_path, {100: 9, 200: 3}, EVEN)
    path = tmp_path / "changes.json"
    assert "**The gain of MAML + CML over MAML shrinks**" in said(resolved, tmp_path, path)
    run = next(r.spec for r in resolved.runs if (r.spec.method, r.spec.steps) == ("maml+cml", 200))
    write_episodes(store.folder(run), {"meta@1": np.full(100, 95, dtype=np.uint16)})
    assert "Not shown" in said(resolved, tmp_path, path).splitlines()[0]


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        (1, "n = 1"),
        (4, "n = 4"),
    ],
)
def test_fewer_than_five_shared_seeds_are_not_tested(tmp_path, seeds, told):
    resolved = plan(seeds=6, more_seeds=seeds)
    finished(resolved, tmp_path, {100: 9, 200: 3}, EVEN)
    text = said(resolved, tmp_path, tmp_path / "changes.json")
    assert "is not tested" in text
    assert f"{told}: shown, not tested" in text
    assert "**" not in text


def test_without_records_nothing_is_tested(tmp_path):
    text = said(plan(), tmp_path, tmp_path / "changes.json")
    assert "no shared seeds" in text
    assert "**" not in text


def test_runs_on_different_data_are_not_compared(tmp_path):
    resolved = plan()
    store = finished(resolved, tmp_path, {100: 9, 200: 3}, EVEN)
    folder = store.folder(next(r.spec for r in resolved.runs if r.spec.steps == 200))
    content = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(content | {"data_sha256": "1" * 64}))
    text = said(resolved, tmp_path, tmp_path / "changes.json")
    assert "runs on different data: not tested" in text
    assert "no shared seeds" in text


def test_p_is_adjusted_over_the_whole_file_in_two_families(tmp_path):
    resolved = plan()
    finished(resolved, tmp_path, {100: 9, 200: 3}, EVEN)
    path = tmp_path / "changes.json"
    path.write_text(json.dumps({"changes": [ASKED | {"rows": ["MAML + CML", "MAML + CML†"]}] * 2}))
    found = changes.tested(changes.read(path), lambda _: resolved, tmp_path, str(path))
    assert len(found) == 4
    for line in found:
        assert line.change.holm_p == pytest.approx(2 * line.change.paired.p)


def test_options_in_which_the_two_places_differ_are_named(tmp_path):
    resolved = plan()
    finished(resolved, tmp_path, {100: 9, 200: 3}, EVEN)
    text = said(resolved, tmp_path, tmp_path / "changes.json")
    assert "What differs: after 100 steps / after 200: steps 100 / 200." in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": ["MAML/LMC"]}, "compares no row 'MAML/LMC': name one of MAML \\+ CML, MAML"),
        ({"rows": ["MAML"]}, "compares no row 'MAML'"),
        ({"shots": [7]}, "has 0 columns of 7 shots"),
        ({"second": ASKED["second"] | {"table": "wide"}}, "no table 'wide': name one of short"),
        ({"shot": [1]}, "unknown key 'changes.0.shot'"),
        ({"rows": []}, "changes.0.rows"),
    ],
)
def test_what_is_not_there_is_named_with_the_file(tmp_path, wrong, message):
    with pytest.raises(UserError, match=f"changes.json: .*{message}"):
        said(plan(), tmp_path, tmp_path / "changes.json", **wrong)


# -- what is published


def selected_settings(folder, maml, cml):
    """The change from settings as published to these, which validation selects, and the table."""
    plan = swept.planned(swept.content())
    store = swept.finished(plan, folder / "s", {"maml": maml, "maml+cml": cml})
    narrow = selection.narrowed(plan, store)
    wanted = narrow.specs.keys() - swept.tried_ids(plan)
    simulated.finish(narrow, folder / "s", simulated.LEVEL, only=lambda spec: spec.id in wanted)
    place = {"config": "any", "table": "table1", "called": "as published"}
    entry = {"first": place, "second": {**place, "tuned": True}, "rows": ["MAML + CML"]}
    asked = changes.Changes.read({"changes": [{**entry, "shots": [1]}]}, "test")
    (line,) = changes.tested(asked, lambda _: plan, folder, "test")
    return line, build(narrow, store, "table1")


def test_a_place_may_be_the_rows_of_selected_settings(tmp_path):
    best = {"inner_lr": 1.0, "protocol.outer_lr": 0.01}
    line, table = selected_settings(tmp_path, best, best)
    gains = {
        row.label: row.cells[column].difference.paired.diff
        for row in table.rows
        for column in row.cells
        if row.against
    }
    assert line.change.first.mean == pytest.approx(gains["MAML + CML"])
    assert line.change.second.mean == pytest.approx(gains["MAML + CML, tuned"])
    assert any(text == "options.inner_lr 0.5 / 1.0" for text in line.unlike)
    assert not any("(of" in text for text in line.unlike)


@pytest.mark.parametrize(
    ("maml", "cml", "whose"), [(0.001, 0.01, "MAML + CML"), (0.01, 0.001, "MAML")]
)
def test_an_option_that_differs_in_the_row_or_its_baseline_alone_says_in_which(
    tmp_path, maml, cml, whose
):
    best = [{"inner_lr": 1.0, "protocol.outer_lr": rate} for rate in (maml, cml)]
    line, _ = selected_settings(tmp_path, *best)
    assert "options.inner_lr 0.5 / 1.0" in line.unlike
    assert f"protocol.outer_lr 0.001 / 0.01 (of {whose})" in line.unlike


@pytest.fixture(scope="module")
def published():
    """The block of the committed records."""
    patch = pytest.MonkeyPatch()
    patch.chdir(ROOT)  # the paths in `include` are relative to it
    plans = {}

    def plan_of(path):
        if path not in plans:
            plans[path] = resolve(config.read(path), path)
        return plans[path]

    found = changes.tested(changes.read(), plan_of, publish.PUBLISHED, "test")
    block = words.block(publish.PUBLISHED, plan_of)
    patch.undo()
    return found, block


def test_the_committed_records_show_which_gains_shrink(published):
    """The numbers were found by a script apart from the package, too."""
    found = {(line.row, line.shot, line.first): line.change for line in published[0]}
    meta, co = "MAML + CML", "MAML + CML†"
    expected = {
        (meta, 1, "after 400 steps"): (2.27, 2.45, 0.063, "not shown"),
        (meta, 5, "after 400 steps"): (0.58, 1.67, 0.416, "not shown"),
        (meta, 1, "with one inner step"): (0.64, 1.82, 0.407, "not shown"),
        (co, 1, "after 400 steps"): (3.67, 2.17, 0.0074, "shrinks"),
        (co, 5, "after 400 steps"): (2.15, 0.53, 0.00014, "shrinks"),
        (co, 1, "with one inner step"): (3.60, 1.81, 0.0037, "shrinks"),
        (meta, 1, "with step sizes as published"): (3.60, 2.47, 0.0108, "shrinks"),
        (co, 1, "with step sizes as published"): (6.26, 2.07, 0.00018, "shrinks"),
    }
    assert found.keys() == expected.keys()
    for key, (diff, half, p, outcome) in expected.items():
        made = found[key]
        assert made.paired.n == (8 if "published" in key[2] else 6)
        assert made.paired.diff == pytest.approx(diff, abs=0.005)
        assert made.paired.half == pytest.approx(half, abs=0.005)
        assert made.paired.p == pytest.approx(p, rel=0.02)
        assert made.outcome == outcome


def test_the_page_has_the_words_of_the_committed_records_and_no_others(published):
    page = (ROOT / publish.RESULTS).read_text()
    assert publish.between(page, words.BLOCK, published[1]) == page, (
        "the block is another one: python -m cml_bench publish"
    )
    assert published[1] in page
    written = page.replace(published[1], "")
    for path in (ROOT / "README.md", *(ROOT / "configs").rglob("*.yaml")):
        written += path.read_text()
    assert not re.search(r"gains? (of \S+ )?(shrinks|grows)\b", written), "by a test alone"


def test_publishing_writes_the_block(tmp_path, monkeypatch):
    resolved = simulated.study(seeds=3)
    simulated.finish(resolved, tmp_path / "results", simulated.LEVEL)
    (tmp_path / "docs").mkdir()
    marks = f"<!-- {words.BLOCK}:begin -->\nold\n<!-- {words.BLOCK}:end -->\n"
    (tmp_path / publish.RESULTS).write_text(marks)
    monkeypatch.setattr(words, "block", lambda reference: f"from {reference.name}")
    publish.publish(resolved, tmp_path / "results", tmp_path / "reference", tmp_path)
    assert "\nfrom reference\n" in (tmp_path / publish.RESULTS).read_text()
