"""The gate: what it lets pass, what it refuses, and mistakes that only golden traces show."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.evidence import gate as the_gate
from cml_bench.records import Store, write_episodes, write_record
from cml_bench.study.config import read
from cml_bench.study.resolve import resolve
from tests.helpers import mutations
from tests.helpers.simulated import LEVEL, finish, study
from tests.make_traces import FOLDER, trace

ROOT = Path(__file__).parent.parent
CELL = "e/maml/1-shot/meta"


@pytest.fixture
def gate(tmp_path):
    """A reference from ten simulated seeds, and a function that judges other runs.

    The function is ``judge(level, seeds, change)``.
    """
    reference = tmp_path / "ci.json"
    finish(study(seeds=10), tmp_path / "reference", LEVEL)
    the_gate.update(study(seeds=10), tmp_path / "reference", reference)

    def judge(level=LEVEL, seeds=3, change=lambda store: None, name="now"):
        resolved = study(seeds=seeds)
        store = finish(resolved, tmp_path / name, level)
        change(store)
        return {f.cell: f for f in the_gate.check(resolved, tmp_path / name, reference)}

    return judge, reference


def names(gate) -> list[str]:
    return list(gate[0]())


def test_equal_runs_hold_and_a_fall_is_found_in_its_cell_alone(gate):
    judge, _ = gate
    same = judge()
    assert len(same) == 6
    assert not any(finding.problem for finding in same.values())
    fallen = judge({**LEVEL, "base": 55.0}, name="fallen")
    offenders = [cell for cell, finding in fallen.items() if finding.problem]
    assert offenders
    assert all("/maml/" in cell for cell in offenders)
    risen = judge({**LEVEL, "base": 75.0}, name="risen")
    assert not any(finding.problem for finding in risen.values()), "better is never an offence"


def test_the_margin_is_as_documented(gate):
    judge, reference = gate
    known = json.loads(reference.read_text())
    for cell, finding in judge(seeds=3).items():
        old = known[cell]
        want = max(1.0, 2.262157 * old["deviation"] * np.sqrt(1 / 3 + 1 / 10))
        assert finding.margin == pytest.approx(want, rel=1e-5)


def edited(cell_part: str, **fields):
    """Change the record of one run of the method."""

    def change(store):
        record = next(r for r in store.all() if r.spec.method == cell_part and r.spec.seed == 1)
        write_record(record.folder, {**record.content, **fields})

    return change


def numberless(store):
    """Turn results into values that are no numbers: no comparison may pass them."""
    record = next(r for r in store.all() if r.spec.method == "maml" and r.spec.seed == 1)
    write_episodes(record.folder, {"meta@1": np.full(400, np.nan)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("maml", status="diverged"), "seed 1 diverged"),
        (edited("maml", status="collapsed"), "seed 1 collapsed"),
        (numberless, "is worse than the reference"),
        (edited("maml", data_sha256="1" * 64), "seed 1 was made from other data"),
        (edited("maml", id="0" * 64), "does not belong to its id"),
        (
            lambda store: (
                next(r for r in store.all() if r.spec.seed == 2)
                .folder.joinpath("record.json")
                .unlink()
            ),
            "seed 2 is missing",
        ),
    ],
)
def test_unusable_runs_are_offenders(gate, change, message):
    findings = gate[0](change=change)
    assert sum(message in finding.problem for finding in findings.values()) >= 1


def test_another_recipe_and_forgotten_references_are_offenders(gate):
    judge, reference = gate
    known = json.loads(reference.read_text())
    first, second = list(known)[:2]
    known[first]["recipe"] = "0" * 16
    known["gone/maml/1-shot/meta"] = known.pop(second)
    reference.write_text(json.dumps(known))
    findings = judge()
    assert "specification is not the reference's" in findings[first].problem
    assert "has no reference" in findings[second].problem
    assert "no longer in the configuration" in findings["gone/maml/1-shot/meta"].problem


def test_update_says_what_moved_and_refuses_what_cannot_be_a_reference(gate, tmp_path):
    _, reference = gate
    before = reference.read_bytes()
    finish(study(seeds=10), tmp_path / "better", {**LEVEL, "base": 70.0})
    lines = the_gate.update(study(seeds=10), tmp_path / "better", tmp_path / "other.json")
    assert all(line.endswith("(new)") for line in lines)
    finish(study(seeds=3), tmp_path / "few", LEVEL)
    with pytest.raises(UserError, match=r"3 seeds, 10 are needed.*Nothing was written"):
        the_gate.update(study(seeds=3), tmp_path / "few", reference)
    assert reference.read_bytes() == before
    moved = the_gate.update(study(seeds=10), tmp_path / "better", reference)
    assert any("+" in line.rsplit("(", 1)[1] and "+0.0000" not in line for line in moved)


def test_a_missing_or_damaged_reference_is_named(tmp_path, capsys):
    config = str(ROOT / "configs" / "ci.yaml")
    assert main(["check", "--config", config, "--reference", str(tmp_path / "no.json")]) == 2
    assert "no.json: make one with check --update" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("{")
    assert main(["check", "--config", config, "--reference", str(tmp_path / "bad.json")]) == 2
    assert "bad.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("trained", [0, 1])
def test_make_gate_checks_even_when_a_training_failed(trained, tmp_path):
    """The lines are the Makefile's own; the commands in them only say that they were called."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    said = f"#!/bin/sh\necho called $*\n[ $2 = snakemake ] && exit {trained}\nexit 2\n"
    (programs / "python").write_text(said)
    (programs / "python").chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    done = subprocess.run(["make", "gate", "CORES=1"], cwd=tmp_path, capture_output=True, text=True)
    assert "called -m snakemake --cores=1" in done.stdout
    assert "called -m cml_bench check" in done.stdout
    assert done.returncode != 0, "the offenders decide"


# -- real runs


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    cls = registry.datasets.get("glyphs")
    cls(cls.Options()).prepare(folder)
    return folder


def offenders(results: Path, data: Path, experiment: str, method: str) -> dict[str, str]:
    """Train the gate's runs of one method with the present code; cell -> problem."""
    resolved = resolve(read(ROOT / "configs" / "ci.yaml"), "ci")
    settings = Settings(results=results, data_dir=data, report=lambda text: None, diagnostics=False)
    wanted = {i for ids in resolved.members[experiment][method].values() for i in ids}
    for item in resolved.runs:
        if item.id in wanted:
            run(item.spec, settings)
    findings = the_gate.check(resolved, results, ROOT / the_gate.REFERENCE_FILE)
    return {f.cell: f.problem for f in findings if f.cell.startswith(f"{experiment}/{method}/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutation", "experiment"),
    mutations.SEEN_BY_THE_GATE.items(),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_mistake_trips_the_gate(mutation, experiment, tmp_path, prepared, monkeypatch):
    mutation(monkeypatch)
    problems = offenders(tmp_path, prepared, experiment, "maml")
    assert list(problems.values()) == ["is worse than the reference"]
    assert len(Store(tmp_path).all()) == 3


# -- what accuracy cannot see


def deviation(name: str) -> float:
    """The largest relative difference between the method's present trace and its golden one."""
    golden, now = json.loads((FOLDER / f"{name}.json").read_text()), trace(name)
    pairs = [(now[p][head], golden[p][head]) for p in golden for head in golden[p]]
    return max(float(np.max(np.abs(np.subtract(a, b)) / np.abs(b))) for a, b in pairs)


@pytest.mark.parametrize(
    "mutation", mutations.SEEN_BY_TRACES, ids=lambda mutation: mutation.__name__
)
def test_a_mistake_changes_the_golden_trace(mutation, monkeypatch):
    assert deviation("maml+cml") < 1e-9
    mutation(monkeypatch)
    assert deviation("maml+cml") > 1e-6
