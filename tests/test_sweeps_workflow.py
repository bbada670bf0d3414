"""A study with a sweep, from nothing to its tables, by one command."""

import json

import pytest
import yaml

from tests.helpers.checkouts import changed, snakemake

STEPS = {"inner_lr": [0.001, 0.02]}


@pytest.mark.slow
def test_one_command_tries_selects_trains_and_reports(checkout):
    config = changed(steps=4, runs_per_job=20, protocol_options={"val_every": 2, "val_tasks": 4})
    config["experiments"]["sinusoid"]["sweep"] = {"seeds": 2, "methods": {"maml": STEPS}}
    (checkout / "swept.yaml").write_text(yaml.safe_dump({**config, "seeds": 2}))
    given = "set=sinusoid.maml+cml.inner_lr=0.001,0.02"  # the other method's, beside the file
    done = snakemake(checkout, "--config", given, config="swept.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    for told in ("MAML + CML, tuned − MAML, tuned", "MAML and MAML + CML have equal budgets", "✓"):
        assert told in done.stdout

    out = checkout / "results" / "grown"
    kept = json.loads((out / "selected.json").read_text())
    picked = {one["method"]: one["selected"]["inner_lr"] for one in kept["sweeps"]}
    records = [
        json.loads(path.read_text()) for path in (checkout / "results").glob("runs/*/record.json")
    ]
    rates = {method: {"tried": set(), "report": set()} for method in picked}
    for record in records:
        spec, tried = record["spec"], record["spec"]["seed"] >= 1000
        rates[spec["method"]]["tried" if tried else "report"].add(spec["options"]["inner_lr"])
        assert bool(record["results"]) is not tried, "no run of the selection is tested"
    published = 0.01
    for method, rate in picked.items():
        assert rates[method] == {"tried": {0.001, 0.02}, "report": {published, rate}}
    assert len(records) == 2 * (2 * 2 + 2 + 2)
    assert "Sweeps: all settings" in (out / "report.html").read_text()

    again = snakemake(checkout, "--config", given, config="swept.yaml")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "training" not in again.stderr
    assert "MAML + CML, tuned" in again.stdout
