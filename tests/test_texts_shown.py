"""Awkward texts on the page, in charts and pictures, and in Snakemake's report."""

import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import vl_convert
from docutils.core import publish_parts
from jinja2 import Environment
from matplotlib.text import Text

from cml_bench import texts
from cml_bench.evidence.build import build
from cml_bench.figures import style
from cml_bench.figures.kinds.cosine import CosineFigure
from cml_bench.figures.kinds.curves import CurvesFigure
from cml_bench.figures.kinds.gradients import GradientsFigure
from cml_bench.records import Store
from cml_bench.report import charts, cite, forest, write
from tests.helpers.awkward import BASE, CAPTION, GROUP, LABELS, LEVEL, SHOWN, TITLE, study
from tests.helpers.checkouts import ROOT
from tests.helpers.pages import specs_in, written
from tests.helpers.plans import edited
from tests.helpers.simulated import finish

# -- the page


class Page(HTMLParser):
    """A reader of a page: the number of elements, and the texts of cells, items and headings."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.alts, self.texts, self.open = Counter(), [], [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.alts += [value for name, value in attrs if name == "alt"]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag in ("th", "td", "li", "h1", "h2", "p", "title", "figcaption"):
            self.open = self.texts.setdefault(tag, [])
            self.open.append("")

    def handle_endtag(self, tag):
        if tag in self.texts:
            self.open = []

    def handle_data(self, data):
        if self.open:
            self.open[-1] += data


def test_the_page_has_every_label_and_no_element_more(awkward, tmp_path):
    resolved, root, _ = awkward
    html = written(resolved, root)
    page = Page(html)
    plain = study(
        [f"label {k}" for k in range(len(LABELS))], "base", "G", "T", "C, where `x` is code"
    )
    finish(plain, tmp_path, LEVEL)
    write.figures(plain, tmp_path, [])
    other = Page(written(plain, tmp_path))
    signs = {"abbr", "div", "dt", "dd"}  # a label may hold signs, which have hints and a key
    assert all(page.tags[tag] == other.tags[tag] for tag in {*page.tags, *other.tags} - signs)
    assert page.ids == Page(html.replace(TITLE, "T")).ids
    assert len(set(page.ids)) == len(page.ids)
    assert page.texts["h1"] == page.texts["title"] == [TITLE]
    assert TITLE in page.texts["h2"]
    assert SHOWN in page.texts["p"], "the summary"
    assert page.texts["figcaption"][0].startswith(SHOWN)
    assert page.alts == [TITLE]
    names = [text for text in page.texts["th"] if text in LABELS]
    assert list(dict.fromkeys(names)) == list(LABELS), (
        "with their backticks, for a label has no code"
    )
    assert [label for label in LABELS if f"{label} − {BASE}" not in page.texts["th"]] == []
    assert [
        k
        for k in LABELS
        if not any(note.startswith(f"{k} is above {BASE}") for note in page.texts["li"])
    ] == []


def texts_in(svg: str) -> list[str]:
    """Every line of text of a chart."""
    elements = ElementTree.fromstring(svg).iter()
    return [e.text for e in elements if e.text and e.tag.endswith(("}tspan", "}text"))]


def test_the_charts_of_the_page(awkward):
    resolved, root, table = awkward
    specs = specs_in(written(resolved, root))
    values = specs["forest-t-meta"]["data"]["values"]
    assert [value["line"].split("\n") for value in values] == [
        [label, f"{GROUP}, {shot}-shot"] for label in LABELS for shot in (1, 5)
    ]
    assert {value["method"] for value in specs["curve-1-1"]["data"]["values"]} == {BASE, LABELS[0]}
    (panel,) = forest.panels(table).values()
    drawn = texts_in(vl_convert.vegalite_to_svg(panel | {"width": 400}, config=charts.CONFIG))
    assert [label for label in LABELS if label not in drawn] == []


def test_rows_of_one_label_are_told_apart_by_their_baselines():
    def alike(plan):
        rows = plan["tables"]["t"]["rows"]
        rows[1:] = [
            rows[1] | {"reading": "co"},
            rows[1] | {"run": "maml", "against": "maml+cml", "shown": False},
        ]

    two = build(edited(study(("x",)), alike), Store("nowhere"), "t")
    assert [two.compared(row) for row in two.rows] == [BASE, f"x − {BASE}", "x − maml+cml"]


def test_bibtex(awkward):
    resolved, _, _ = awkward
    renamed = edited(resolved, lambda plan: plan["study"].update(study="my_study"))
    note = re.search(r"note    = \{Study (.*), plan", cite.harness(renamed, []))[1]
    assert note == r"my\_study"
    assert r"{cml\_bench: a " in cite.harness(resolved, [])


# -- pictures


def shown_in(figure) -> list[str]:
    """Every text of a picture; a text that cannot be drawn fails."""
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    ElementTree.fromstring(style.encode(figure, "svg"))
    assert not any(text.get_parse_math() for text in texts)
    return [text.get_text() for text in texts]


def test_pictures_of_differences(awkward):
    _, _, table = awkward
    few = replace(table, rows=table.rows[:12])
    drawn = texts_in(vl_convert.vegalite_to_svg(forest.picture([few, few]), config=charts.PRINTED))
    assert [label for label in LABELS[:11] if label not in drawn] == []
    assert f"{GROUP}, 1-shot" in drawn
    assert TITLE in " ".join(drawn)


def test_pictures_of_curves_and_bars():
    labels, count = np.array(LABELS), len(LABELS)
    arrays = {
        "shots": np.array([5]),
        "tasks": np.array([0]),
        "x": np.linspace(-5, 5, 3),
        "labels": labels,
        "truth/5": np.ones((1, 3)),
        "curves/5": np.zeros((count, 1, 3)),
        "support_x/5": np.zeros((1, 5)),
        "support_y/5": np.ones((1, 5)),
        "steps/5": np.arange(3),
        "cosine/5": np.zeros((count, 2, 3)),
        "layer": np.array("conv_1$"),
        "layers": np.array(["conv_1", "$x"]),
        "norms/5": np.ones((count, 2, 2)),
    }
    looks = {"experiment": "e", "title": TITLE, "runs": [{"label": "MAML", "run": "maml"}]}
    for figure in (
        CurvesFigure(kind="curves", **looks),
        CosineFigure(kind="cosine", **looks),
        GradientsFigure(kind="gradients", **looks),
    ):
        picture = figure.drawn(arrays, list(range(count)))
        assert picture.get_suptitle() == TITLE
        (legend,) = picture.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert [name for name in names if name not in ("truth", "support")] == list(LABELS)
        assert shown_in(picture)


# -- Snakemake's report


@pytest.mark.parametrize("text", [*LABELS, TITLE, CAPTION])
def test_captions_of_snakemakes_report(text):
    told = texts.rst(text)
    context = SimpleNamespace(
        params=SimpleNamespace(caption=told),
        wildcards=SimpleNamespace(figure="f_", table="t_"),
        config={"study": "s_", "told": {"title": told, "summary": told}},
    )
    for name in ("figure", "table", "study"):
        template = (ROOT / "workflow" / "report" / f"{name}.rst").read_text(encoding="utf-8")
        source = Environment().from_string(template).render(snakemake=context, categories={})
        source += "\n\n.. _Workflow: x\n.. _Statistics: x\n"
        strict = {"report_level": 2, "halt_level": 2, "warning_stream": io.StringIO()}
        read = Page(publish_parts(source, writer="html", settings_overrides=strict)["body"])
        assert "</script" not in source
        paragraphs = " ".join(read.texts["p"])
        assert paragraphs.count(text) == {"figure": 1, "table": 0, "study": 2}[name]


@pytest.mark.parametrize("text", ["{x}", "{table} a", "a </script> b", "{{ y }}"])
def test_labels_of_snakemakes_report_are_no_wildcards(text):
    from snakemake.io import apply_wildcards

    label = apply_wildcards(texts.snakemake_label(text), {"table": "t"})
    assert label.replace("\u2060", "") == text
    assert "</script" not in json.dumps(label)
