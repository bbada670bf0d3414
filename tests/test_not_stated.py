"""What the paper does not state: such a cell is shown beside the paper's number, and not judged."""

import json

import pytest
import yaml

from cml_bench.__main__ import main
from cml_bench.errors import UserError
from cml_bench.evidence import paper, verdict
from cml_bench.evidence.build import build
from cml_bench.report import forms, summary
from tests.helpers.beside_paper import LEVEL, PAPER, study
from tests.helpers.simulated import ROWS, experiment, finish

W = {"what": "W", "place": "section 4 names it alone"}
SAID = "setting not stated in the paper: W"


def open_paper(*entries, **table):
    """The published numbers of PAPER, which leave open what the entries say."""
    content = json.loads(json.dumps(PAPER))
    content["not_stated"] = [{**W, **entry} for entry in entries]
    content["tables"]["t9"].update(table)
    return content


def built(tmp_path, *entries, table=None, **options):
    resolved = study(tmp_path, paper=open_paper(*entries, **(table or {})), **options)
    return build(resolved, finish(resolved, tmp_path / "r", LEVEL, 0.3), "beside")


def not_judged(table):
    """Labels of the rows that have a difference to the paper and no verdict on it."""
    return {
        line.label
        for line in table.beside
        if line.level and line.outcome.startswith(verdict.NOT_STATED)
    }


def test_the_difference_is_shown_and_the_level_is_not_judged(tmp_path):
    plain, table = built(tmp_path / "a"), built(tmp_path / "b", {"data": ["glyphs"]})
    for line, judged in zip(table.beside, plain.beside, strict=True):
        if judged.level is None:  # another gamma than that of the row: that comes first
            assert (line.level, line.reason) == (None, judged.reason)
            continue
        assert (line.outcome, line.reason) == (SAID, "")
        assert (line.level.low, line.level.high) == (judged.level.low, judged.level.high)
    lines = {(line.label, line.column.shot): line for line in table.beside}
    gain = lines["MAML + CML", 1].gain
    assert (gain.verdict, gain.paper_inside) == ("gain", True), "a test of our own runs"
    row = next(
        line for line in forms.text(table).splitlines() if line.startswith("MAML ") and SAID in line
    )
    assert "−0.07 [−0.30, +0.17]" in row
    counts = summary.tally([table])
    assert (counts["reproduced"], counts["differs"], counts["not judged"]) == (0, 0, 5)
    told = [note for note in table.notes if note.startswith("The paper does not state")]
    assert told == [
        "The paper does not state a setting, which is assumed here: W (section 4 names it alone)."
        " So no level is judged of MAML, MAML + CML."
    ]


@pytest.mark.parametrize(
    ("entry", "rows"),
    [
        ({"data": ["omniglot"]}, set()),
        ({"network": ["conv4"]}, {"MAML", "MAML + CML"}),
        ({"network": ["resnet12"]}, set()),
        ({"method": ["maml"]}, {"MAML"}),
        ({"method": ["maml+cml"]}, {"MAML + CML"}),
        ({"method": ["maml", "boil"], "data": ["omniglot"]}, set()),
        ({"options": {"cml.gamma": None}}, {"MAML + CML"}),
        ({"options": {"cml.gamma": [1.0]}}, {"MAML + CML"}),
        ({"options": {"cml.gamma": [0.5]}}, set()),
        ({"options": {"inner_lr": [0.5]}, "method": ["maml"]}, {"MAML"}),
        ({"options": {"cml.depth": None}}, set()),
    ],
)
def test_where_it_applies(tmp_path, entry, rows):
    assert not_judged(built(tmp_path, entry)) == rows


def test_it_may_hold_for_one_table_alone(tmp_path):
    entry = {**W, "network": ["conv4"]}
    assert not_judged(built(tmp_path, table={"not_stated": [entry]})) == {"MAML", "MAML + CML"}


def test_several_settings_are_all_named(tmp_path):
    table = built(tmp_path, {"data": ["glyphs"]}, {"what": "V", "method": ["maml"]})
    assert {line.outcome for line in table.beside if line.label == "MAML"} == {f"{SAID}; V"}


def test_of_an_option_that_is_left_open_every_value_will_do(tmp_path):
    methods = {"maml": {}, "maml+cml": {"options": {"cml": {"gamma": 0.2}}}}
    closed = built(tmp_path / "a", methods=methods)
    left_open = built(tmp_path / "b", {"options": {"cml.gamma": None}}, methods=methods)
    other = built(tmp_path / "c", {"options": {"cml.gamma": [0.2]}}, methods=methods)
    wrong = "not comparable: not the official protocol: cml.gamma 0.2 instead of 1.0"
    said = [
        next(line.outcome for line in table.beside if line.label == "MAML + CML")
        for table in (closed, left_open, other)
    ]
    assert said == [wrong, SAID, wrong]
    assert "W (cml.gamma 0.2; section 4 names it alone)" in " ".join(left_open.notes)
    dagger = next(line for line in left_open.beside if line.label == "MAML + CML†")
    assert dagger.outcome == "not comparable: cml.gamma 0.2, the paper 0.5", "this row states it"


def test_a_split_that_is_left_open_is_no_other_split(tmp_path):
    setting = {"data": "glyphs", "size": 28, "backbone": "conv4", "way": 5}
    for number, (split, outcome) in enumerate(
        (
            (["v0", "v1"], "reproduced"),
            (["v1", "v0"], "reproduced"),
            (["v0", "v2"], "not comparable: split v1, the paper v0"),
        )
    ):
        table = built(tmp_path / str(number), table={"settings": {"": {**setting, "split": split}}})
        assert table.beside[0].outcome == outcome


def test_a_baseline_is_not_asked_for_the_columns_co_learner(tmp_path):
    methods = {"maml": {}, "maml+cml": {"options": {"cml": {"gamma": 1.0, "depth": 0}}}}
    table = built(tmp_path, methods=methods, table={"structures": {"": {"cml.depth": 0}}})
    line = next(line for line in table.beside if line.label == "MAML + CML")
    assert (line.outcome, line.gain_reason) == ("reproduced", "")
    assert line.gain.verdict == "gain"


# -- bad input


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, r"not_stated\.0: .*say where it applies, by data, network, method or options"),
        ({"rows": ["MAML"]}, r"unknown key 'not_stated\.0\.rows'"),
        ({"data": "glyphs"}, r"not_stated\.0\.data: "),
        ({"method": ["MAML"]}, r"not_stated\.0\.method\.0: "),
        ({"options": {"cml.gamma": []}}, r"not_stated\.0\.options\.cml\.gamma: "),
        ({"data": ["glyphs"], "what": ""}, r"not_stated\.0\.what: "),
        ({"data": ["glyphs"], "place": None}, r"not_stated\.0\.place: "),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, entry, message):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(open_paper(entry)))
    with pytest.raises(UserError, match=rf"p\.yaml: {message}") as raised:
        paper.read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ["glyph"]}, "unknown data set (in {path}, not_stated.0) 'glyph'"),
        ({"network": ["conv"]}, "unknown network (in {path}, not_stated.0) 'conv'"),
        ({"method": ["mamlpp+co"]}, "unknown method (in {path}, not_stated.0) 'mamlpp+co'"),
    ],
)
def test_a_name_that_does_not_exist_is_told_before_anything_runs(tmp_path, capsys, change, message):
    path, file = tmp_path / "published.yaml", tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(open_paper(change)))
    table = {"kind": "accuracy", "experiment": "e", "title": "T", "rows": ROWS, "paper": "t9"}
    config = {
        "study": "s",
        "published": str(path),
        "results": str(tmp_path / "results"),
        "experiments": {"e": experiment(40)},
        "tables": {"table1": table},
    }
    file.write_text(yaml.safe_dump(config))
    out = tmp_path / "plan.json"
    assert main(["plan", "--config", str(file), "--out", str(out)]) == 2
    assert message.format(path=path) in capsys.readouterr().err
    assert not out.exists()
    path.unlink()
    assert main(["plan", "--config", str(file), "--out", str(out)]) == 2
    assert "correct `published`" in capsys.readouterr().err
