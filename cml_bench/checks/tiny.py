"""A tiny study of a method, and of it with a co-learner: planned, trained, tested, reopened."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cml_bench import registry
from cml_bench.checks import laws
from cml_bench.checks.subject import way_of
from cml_bench.engine.build import Settings
from cml_bench.engine.learner import load
from cml_bench.engine.run import run
from cml_bench.records import Record, Store
from cml_bench.registry import CML
from cml_bench.spec import RunSpec
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from cml_bench.system import sources
from cml_bench.system.files import write_text

# What a method is tried on: network, its options, data, its options.
Place = tuple[str, dict[str, Any], str, dict[str, Any]]
Study = Callable[..., None]
_WHERE = "a tiny study"
_LINES = 4  # of what Snakemake says from its first error on


def in_process(method: str, place: Place, folder: Path, data_dir: Path | None = None) -> None:
    """Make its runs one after another in this process. Broken if one has no results."""
    settings = Settings(
        results=folder / "results",
        data_dir=data_dir or folder,
        path="fast",
        report=lambda line: None,
    )
    for spec in resolve(parse(_content(method, place), _WHERE), _WHERE).specs.values():
        _reopen(run(spec, settings), spec, settings.results, settings.data_dir)


def by_workflow(method: str, place: Place, folder: Path, data_dir: Path | None = None) -> None:
    """Start it as a user does, through Snakemake to its table. Broken tells how that ended."""
    home, file = (data_dir or folder).resolve(), folder / "tiny.yaml"
    content = _content(method, place)
    content |= {"results": str(folder / "results"), "data_dir": str(home)}
    if plugins := sorted({str(path) for path in sources.PLUGINS.values()}):
        content["plugins"] = plugins
    write_text(file, yaml.safe_dump(content))
    command = [sys.executable, "-m", "cml_bench", "run", str(file), "--cores", "1"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        lines = done.stderr.split("\n")
        first = next((i for i, line in enumerate(lines) if "error" in line.lower()), 0)
        said = " ".join(" ".join(lines[first : first + _LINES]).split())
        raise laws.Broken(f"snakemake ended with {done.returncode}: {said}")
    results = folder / "results"
    for spec in resolve(parse(content, _WHERE), _WHERE).specs.values():
        _reopen(Store(results).read(spec), spec, results, home)


def _reopen(record: Record | None, spec: RunSpec, results: Path, data_dir: Path) -> None:
    if record is None or not record.results:
        raise laws.Broken(f"the run of {spec.method} has no results: it diverged")
    if registry.method(spec.method).learns:
        load(record.folder, results, data_dir)


def _content(method: str, place: Place) -> dict[str, Any]:
    """The configuration: two runs of four outer steps, and their table."""
    network, network_options, data, data_options = place
    cls, source = registry.method(method), registry.datasets.get(data)
    pair = [method, *([method + CML] if cls.learns and cls.accepts_colearner else [])]
    experiment = {
        "data": data,
        "data_options": data_options,
        "network": network,
        "network_options": network_options,
        "way": way_of(source(source.Options.read(data_options, data))),
        "shots": [2],
        "query": 2,
        "steps": 4,
        "protocol_options": {"val_every": 2, "val_tasks": 2},
        "evaluation": {"tasks": 4, "query": 2},
        "methods": {name: {} for name in pair},
    }
    rows = [{"label": name, "run": name} for name in pair]
    table = {"kind": "accuracy", "experiment": "tiny", "title": "A tiny study", "rows": rows}
    study = {"study": "check", "seeds": 1, "experiments": {"tiny": experiment}}
    return study | ({} if source.kind == "regression" else {"tables": {"tiny": table}})
