"""What a study's page begins with: the paper's claims, the counts, the key to the signs."""

import re

import pytest
import yaml

from cml_bench.evidence.build import build
from cml_bench.evidence.verdict import GAIN, LOSS
from cml_bench.records import Store
from cml_bench.report import claims, key, signs, summary
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers import documents
from tests.helpers.checkouts import ROOT
from tests.helpers.pages import LEVEL, written
from tests.helpers.simulated import experiment, finish, study


def test_contrasts_that_are_not_of_cml_are_counted_apart(tmp_path):
    """A frozen co-learner is a control, although its method is CML's."""
    methods = {
        "maml": {},
        "maml+cml": {},
        "boil": {},
        "frozen": {"method": "maml+cml", "options": {"cml": {"frozen": True}}},
    }
    rows = [
        {"label": "MAML", "run": "maml"},
        {"label": "MAML + CML", "run": "maml+cml", "against": "maml"},
        {"label": "MAML + CML†", "run": "maml+cml", "reading": "co", "against": "maml"},
        {"label": "frozen", "run": "frozen", "against": "maml"},
        {"label": "BOIL", "run": "boil", "against": "maml"},
    ]
    table = {"kind": "accuracy", "experiment": "e", "title": "T", "rows": rows}
    content = {
        "study": "s",
        "seeds": 3,
        "experiments": {"e": experiment(400, methods=methods)},
        "tables": {"t": table},
    }
    plan = resolve(parse(content, "test"), "test")
    finish(plan, tmp_path, LEVEL)
    tables = [build(plan, Store(tmp_path), "t")]
    counted = summary.contrasts(plan, tables)
    assert {name: of["not tested"] for name, of in counted.items()} == {
        "CML": 2,
        "CML†": 2,
        "Other contrasts": 4,
    }


def test_claims_come_first(tmp_path, monkeypatch):
    """The study is named as one that a claim reads."""
    resolved = study(seeds=5)
    finish(resolved, tmp_path, LEVEL)
    size = {"data": ["glyphs"], "network": "conv4", "steps": {"maml": 100}}
    decider = {"kind": "gain", "study": "simulated", "table": "table1", "rows": ["MAML + CML"]}
    claim = {"claim": "CML gains.", "where": "here", "size": size, "decided_by": [decider]}
    content = {
        "source": "us",
        "studies": {"simulated": {"config": "none"}},
        "claims": {"one": claim},
    }
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(claims, "CLAIMS", path)
    html = written(resolved, tmp_path)
    sections = re.findall(r'<section id="([^"]+)">', html)
    assert sections[:2] == ["claims", "abstract"]
    told = re.search(r'<td class="label words" data-label="outcome">(.*?)</td>', html)[1]
    meaning = "every cell is as claimed, significant at 5 %"
    assert told.endswith(f'</span> <abbr title="{meaning}">holds</abbr>')
    assert f'<li class="holds" title="{meaning}"><b>1</b>' in html


def test_every_sign_has_its_meaning_on_hover():
    told = str(key.hinted("82.03 ± 1.31 (0.41)‡ ▼▼"))
    assert re.sub(r"<[^>]+>", "", told) == "82.03 ± 1.31 (0.41)‡ ▼▼"
    hints = dict(
        (sign, meaning) for meaning, sign in re.findall(r'<abbr title="([^"]+)">(.*?)</abbr>', told)
    )
    assert list(hints) == ["±", "(0.41)", "‡", "▼▼"]
    assert hints["▼▼"] == "a loss, adjusted p &lt; 0.01"
    assert "our 95 % interval" in key.hinted("undecided, paper's inside")
    assert str(key.hinted("<b> & more")) == "&lt;b&gt; &amp; more"
    assert "Holm" in str(key.heading("p (Holm)"))
    assert key.heading("gain [95 %]").startswith("<abbr")
    assert key.heading("where") == "where"
    assert key.heading("mean") == "mean", "its last letter is no n"


@pytest.mark.parametrize("name", signs.SIGNS)
def test_every_outcome_has_its_meaning_on_hover(name):
    assert key.outcome(signs.mark(name)[1]) or name in (GAIN, LOSS), name
    assert name in (GAIN, LOSS) or str(key.hinted(name)).startswith("<abbr"), name


def test_the_key_has_the_signs_that_occur_with_links_to_parts_of_the_docs():
    found = key.entries(["MAML + CML†", "53.00 ± 1.00"], ["method", "n"], ROOT / "results" / "s")
    assert [line["sign"] for line in found] == ["†", "±", "n"]
    assert found[0]["link"] == "../../docs/protocols.md#what-cml-means"
    for entry in key.KEY:
        name, _, anchor = entry.docs.partition("#")
        headings = re.findall(r"^#+ (.*)", (ROOT / "docs" / name).read_text(), flags=re.MULTILINE)
        assert anchor in {documents.anchor(heading) for heading in headings}


def test_a_page_outside_the_checkout_has_the_key_without_links(tmp_path):
    resolved = study(seeds=3)
    finish(resolved, tmp_path, LEVEL)
    html = written(resolved, tmp_path)
    part = re.search(r'<details id="key" open>(.*?)</details>', html, flags=re.DOTALL)[1]
    assert "<dt>†</dt>" in part
    assert "<dt>▲</dt>" not in part, "three seeds are not tested"
    assert "href" not in part
    assert (
        html.index("<h2>Abstract</h2>") < html.index('id="key"') < html.index('id="results-table1"')
    )
