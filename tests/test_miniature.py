"""Whole studies on miniature archives in the published formats, from files to tables."""

import json

import pytest
import yaml

from cml_bench import registry
from cml_bench.study import config
from tests.helpers import archives
from tests.helpers.checkouts import ROOT, snakemake, trained

FILTERS = {"conv4": 4, "resnet12": 2, "mlp": None}


def small(path: str, per_job: int = 10) -> dict:
    """A shipped configuration with all its runs, tables and files, shortened to a few steps.

    Networks are narrow.
    """
    content = config.included(yaml.safe_load((ROOT / path).read_text()), path)
    for experiment in content["experiments"].values():
        width = FILTERS[experiment["network"]]
        experiment |= {
            "steps": 2,
            "runs_per_job": per_job,
            "query": 2,
            "evaluation": {"tasks": 3, "query": 2},
        }
        experiment["protocol_options"] = {"val_every": 2, "val_tasks": 2, "meta_batch": 1}
        experiment["network_options"] = {"filters": width} if width else {"hidden": [4, 4]}
    return content | {"seeds": 2, "allow_cpu": True}


@pytest.mark.slow
def test_table_1_on_miniature_archives(checkout, tmp_path):
    mine = archives.sources({"miniimagenet": archives.miniimagenet(tmp_path)})
    (checkout / "mini.yaml").write_text(yaml.safe_dump(small("configs/tables/table1.yaml") | mine))
    done = snakemake(checkout, config="mini.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert trained(done) == 8, "56 and 12 runs, at most ten a job"
    records = [
        json.loads(path.read_text())
        for path in (checkout / "results" / "runs").glob("*-mini*/record.json")
    ]
    runs = {(r["spec"]["method"], r["spec"]["shot"], r["spec"]["seed"]) for r in records}
    bases = ("maml", "mamlpp", "boil", "sharp_maml")
    assert runs >= {
        (b + c, k, s) for b in bases for c in ("", "+cml") for k in (1, 5) for s in (0, 1)
    }
    assert {registry.method(r["spec"]["method"]).name for r in records} == {
        b + c for b in bases for c in ("", "+cml")
    }
    out = checkout / "results" / "table1"
    for table in ("table1", "sharp_low", "readings"):
        for kind in ("md", "tex", "csv"):
            assert (out / "tables" / f"{table}.{kind}").stat().st_size > 500
    text = (out / "tables" / "table1.md").read_text()
    for row in ("MAML++ + CML†", "BOIL + CML", "Sharp-MAML + CML†"):
        assert f"| {row} " in text
    assert "Beside the paper" in text
    assert "49.32 ± 0.37" in text, "the paper's number stands beside ours"
    assert "not comparable" in text, "and nothing is said of two steps on another's pictures"
    assert "reproduced" not in text
    assert "n = 2: shown, not tested" in text
    assert "Beside the paper" in (out / "report.html").read_text()
    part = snakemake(checkout, "--", "table1_n1", config="mini.yaml")
    assert part.returncode == 0, part.stderr[-3000:]
    assert trained(part) == 0
    assert "(the first 1 seed)" in (out / "tables" / "table1_n1.md").read_text()
