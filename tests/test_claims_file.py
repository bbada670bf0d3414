"""Files of claims: bad ones, the shipped one, and the pages that show what was found."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from cml_bench import commands_show
from cml_bench.__main__ import main
from cml_bench.errors import UserError
from cml_bench.evidence import claims as evidence
from cml_bench.evidence.claims import HOLDS, Claims
from cml_bench.evidence.deciding import NOT_RUN
from cml_bench.records import Store
from cml_bench.report import claims, page, publish
from cml_bench.report.grids import Grid
from cml_bench.study import selection
from cml_bench.study.config import parse, read
from cml_bench.study.resolve import resolve
from tests.helpers.claims import FIGURE, GAIN, GOOD, a_claim, drawn, found, rewritten
from tests.helpers.simulated import ROWS, experiment, finish, study

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "configs" / "reference" / "claims.yaml"


BAD = {
    "table": (
        {"table": "tabel1"},
        r"unknown table \(in test, claim gains, study simulated\) 'tabel1'",
    ),
    "row": ({"rows": ["MAML + CLM"]}, r"row of table table1 .*'MAML \+ CLM'.*mean 'MAML \+ CML'"),
    "column": ({"columns": ["2-shot"]}, "column of table table1 .*'2-shot'.*Known: 1-shot, 5-shot"),
    "no baseline": ({"rows": ["MAML"]}, "row 'MAML' of table table1 is compared with nothing"),
    "over": ({"over": ["MAML", "MAML"]}, "`over` names 2 rows for the 1 of `rows`"),
    "over a co-learner": ({"over": ["MAML + CML†"]}, "is no meta-learner's"),
    "figure": ({**FIGURE, "rows": ..., "table": ...}, "unknown figure .* 'f'. Known: none"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_claim_that_names_what_is_not_there_is_refused_in_one_sentence(name, tmp_path):
    change, message = BAD[name]
    decider = {key: value for key, value in {**GAIN, **change}.items() if value is not ...}
    with pytest.raises(UserError, match=message) as error:
        found(study(seeds=1), tmp_path, decider)
    assert "\n" not in str(error.value)
    assert "claim gains, study simulated" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": "CLM"}, "row of f .*'CLM'.*mean 'CML'"),
        ({"against": ["MAMA"]}, "row of f .*'MAMA'.*mean 'MAML'"),
        ({"places": ["conv1"]}, "f is a curve and has no `places`"),
    ],
)
def test_a_claim_that_names_no_row_of_its_figure_is_refused(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        found(drawn(1, "accuracy"), tmp_path, {**FIGURE, **change})


def test_a_panel_that_is_not_there_and_a_figure_that_measures_nothing_are_refused(tmp_path):
    plan = drawn(1, "tsne")
    with pytest.raises(UserError, match=r"panel of f .*'aftr'.*mean 'after'"):
        found(plan, tmp_path, {**FIGURE, "places": ["aftr"]})


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"steps": 300}, "steps"),
        ({"options": {"inner_lr": 0.1}}, "inner_lr"),
        ({"network_options": {"filters": 16}}, "network.filters"),
    ],
)
def test_rows_that_differ_in_more_than_the_method_are_not_set_over_each_other(entry, key, tmp_path):
    one = experiment(400)
    one["methods"] = {**one["methods"], "other": {"method": "maml", **entry}}
    rows = [*ROWS, {"label": "MAML, other", "run": "other"}]
    config = {
        "study": "simulated",
        "seeds": 1,
        "experiments": {"e": one},
        "tables": {"table1": {"kind": "accuracy", "experiment": "e", "title": "T", "rows": rows}},
    }
    plan = resolve(parse(config, "test"), "test")
    with pytest.raises(UserError, match=rf"MAML \+ CML and MAML, other differ in {key}, so"):
        found(plan, tmp_path, {**GAIN, "over": ["MAML, other"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["claims"]["gains"].update(wher="x"), "wher"),
        (lambda c: c["claims"]["gains"]["decided_by"][0].update(kind="gian"), "gian"),
        (lambda c: c["claims"]["gains"]["decided_by"][0].update(study="x"), "claim gains.*'x'"),
    ],
)
def test_a_bad_file_is_named_with_its_key(change, message, tmp_path):
    content = a_claim(dict(GAIN))
    change(content)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{message}"):
        evidence.read(path)


def test_a_claim_of_a_row_that_is_not_there_stops_the_plan(tmp_path, monkeypatch, capsys):
    """Not after the training, when the page is written."""
    monkeypatch.chdir(tmp_path)
    bad = a_claim({**GAIN, "rows": ["MAML + CLM"]})
    evidence.FILE.parent.mkdir(parents=True)
    evidence.FILE.write_text(yaml.safe_dump(bad))
    table = {"kind": "accuracy", "experiment": "e", "title": "T", "rows": ROWS}
    experiments = {"e": experiment(40)}
    mine = {"study": "simulated", "experiments": experiments, "tables": {"table1": table}}
    Path("my.yaml").write_text(yaml.safe_dump(mine))
    assert main(["plan", "--config", "my.yaml", "--out", "plan.json"]) == 2
    said = capsys.readouterr().err
    assert "claim gains, study simulated) 'MAML + CLM'" in said
    assert "If `study: simulated` is a study of your own, give it another name." in said
    assert not Path("plan.json").exists()
    evidence.FILE.write_text(yaml.safe_dump(a_claim(GAIN)))
    assert main(["plan", "--config", "my.yaml", "--out", "plan.json"]) == 0
    other = {**mine, "study": "other"}
    evidence.FILE.write_text(yaml.safe_dump(bad))
    Path("my.yaml").write_text(yaml.safe_dump(other))
    assert main(["plan", "--config", "my.yaml", "--out", "plan.json"]) == 0, "not its claims"


def test_a_method_without_steps_of_the_paper_is_refused(tmp_path):
    with pytest.raises(UserError, match="names no outer steps of maml: add it under `steps`"):
        found(study(seeds=1), tmp_path, GAIN, steps={"boil": 1})


# -- the pages


def test_a_studys_page_has_the_claims_that_it_decides_alone(tmp_path, monkeypatch):
    plan = study(seeds=6)
    finish(plan, tmp_path, GOOD)
    path = tmp_path / "claims.yaml"
    content = a_claim(GAIN)
    other = {**GAIN, "study": "other"}
    content["studies"]["other"] = {"config": "other.yaml"}
    content["claims"]["others"] = {**content["claims"]["gains"], "decided_by": [other]}
    content["claims"]["both"] = {**content["claims"]["gains"], "decided_by": [GAIN, other]}
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(claims, "CLAIMS", path)
    html = page.write(plan, tmp_path, tmp_path / "out", []).read_text()
    assert 'id="claims"' in html
    assert len(re.findall(r">[^<]*\bholds(?:</abbr>)?</td>", html)) == 2
    shown = claims.of_study(plan, Store(tmp_path), tmp_path, path)
    assert [row[5] for row in shown.rows] == [HOLDS, HOLDS]
    assert shown.rows[0][2] == "glyphs, 100 steps, n = 6, commit unknown"
    made = {"source": {"commit": "1a2b3c4d", "clean": False, "files": {}}}
    rewritten(plan, tmp_path, lambda content, seed: content.update(made))
    shown = claims.of_study(plan, Store(tmp_path), tmp_path, path)
    assert (
        shown.rows[0][2]
        == "glyphs, 100 steps, n = 6, commit 1a2b3c4 edited, unknown in 12 of 24 runs"
    )
    monkeypatch.setattr(claims, "CLAIMS", tmp_path / "none.yaml")
    assert 'id="claims"' not in page.write(plan, tmp_path, tmp_path / "out", []).read_text()


def test_the_command_shows_one_study_from_its_committed_results(shipped, monkeypatch, capsys):
    _, plans = shipped
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(commands_show, "planned", lambda args: plans[args.config[0].stem])
    arguments = ["claims", "--config", "omniglot", "--results", "results/reference/omniglot"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "not run" not in text.partition("Each line is a claim")[0], "its figures are found"
    assert main([*arguments, "--publish"]) == 2
    assert "leave out --config" in capsys.readouterr().err
    monkeypatch.setattr(commands_show, "planned", lambda args: study(seeds=1))
    assert main(arguments) == 2
    assert "claims.yaml is decided by simulated" in capsys.readouterr().err


def test_a_study_that_another_includes_has_the_claims_of_its_tables(tmp_path):
    content = a_claim({**GAIN, "study": "whole"}, {**GAIN, "study": "whole", "table": "table9"})
    content["studies"] = {"whole": {"config": "w.yaml", "parts": ["simulated"]}}
    mine = Claims.read(content, "test").of(study(seeds=1))
    (decider,) = mine.claims["gains"].decided_by
    assert (decider.study, decider.table) == ("simulated", "table1")


@pytest.fixture(scope="module")
def shipped():
    """The shipped claims, and the plans of the studies that they name."""
    file = evidence.read(SHIPPED)
    plans = {
        name: resolve(read(ROOT / study.config), study.config)
        for name, study in file.studies.items()
    }
    return file, plans


def of_nothing_run(plan):
    return selection.narrowed(plan, Store("nowhere"))


def test_the_shipped_claims_are_of_the_shipped_configurations(shipped):
    file, plans = shipped
    evidence.check(file, {name: of_nothing_run(plan) for name, plan in plans.items()}, SHIPPED)
    assert {name: plan.study.study for name, plan in plans.items()} == {n: n for n in plans}
    included = yaml.safe_load((ROOT / file.studies["paper"].config).read_text())["include"]
    assert [*file.studies["paper"].parts] == [read(ROOT / path).study for path in included]
    assert "demo" not in plans


def test_the_committed_studies_decide_the_claims_as_the_page_says(shipped, monkeypatch):
    """`python -m cml_bench claims --publish` makes docs/claims.md again."""
    file, plans = shipped
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(claims.plan, "cached", lambda content, where: plans[content["study"]])
    shown = claims.grid(file, claims.published(file, SHIPPED), claims.HEADING)
    verdicts = dict(zip(file.claims, (row[5] for row in shown.rows), strict=True))
    assert set(verdicts.values()) <= set(evidence.VERDICTS)
    assert verdicts["any_gamma"] == NOT_RUN
    text = publish.CLAIMS.read_text()
    assert publish.between(text, "claims", claims.block(shown)) == text
    assert claims.block(shown) in text
    assert "Omniglot instead of MiniImagenet" in text
    assert not {"miniimagenet", "mamlpp", "cifar_fs"} & {*re.findall(r"\w+", claims.block(shown))}
    readme, brief = publish.README.read_text(), claims.brief(shown)
    assert publish.between(readme, "claims", brief) == readme
    assert brief in readme


def test_the_readmes_table_has_those_that_hold_first_and_names_the_rest_below():
    header = ["claim", "in the paper", "run here", "cells", "weakest", "outcome", "size"]
    rows = [
        ["A.", "Table 1", "r", "2: 2 undecided", "w", "cannot tell", "below the paper's size: x"],
        ["B.", "Table 2", "–", "2: 2 not run", "w", NOT_RUN, "–"],
        ["C*.", "Table 3", "r", "1: 1 as claimed", "w", HOLDS, "at the paper's size (assumed: y)"],
    ]
    rows.append(["D.", evidence.BEYOND, "r", "1: 1 as claimed", "w", HOLDS, rows[0][-1]])
    rows.append(["E.", evidence.BEYOND, "–", "1: 1 not run", "w", NOT_RUN, "–"])
    said, table, lost = claims.brief(Grid("h", header, rows, set())).split("\n\n")
    assert said == (
        "**Of the paper's 3 claims, 1 holds here, 0 do not hold, 1 cannot be told, 1 is not run.**"
        " Of 2 claims beyond the paper, 1 holds here, 1 is not run."
        " The paper's first: A. Here: **cannot tell** (2: 2 undecided)."
    )
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert cells == [
        [r"C\*.", "**holds**", "1: 1 as claimed", "the paper's"],
        ["D.", "**holds**", "1: 1 as claimed", "smaller"],
        ["A.", "**cannot tell**", "2: 2 undecided", "smaller"],
    ]
    assert lost == "Not run: the claims of Table 2."


def test_without_its_arrays_a_figures_claim_is_not_run(shipped, tmp_path):
    file, plans = shipped
    home = tmp_path / "omniglot"
    shutil.copytree(ROOT / "results" / "reference" / "omniglot", home)
    source = claims.source(plans["omniglot"], Store(home), home)
    claim = file.of(plans["omniglot"]).claims["clearer_clusters"]
    assert evidence.find(claim, {"omniglot": source}).verdict == HOLDS
    (home / "probes" / "figure4.npz").unlink()
    finding = evidence.find(claim, {"omniglot": source})
    assert finding.verdict == NOT_RUN
    assert "no arrays of figure4 are stored" in claims._weakest(finding)
