"""Claims files of one claim, and what is found of it in a simulated study."""

import json
from pathlib import Path

from cml_bench.evidence import claims as evidence
from cml_bench.evidence.claims import Claims
from cml_bench.records import Store
from cml_bench.report import claims
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.simulated import experiment

SIZE = {"data": ["glyphs"], "network": "conv4", "steps": {"maml": 100}}
GAIN = {"kind": "gain", "study": "simulated", "table": "table1", "rows": ["MAML + CML"]}
GOOD = {"base": 60, "meta": 63, "co": 64}


def a_claim(*deciders, **size) -> dict:
    """The content of a claims file of one claim."""
    claim = {
        "claim": "CML gains",
        "where": "Table 1",
        "size": {**SIZE, **size},
        "decided_by": list(deciders),
    }
    return {
        "source": "S",
        "studies": {"simulated": {"config": "none.yaml"}},
        "claims": {"gains": claim},
    }


def found(plan, results: Path, *deciders, home: Path | None = None, **size) -> evidence.Finding:
    """What is found of a claim with these deciders in a simulated study."""
    file = Claims.read(a_claim(*deciders, **size), "test")
    source = claims.source(plan, Store(results), home or results)
    evidence.check(file, {"simulated": source.plan}, "test")
    return evidence.find(file.claims["gains"], {"simulated": source})


FIGURE = {"kind": "figure", "study": "simulated", "figure": "f", "row": "CML"}


def drawn(seeds: int, kind: str):
    """A plan with a figure of MAML and MAML + CML."""
    rows = [{"label": "MAML", "run": "maml"}, {"label": "CML", "run": "maml+cml"}]
    config = {
        "study": "simulated",
        "seeds": seeds,
        "experiments": {"e": experiment(400, shots=[5])},
        "figures": {"f": {"kind": kind, "experiment": "e", "title": "F", "runs": rows}},
    }
    return resolve(parse(config, "test"), "test")


def rewritten(plan, results: Path, change) -> None:
    """Change the content of every record of MAML + CML, by its seed."""
    for spec in plan.specs.values():
        if spec.method == "maml+cml":
            path = results / "runs" / spec.folder / "record.json"
            content = json.loads(path.read_text())
            change(content, spec.seed)
            path.write_text(json.dumps(content))
