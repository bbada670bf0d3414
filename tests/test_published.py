"""Results beside published numbers: which may be judged, and what is said of them.

The forms of the table are golden files.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cml_bench.errors import UserError
from cml_bench.evidence import paper
from cml_bench.evidence.build import build
from cml_bench.report import forms, write
from tests.helpers.beside_paper import LEVEL, PAPER, study
from tests.helpers.simulated import finish

GOLDEN = Path(__file__).parent / "golden" / "beside"


def built(tmp_path, level=LEVEL, seed_sd=0.3, status=None, only=None, **options):
    resolved = study(tmp_path, **options)
    return build(resolved, finish(resolved, tmp_path / "r", level, seed_sd, status, only), "beside")


def said(table):
    """(row, shot) -> verdict on the level, or the reason why there is none."""
    return {
        (b.label, b.column.shot): b.level.verdict if b.level else b.reason for b in table.beside
    }


def test_levels_gains_and_rows_of_another_structure(tmp_path):
    table = built(tmp_path)
    assert said(table) == {
        ("MAML", 1): "reproduced",
        ("MAML", 5): "differs",
        ("MAML + CML", 1): "reproduced",
        ("MAML + CML", 5): "differs",
        ("MAML + CML†", 1): "not comparable: cml.gamma 1.0, the paper 0.5",
    }
    lines = {(b.label, b.column.shot): b for b in table.beside}
    gain = lines["MAML + CML", 1].gain
    assert (gain.verdict, gain.paper_inside) == ("gain", True)
    assert lines["MAML + CML", 1].paper_gain == pytest.approx(4.8)
    assert lines["MAML", 1].gain is None
    assert lines["MAML + CML†", 1].level is None, "no difference to the paper either"
    assert "did not run: D (E et al.)." in " ".join(table.notes)
    assert "reproduced (2 of 5); differs (2 of 5); not comparable: cml.gamma" in " ".join(
        table.notes
    )
    assert any(note == "Erratum: one ± is printed as 0.61" for note in table.notes)


def test_a_wide_interval_is_never_a_reproduction(tmp_path):
    assert said(built(tmp_path, seed_sd=6.0))["MAML", 1] == "cannot tell"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"protocol": "matched"}, "protocol.optimizer_reset_every 0 instead of 100"),
        ({"protocol_options": {"val_tasks": 50}}, "protocol.val_tasks 50 instead of 100"),
        (
            {"methods": {"maml": {"options": {"inner_lr": 0.1}}, "maml+cml": {}}},
            "inner_lr 0.1 instead of 0.5",
        ),
        ({"network_options": {"filters": 32}}, "network.filters 32 instead of 64"),
        ({"network_options": {"head_blocks": 2}}, "network.head_blocks 2 instead of 0"),
        ({"steps": 99}, "steps 99, the paper 100"),
        ({"data_options": {"size": 20}}, "image size 20, the paper 28"),
        ({"seeds": 4}, "4 finished seeds, 5 needed"),
        ({"query": 4}, "query 4, the paper's code 5"),
        ({"evaluation": {"tasks": 4000, "query": 4}}, "test query 4, the paper's code 5"),
    ],
)
def test_what_is_not_comparable_says_why(tmp_path, options, reason):
    reason = f"not the official protocol: {reason}" if "instead" in reason else reason
    assert said(built(tmp_path, **options))["MAML", 1] == f"not comparable: {reason}"


@pytest.mark.parametrize(
    ("cml", "reason"),
    [
        ({"frozen": True}, "cml.frozen True instead of False"),
        ({"depth": 0}, "cml.depth 0 instead of None"),
    ],
)
def test_a_co_learner_of_another_kind_is_another_row(tmp_path, cml, reason):
    methods = {"maml": {}, "maml+cml": {"options": {"cml": {"gamma": 1.0, **cml}}}}
    table = built(tmp_path, methods=methods)
    assert said(table)["MAML + CML", 1] == f"not comparable: not the official protocol: {reason}"
    assert said(table)["MAML", 1] == "reproduced"


@pytest.mark.parametrize(
    ("gamma", "said_of_it", "of_the_other_row"),
    [
        (0.5, "reproduced", "not the official protocol: cml.gamma 0.5 instead of 1.0"),
        (1.0, "not comparable: cml.gamma 1.0, the paper 0.5", ""),
    ],
)
def test_an_option_of_the_published_row_is_asked_for(tmp_path, gamma, said_of_it, of_the_other_row):
    methods = {"maml": {}, "maml+cml": {"options": {"cml": {"gamma": gamma}}}}
    level = {"base": 50.0, "meta": 55.0, "co": 50.0}
    verdicts = said(built(tmp_path, level, methods=methods))
    assert verdicts["MAML + CML†", 1] == said_of_it
    other = f"not comparable: {of_the_other_row}" if of_the_other_row else "reproduced"
    assert verdicts["MAML + CML", 1] == other, "which has no gamma of its own"


def test_columns_may_have_a_structure_of_their_own(tmp_path):
    paper = json.loads(json.dumps(PAPER))
    paper["tables"]["t9"]["structures"] = {"": {"cml.depth": 0}}
    paper["tables"]["t9"]["rows"] = paper["tables"]["t9"]["rows"][1:2]
    right = {"maml": {}, "maml+cml": {"options": {"cml": {"gamma": 1.0, "depth": 0}}}}
    assert said(built(tmp_path / "a", paper=paper, methods=right))["MAML + CML", 1] == "reproduced"
    other = built(tmp_path / "b", paper=paper)
    assert said(other)["MAML + CML", 1] == "not comparable: cml.depth None, the paper 0"


def rewritten(resolved, results, only, **changes):
    """Change fields of the records whose specification satisfies ``only``."""
    for path in (results / "runs").glob("*/record.json"):
        content = json.loads(path.read_text())
        if only(content["spec"]):
            path.write_text(json.dumps(content | changes))


def test_a_pair_on_different_data_is_neither_tested_nor_judged(tmp_path):
    resolved = study(tmp_path)
    store = finish(resolved, tmp_path / "r", LEVEL, 0.3)
    rewritten(resolved, tmp_path / "r", lambda s: s["method"] == "maml", data_sha256="1" * 64)
    table = build(resolved, store, "beside")
    text = forms.text(table)
    assert "runs on different data: not tested" in text
    assert not re.search(r"\) [▲▼]", text)
    assert not any(cell.bold for _, _, cell in table.cells())
    line = next(b for b in table.beside if b.label == "MAML + CML")
    assert (line.level.verdict, line.gain) == ("reproduced", None)
    assert line.gain_reason == "runs on different data: not tested"


def test_there_is_no_verdict_on_a_gain_that_was_not_tested(tmp_path):
    broken = built(
        tmp_path,
        seeds=7,
        status=lambda s: "diverged" if (s.seed, s.method) == (3, "maml") else "finished",
    )
    line = next(b for b in broken.beside if b.label == "MAML + CML")
    assert (line.gain, line.gain_reason) == (None, "seed 3 of MAML diverged: not tested")
    assert "undecided" not in forms.text(broken)


def test_a_family_is_that_of_the_whole_table(tmp_path):
    """A sign in a part of a table, or in an unfinished one, is a sign of the finished table too."""
    resolved = study(tmp_path)
    weak = {"base": 50.0, "meta": 50.12, "co": 50.0}
    store = finish(resolved, tmp_path / "r", weak, 0.3, only=lambda s: s.shot == 1)
    row = build(resolved, store, "beside").rows[1]
    (difference,) = [cell.difference for cell in row.cells.values() if cell.difference]
    assert difference.holm_p == pytest.approx(min(1, 2 * difference.paired.p)), (
        "two differences are planned"
    )


def test_other_reasons(tmp_path):
    silent = built(tmp_path / "a", methods={"maml": {}, "maml+cml": {}})
    assert said(silent)["MAML + CML", 1] == "not comparable: gamma was not fixed beforehand"
    assert said(silent)["MAML", 1] == "reproduced"
    broken = built(
        tmp_path / "b", seeds=7, status=lambda s: "diverged" if s.seed == 3 else "finished"
    )
    assert said(broken)["MAML", 1] == "not comparable: 1 diverged of 7 seeds"
    other = json.loads(json.dumps(PAPER))
    other["tables"]["t9"]["settings"][""]["split"] = None
    assert (
        said(built(tmp_path / "c", paper=other))["MAML", 1]
        == "not comparable: split v1, not stated in the paper"
    )
    assert set(said(built(tmp_path / "d", only=lambda s: False)).values()) == {"no run yet"}


def test_two_data_hashes_are_not_one_data_set(tmp_path):
    resolved = study(tmp_path)
    store = finish(resolved, tmp_path / "r", LEVEL, 0.3)
    rewritten(
        resolved,
        tmp_path / "r",
        lambda s: s["method"] == "maml" and s["seed"] == 2,
        data_sha256="1" * 64,
    )
    assert "more than one data hash" in said(build(resolved, store, "beside"))["MAML", 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["tables"]["t9"]["rows"][0].update(copied=3), r"rows\.0\.copied"),
        (
            lambda p: p["tables"].update(t8=p["tables"].pop("t9")),
            r"unknown published table \(in .*\) 't9'",
        ),
        (lambda p: p["tables"]["t9"].update(colour="red"), "colour"),
    ],
)
def test_a_wrong_file_of_published_numbers_is_named(tmp_path, change, message):
    paper = json.loads(json.dumps(PAPER))
    change(paper)
    with pytest.raises(UserError, match=message):
        built(tmp_path, paper=paper)


def test_a_missing_file_of_published_numbers_is_named(tmp_path):
    resolved = study(tmp_path)
    (tmp_path / "published.yaml").unlink()
    with pytest.raises(UserError, match=r"there is no file .*published\.yaml: correct `published`"):
        build(resolved, finish(resolved, tmp_path / "r", LEVEL), "beside")


FORMS = {"md": forms.markdown, "tex": forms.latex, "csv": forms.csv, "txt": forms.text}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    resolved = study(folder)
    return resolved, finish(resolved, folder / "r", LEVEL, 0.3), folder


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_are_the_golden_ones(form, whole):
    """To accept a change: CML_BENCH_ACCEPT=1 pytest tests/test_published.py, then read the diff."""
    resolved, store, _ = whole
    text, path = FORMS[form](build(resolved, store, "beside")), GOLDEN / f"beside.{form}"
    if os.environ.get("CML_BENCH_ACCEPT"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_the_page_has_the_comparison(whole):
    resolved, _, folder = whole
    text = write.page(resolved, folder / "r").read_text()
    assert "<h3>Beside the paper</h3>" in text
    assert ' data-sort="54.9">54.90</td>' in text
    assert "not comparable: cml.gamma 1.0, the paper 0.5" in text
    assert "No number here is set beside one of the paper" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex; none is installed")
def test_the_latex_compiles(whole):
    resolved, store, folder = whole
    table = build(resolved, store, "beside")
    table.rows[0].label = "CL⋆, γ = 1 & 100 % of #1_a^b {x} ~ \\ $ < > × ± † ‡ −"
    body = forms.latex(table)
    (folder / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        + body
        + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout + (folder / "t.log").read_text()


def test_a_file_of_published_numbers_reads_as_one(tmp_path):
    (tmp_path / "p.yaml").write_text("[")
    with pytest.raises(UserError, match=r"p\.yaml is not readable as YAML"):
        paper.read(tmp_path / "p.yaml")
