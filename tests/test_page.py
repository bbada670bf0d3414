"""The text of a study's page: verdicts, cost, failures and tables.

The page's charts are in test_page_charts.py, a browser's view of the page in test_browser.py.
"""

import re
from html.parser import HTMLParser

import pytest

from cml_bench.evidence.build import build
from cml_bench.records import Store, write_record
from cml_bench.report import (
    charts,
    forest,
    grids,
    learning,
    page,
    runs,
    summary,
    write,
)
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from cml_bench.study.status import states
from tests.helpers import beside_paper
from tests.helpers.pages import LEVEL, specs_in, written
from tests.helpers.plans import edited, labelled
from tests.helpers.simulated import finish, study

VOID = {"meta", "img", "br", "hr", "input", "link"}


class WellFormed(HTMLParser):
    """A reader of HTML that collects text and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.stack, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.text.append(data)


def text_of(html: str) -> str:
    parser = WellFormed()
    parser.feed(html)
    assert parser.stack == []
    return " ".join(" ".join(parser.text).split())


# -- the whole page


def test_the_page_stands_alone(tmp_path):
    resolved = study(seeds=3)
    finish(resolved, tmp_path, LEVEL)
    html = written(resolved, tmp_path)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|tables/|records\.csv|#)""", html), (
        "nothing is loaded from elsewhere"
    )
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html
    text = text_of(html)
    for needed in (
        "A 100 % made-up study",
        "n = 3: shown, not tested",
        "transductive",
        "training seeds 0, 1, 2",
        "γ = 1",
        "protocol: matched",
        "n = 3 training seeds",
        "12 of 12 runs are finished.",
        "shin2024cml",
        f"plan {summary.plan_id(resolved)}",
        "version = {0.1.0}",
    ):
        assert needed in text
    forests = ["forest-table1-meta", "forest-table1-co"]
    curves = [f"curve-1-{k}" for k in (1, 2, 3, 4)]
    assert list(specs_in(html)) == [*forests, "progress-table1-1", *curves]
    assert len(html) + len(charts.script()) < 1_000_000


def test_the_page_links_only_to_files_that_are_there(tmp_path):
    resolved = edited(
        study(seeds=3), lambda plan: plan["tables"].update(other=plan["tables"]["table1"])
    )
    write.tables(resolved, tmp_path, ["table1"])
    links = re.findall(r'href="([^#"]+)"', write.page(resolved, tmp_path).read_text())
    assert set(links) == {"tables/table1.csv", "tables/table1.md", "tables/table1.tex"}


def test_text_of_a_study_cannot_end_the_element_it_stands_in(tmp_path):
    resolved = labelled(study(seeds=2), lambda label: f"{label} </script><b>&")
    finish(resolved, tmp_path, LEVEL)
    html = written(resolved, tmp_path)
    assert "MAML </script><b>&" in text_of(html), "shown as it is"
    assert any(
        "</script><b>&" in curve["method"]
        for curve in specs_in(html)["curve-1-1"]["data"]["values"]
    )


def test_the_page_tells_methods_of_different_recipes_apart():
    """Under `official`, MAML++ and MAML differ in meta-batch, number of steps and validation."""
    resolved = study()
    experiment = resolved.study.model_dump(mode="json")["experiments"]["e"] | {
        "protocol": "official",
        "data": "miniimagenet",
    }
    del experiment["steps"]
    experiment["methods"] = {"maml": {}, "boil": {}, "mamlpp": {}}
    tables = {
        "t": {
            "kind": "accuracy",
            "experiment": "e",
            "title": "T",
            "rows": [{"label": "MAML", "run": "maml"}],
        }
    }
    content = {"study": "s", "seeds": 1, "experiments": {"e": experiment}, "tables": tables}
    plan = resolve(parse(content, "test"), "test")
    (fact,) = [fact for fact in summary.facts(plan) if fact.startswith("T: ")]
    assert (
        "MAML, BOIL: 30,000 outer steps of 4 tasks, Adam 0.001, validation every 100 steps on 100"
        " tasks" in fact
    )
    assert (
        "MAML++: 50,000 outer steps of 2 tasks, Adam 0.001, validation every 500 steps on 600 tasks"
        in fact
    )


# -- the abstract and verdicts


def told(resolved, root) -> list[str]:
    tables = [build(resolved, Store(root), key) for key in resolved.tables]
    return summary.sentences(resolved, tables, states(resolved, root))


def plain(html: str) -> str:
    """A page without what is shown on hover."""
    return re.sub(r'(<li class="[^"]*") title="[^"]*"|</?abbr[^>]*>', r"\1", html)


def test_the_abstract_counts_what_the_tables_say(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL | {"meta": 51}, seed_sd=1.0)
    table = build(resolved, store, "table1")
    verdicts = [row[-1] for row in grids.difference_grid(table).rows]
    assert verdicts == ["undecided", "gain", "loss", "loss"]
    first, methods, finished = told(resolved, tmp_path)
    assert first == (
        "4 paired differences were tested. CML: 1 gain, 0 losses, 1 undecided. CML†: 0 gains,"
        " 2 losses, 0 undecided."
    )
    assert methods == (
        "Methods: MAML, MAML + CML; data: glyphs; protocol: matched; γ = 1; n = 5 training seeds."
    )
    assert finished == "20 of 20 runs are finished."
    html = plain(written(resolved, tmp_path))
    assert (
        '<li class="loss"><b>2</b> <span class="sign loss" aria-hidden="true">▼</span> losses</li>'
        in html
    )
    assert '<li class="undecided"><b>1</b>' in html
    assert re.findall(r"<h3>(.*?) <small>", html) == ["CML", "CML†", "Runs"]
    assert "not-tested" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


def test_a_smaller_error_is_a_gain(tmp_path):
    resolved = study(seeds=5, kind="regression")
    store = finish(resolved, tmp_path, {"base": 3.0, "meta": 2.0, "co": 4.0}, seed_sd=0.01)
    table = build(resolved, store, "table1")
    grid = grids.difference_grid(table)
    assert {row[0]: (row[2][0], row[-1]) for row in grid.rows} == {
        "MAML + CML − MAML": ("−", "gain"),
        "MAML + CML† − MAML": ("+", "loss"),
    }
    values = [v for spec in forest.panels(table).values() for v in spec["data"]["values"]]
    assert all((value["value"] > 0) == (value["outcome"] == "gain") for value in values), (
        "improvement is to the right"
    )


def test_untested_differences_are_no_verdicts(tmp_path):
    resolved = study(seeds=3)
    finish(resolved, tmp_path, LEVEL)
    assert (
        told(resolved, tmp_path)[0]
        == "4 paired differences have no verdict (n = 3: shown, not tested)."
    )
    html = plain(written(resolved, tmp_path))
    assert html.count('<li class="not-tested"><b>2</b>') == 2, "of CML and of CML†"
    assert '<li class="gain">' not in html, "nothing was tested, so no count of gains"
    assert (
        '<span class="sign not-tested" aria-hidden="true">●</span> n = 3: shown, not tested</td>'
        in html
    )


def test_levels_beside_the_paper_are_counted(tmp_path):
    resolved = beside_paper.study(tmp_path)
    finish(resolved, tmp_path / "r", beside_paper.LEVEL, 0.3)
    levels = told(resolved, tmp_path / "r")[1]
    assert (
        levels
        == "5 levels beside the paper's: 2 reproduced, 2 differ, 0 cannot tell, 1 not judged "
        "(not comparable: cml.gamma 1.0, the paper 0.5)."
    )
    html = plain(written(resolved, tmp_path / "r"))
    assert (
        html.count('<span class="sign reproduced" aria-hidden="true">✓</span> reproduced</td>') == 2
    )
    gain = '<span class="sign gain" aria-hidden="true">▲</span> gain, '
    assert re.search(f"{gain}paper&#39;s inside</td>", html)
    assert '<span class="sign not-judged" aria-hidden="true">○</span> not comparable' in html


def test_the_plan_id_is_of_what_is_run_and_shown():
    first, more, fewer = study(), study(seeds=6), study(tasks=300)
    again = edited(study(), lambda plan: plan["study"].update(title="Another", results="elsewhere"))
    assert summary.plan_id(first) == summary.plan_id(again)
    assert len({summary.plan_id(p) for p in (first, more, fewer)}) == 3


# -- cost and failures


def test_runs_that_failed_are_told_with_the_ends_of_their_logs(tmp_path):
    resolved = study(seeds=2)
    specs = [run.spec for run in resolved.runs]
    store = finish(
        resolved,
        tmp_path,
        LEVEL,
        only=lambda s: s.id != specs[0].id,
        status=lambda s: "diverged" if s.id == specs[1].id else "finished",
    )
    folder = store.folder(specs[0])
    folder.mkdir(parents=True)
    (folder / "error.log").write_text(
        "Traceback\n" + "deep\n" * 50 + "RuntimeError: <out> of memory\n"
    )
    (folder / "run.log").write_text("12:00:00 step 1\n")
    html = written(resolved, tmp_path)
    text = text_of(
        html[html.index('<section id="failures">') : html.index('<section id="provenance">')]
    )
    assert "seed 0: failed RuntimeError: <out> of memory (see" in text
    assert "error.log, the last lines of 52: deep" in text
    assert "Traceback" not in text, "the end, not the beginning"
    assert "run.log, the last lines of 1: 12:00:00 step 1" in text
    assert "MAML + CML on glyphs, 5-way 1-shot, seed 0: diverged" in text
    assert "6 of 8 runs are finished (1 diverged, 1 failed)." in text_of(html)
    assert "None: no run has diverged" not in text


def costs(resolved, store) -> list[dict[str, str]]:
    records = {run.id: store.read(run.spec) for run in resolved.runs}
    grid = runs.costs(resolved, {i: r for i, r in records.items() if r})
    return [dict(zip(grid.header, row, strict=True)) for row in grid.rows]


def test_cost_of_each_method(tmp_path):
    resolved = study(seeds=2)
    store = finish(resolved, tmp_path, LEVEL)
    lines = costs(resolved, store)
    assert [(line["method"], line["shots"]) for line in lines] == [
        ("MAML", "1"),
        ("MAML", "5"),
        ("MAML + CML", "1"),
        ("MAML + CML", "5"),
    ]
    cml = lines[2]
    assert (cml["training, s a run"], cml["validation, %"], cml["test, %"]) == (
        "13.0",
        "6.7",
        "6.7",
    )
    assert cml["training, MFLOP a task"] == "0.0"
    assert cml["parameters"] == "1,500"
    assert {line["peak memory, MB"] for line in lines} == {"–"}, "records of before have none"
    made = [store.read(run.spec) for run in resolved.runs]
    for peak, record in enumerate(r for r in made if r.spec.method == "maml" and r.spec.shot == 1):
        write_record(
            record.folder,
            record.content | {"memory": {"peak": 10**6 * (peak + 7), "of": "process"}},
        )
    assert costs(resolved, store)[0]["peak memory, MB"] == "8 (process)", "the largest of its runs"


def test_flops_of_a_whole_run(tmp_path):
    resolved = study(seeds=1)
    store = finish(resolved, tmp_path, LEVEL)
    for run in resolved.runs:
        record = store.read(run.spec)
        write_record(record.folder, record.content | {"flops": {"training": 5 * 10**9}})
    line = costs(resolved, store)[0]
    assert line["training, MFLOP a task"] == "5,000.0"
    assert line["training, TFLOP a run"] == "2.00", "5 GFLOP, 4 tasks a step, 100 steps"


# -- tables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("73.17 ± 1.35 (1.41) ▲▲", 73.17),
        ("−0.31", -0.31),
        ("+2.10 ± 3.00", 2.1),
        ("28,485", 28485),
        ("1.05×", 1.05),
        ("3.4e-06", 3.4e-6),
        ("<0.001", 0.001),
        ("0.580 ± 0.010", 0.58),
        ("5-shot", 5),
        ("–", None),
        ("–‡", None),
        ("gain", None),
    ],
)
def test_cells_are_sorted_by_the_number_they_begin_with(text, value):
    assert page.leading_number(text) == value


def test_methods_of_equal_labels_are_told_by_their_keys(tmp_path):
    resolved = labelled(study(seeds=2), lambda _: "The same")
    assert learning.labels(resolved) == {("e", "maml"): "maml", ("e", "maml+cml"): "maml+cml"}


def test_ids_on_the_page_are_of_one_element_each(tmp_path):
    """The names of tables and figures may be those of the page's own sections."""
    keys = ("cost", "runs", "curves")
    resolved = edited(
        study(seeds=3),
        lambda plan: plan["tables"].update(dict.fromkeys(keys, plan["tables"]["table1"])),
    )
    finish(resolved, tmp_path, LEVEL)
    ids = re.findall(r'(?<= id=")[^"]+', written(resolved, tmp_path))
    assert len(ids) == len(set(ids)) > 20
