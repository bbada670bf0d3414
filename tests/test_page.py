"""What stands on a study's page; how a browser shows it is in test_browser.py."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import vl_convert

from cml_bench.evidence.build import build
from cml_bench.figures import style
from cml_bench.records import write_record
from cml_bench.report import charts, forest, grids, page, summary, write
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from cml_bench.study.status import states
from tests.helpers import beside_paper
from tests.helpers.pages import specs_in, written
from tests.helpers.plans import edited, labelled
from tests.helpers.simulated import finish, study

VOID = {"meta", "img", "br", "hr", "input", "link"}
LEVEL = {"base": 50, "meta": 53, "co": 46}


class WellFormed(HTMLParser):
    """Collects text and checks that tags close in order."""

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


def drawn(spec: dict) -> str:
    """A chart as SVG, by the library that the page holds."""
    return vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)


# -- the whole page


def test_the_page_stands_alone(tmp_path):
    resolved = study(seeds=3)
    finish(resolved, tmp_path, LEVEL)
    html = written(resolved, tmp_path)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|tables/|#)""", html), (
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
    assert list(specs_in(html)) == ["forest-table1", *(f"curve-1-{k}" for k in (1, 2, 3, 4))]
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
    """MAML++ has another meta-batch, number of steps and validation than MAML under `official`."""
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
    found = resolve(parse(content, "test"), "test")
    (fact,) = [fact for fact in summary.facts(found) if fact.startswith("e: ")]
    assert (
        "maml, boil: 30,000 outer steps of 4 tasks, Adam 0.001, validation every 100 steps on 100"
        " tasks" in fact
    )
    assert (
        "mamlpp: 50,000 outer steps of 2 tasks, Adam 0.001, validation every 500 steps on 600 tasks"
        in fact
    )


# -- the abstract and verdicts


def told(resolved, root) -> list[str]:
    from cml_bench.records import Store

    tables = [build(resolved, Store(root), key) for key in resolved.tables]
    return summary.sentences(resolved, tables, states(resolved, root))


def test_the_abstract_counts_what_the_tables_say(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL | {"meta": 51}, seed_sd=1.0)
    table = build(resolved, store, "table1")
    verdicts = [row[-1] for row in grids.difference_grid(table).rows]
    assert verdicts == ["undecided", "gain", "loss", "loss"]
    first, methods, runs = told(resolved, tmp_path)
    assert first == "4 paired differences were tested: 1 gain, 2 losses, 1 undecided."
    assert (
        methods
        == "Methods: maml, maml+cml; data: glyphs; protocol: matched; γ = 1; n = 5 training seeds."
    )
    assert runs == "20 of 20 runs are finished."
    html = written(resolved, tmp_path)
    assert (
        '<li class="loss"><b>2</b> <span class="sign loss" aria-hidden="true">▼</span> losses</li>'
        in html
    )
    assert '<li class="undecided"><b>1</b>' in html
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
    values = forest.chart(table)["data"]["values"]
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
    html = written(resolved, tmp_path)
    assert '<li class="not-tested"><b>4</b>' in html
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
        "(not comparable: cml.gamma 1.0, the paper 0.5: 1)."
    )
    html = written(resolved, tmp_path / "r")
    assert (
        html.count('<span class="sign reproduced" aria-hidden="true">✓</span> reproduced</td>') == 2
    )
    assert (
        '<span class="sign gain" aria-hidden="true">▲</span> gain, paper&#39;s inside</td>' in html
    )
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
    assert f"{resolved.runs[1].title}: diverged" in text
    assert "6 of 8 runs are finished (1 diverged, 1 failed)." in text_of(html)
    assert "None: no run has diverged" not in text


def costs(resolved, store) -> list[dict[str, str]]:
    records = {run.id: store.read(run.spec) for run in resolved.runs}
    grid = page._costs(resolved, {i: r for i, r in records.items() if r})
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
    runs = [store.read(run.spec) for run in resolved.runs]
    for peak, record in enumerate(r for r in runs if r.spec.method == "maml" and r.spec.shot == 1):
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
        ("73.17 ± 1.35 (1.41)**", 73.17),
        ("−0.31", -0.31),
        ("+2.10 ± 3.00", 2.1),
        ("28,485", 28485),
        ("1.05×", 1.05),
        ("3.4e-06", 3.4e-6),
        ("0.580 ± 0.010", 0.58),
        ("5-shot", 5),
        ("–", None),
        ("–‡", None),
        ("gain", None),
    ],
)
def test_cells_are_sorted_by_the_number_they_begin_with(text, value):
    assert page.leading_number(text) == value


def test_a_difference_without_spread_has_no_interval(tmp_path):
    resolved = study(seeds=1)
    store = finish(resolved, tmp_path, LEVEL)
    grid = grids.difference_grid(build(resolved, store, "table1"))
    assert [row[3] for row in grid.rows] == ["–"] * 4
    assert [row[5] for row in grid.rows] == ["–"] * 4
    spec = forest.chart(build(resolved, store, "table1"))
    assert [value["low"] for value in spec["data"]["values"]] == [None] * 4
    assert drawn(spec).count('aria-roledescription="point"') == 4


# -- charts


def test_the_forest_plot_has_a_mark_for_each_difference(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL)
    spec = forest.chart(build(resolved, store, "table1"))
    svg = drawn(spec)
    assert svg.count('aria-roledescription="point"') == 4
    assert svg.count(forest.OUTCOMES["gain"][0]) == 6, "intervals and points of two gains, legend"
    assert "currentColor" in svg
    assert (
        forest.chart(
            build(
                resolved, finish(resolved, tmp_path / "none", LEVEL, only=lambda s: False), "table1"
            )
        )
        is None
    )


def test_a_difference_far_beyond_the_others_does_not_hide_them(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, {"base": 50, "meta": 51, "co": 5}, seed_sd=0.2)
    values = {
        v["line"]: v for v in forest.chart(build(resolved, store, "table1"))["data"]["values"]
    }
    assert values["MAML + CML\n1-shot"]["left"] == ""

    def more(plan):
        rows = plan["tables"]["table1"]["rows"]
        rows += [{**rows[1], "label": f"MAML + CML {k}"} for k in range(4)]

    many = edited(study(seeds=5), more)
    spec = forest.chart(build(many, store, "table1"))
    values = {v["line"]: v for v in spec["data"]["values"]}
    assert re.fullmatch(r"◀ −4\d\.\d\d", values["MAML + CML†\n1-shot"]["left"])
    low, high = spec["layer"][2]["encoding"]["x"]["scale"]["domain"]
    assert -5 < low < 0 < high < 5
    assert drawn(spec).count(">◀ −4") == 2


def test_learning_curves_keep_a_methods_colour_where_another_has_no_runs(tmp_path):
    resolved = study(seeds=2)
    finish(
        resolved, tmp_path, LEVEL, only=lambda s: (s.method, s.shot) != ("maml", 5) or s.seed > 1
    )
    found = {
        spec["title"]: spec
        for spec in specs_in(written(resolved, tmp_path)).values()
        if "title" in spec
    }
    assert list(found) == [
        "1-shot, validation",
        "1-shot, training",
        "5-shot, validation",
        "5-shot, training",
    ]
    first, second = (found[f"{shot}-shot, validation"] for shot in (1, 5))
    assert [c["method"] for c in first["data"]["values"]] == ["MAML"] * 2 + ["MAML + CML"] * 2 + [
        "MAML",
        "MAML + CML",
    ]
    assert {c["method"] for c in second["data"]["values"]} == {"MAML + CML"}
    assert first["encoding"]["color"]["scale"] == second["encoding"]["color"]["scale"]
    assert first["encoding"]["color"]["scale"]["range"] == list(style.COLOURS[:2])
    assert first["encoding"]["strokeDash"]["scale"]["range"] == [[1, 0], [6, 2]], (
        "not by colour alone"
    )
    assert drawn(first).count("aria-label=") > 4


def test_methods_of_equal_labels_are_told_by_their_keys(tmp_path):
    resolved = labelled(study(seeds=2), lambda _: "The same")
    assert page._labels(resolved) == {("e", "maml"): "maml", ("e", "maml+cml"): "maml+cml"}


def test_the_mean_curve_is_over_steps_that_all_runs_have():
    one = charts.Curve("m", "0", [0, 10, 20], [1.0, 2.0, 4.0])
    other = charts.Curve("m", "1", [0, 10, 20, 30], [3.0, math.nan, 6.0, 9.0])
    assert charts.mean([one, other]) == charts.Curve("m", "mean of 2", [0, 20], [2.0, 5.0])


def test_long_curves_are_thinned_from_the_first_step_to_the_last():
    steps = list(range(0, 7001, 7))
    curve = charts.Curve("m", "0", steps, np.linspace(0, 1, len(steps)).tolist())
    (line,) = charts.learning([curve], ["m"], "t", "classification", 40)["data"]["values"]
    assert (len(line["step"]), line["step"][0], line["step"][-1]) == (40, 0, 7000)
    assert len(line["score"]) == 40


@pytest.mark.parametrize(("kind", "steps"), [("classification", [0, 20]), ("regression", [20])])
def test_scores_that_an_axis_cannot_show_are_left_out(kind, steps):
    curve = charts.Curve("m", "0", [0, 10, 20, 30], [0.0, math.nan, 2.0, math.inf])
    (line,) = charts.learning([curve], ["m"], "t", kind, 40)["data"]["values"]
    assert line["step"] == steps


def test_ids_on_the_page_are_of_one_element_each(tmp_path):
    """Whatever a study calls its tables and figures."""
    keys = ("cost", "runs", "curves")
    resolved = edited(
        study(seeds=3),
        lambda plan: plan["tables"].update(dict.fromkeys(keys, plan["tables"]["table1"])),
    )
    finish(resolved, tmp_path, LEVEL)
    ids = re.findall(r'(?<= id=")[^"]+', written(resolved, tmp_path))
    assert len(ids) == len(set(ids)) > 20


def test_accuracies_are_in_percent_and_errors_as_they_are(tmp_path):
    for kind, scale in (("accuracy", 100), ("regression", 1)):
        resolved = study(seeds=1, kind=kind)
        store = finish(resolved, tmp_path / kind, LEVEL)
        record = store.read(resolved.runs[0].spec)
        (curve,) = charts.curves([("MAML", record)], "validation")
        assert curve == ("MAML", "0", [0, 50, 100], [0.2 * scale, 0.4 * scale, 0.5 * scale])
        (training,) = charts.curves([("MAML", record)], "train")
        assert math.isnan(training.scores[0])


def test_a_study_of_many_runs_has_a_page_of_bounded_size():
    """The full grid has 771 runs of up to 300 validations."""
    steps = list(range(0, 30_000, 100))
    found = [
        charts.Curve("m", str(s), steps, np.random.default_rng(s).random(300).tolist())
        for s in range(800)
    ]
    spec = charts.learning(found, ["m"], "t", "classification", charts.MOST_POINTS // (2 * 800))
    assert len(json.dumps(spec, separators=(",", ":"))) < 300_000


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
def test_verdicts_stand_out_from_a_light_page_and_from_a_dark_one(background):
    css = page._environment().get_template("page.css").render()
    assert background in css.replace("#fff;", "#ffffff;")
    for colour, _ in forest.OUTCOMES.values():
        a, b = sorted((luminance(colour), luminance(background)))
        assert (b + 0.05) / (a + 0.05) >= 3, "WCAG 2, 1.4.11"
    assert len({shape for _, shape in forest.OUTCOMES.values()}) == 4, "not by colour alone"
