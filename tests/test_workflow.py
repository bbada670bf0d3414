"""The workflow as a user runs it, on a study that takes seconds."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.checkouts import (
    CONFIG,
    ROOT,
    changed,
    glyphs_experiment,
    snakemake,
    start,
    trained,
)

MAML = CONFIG["tables"]["table1"]["rows"][1]


def whole(done: subprocess.CompletedProcess) -> str:
    """What Snakemake printed; it must have ended without an error."""
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def records_in(checkout: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in checkout.glob("results/runs/*/record.json")}


def check_files_of_the_study(out: Path) -> None:
    for made in (
        "report.html",
        "tables/sinusoid.md",
        "tables/table1.tex",
        "tables/table1.csv",
        "figures/figure2.png",
    ):
        assert (out / made).stat().st_size > 200, made


def check_gathered_report(checkout: Path) -> None:
    """Snakemake's own report has the page, a table and a figure, with readable captions."""
    whole(snakemake(checkout, "--report", "gathered.html"))
    html = (checkout / "gathered.html").read_text()
    captions = (
        "Study <strong>tiny</strong>: A tiny study.",
        "page, whole: abstract",
        "cell of the table sinusoid",
        "figure2.npz",
    )
    assert [caption for caption in captions if caption not in html] == []
    assert "problematic" not in html, "a caption that docutils cannot read"


def check_an_edited_title_trains_nothing(checkout: Path) -> None:
    edited = json.loads(json.dumps(CONFIG))
    edited["tables"]["table1"]["title"] = "Another title"
    (checkout / "edited.yaml").write_text(yaml.safe_dump(edited))
    retitled = snakemake(checkout, config="edited.yaml")
    assert "Another title" in whole(retitled)
    assert trained(retitled) == 0


def check_jobs_without_stamps_find_their_runs(checkout: Path, before: dict[Path, bytes]) -> None:
    """A lost stamp, or a job planned anew with a third seed, finds its runs finished."""
    stamps = sorted((checkout / "results" / "done").glob("*.json"))
    for stamp in stamps[::3]:
        stamp.unlink()
    whole(snakemake(checkout, "--config", "seeds=3", "engine=plain"))
    after = records_in(checkout)
    assert {path: after[path] for path in before} == before
    added = [content for path, content in after.items() if path not in before]
    assert len(added) == 2 + 2
    assert {json.loads(content)["engine"]["path"] for content in added} == {"plain"}


@pytest.mark.slow
def test_a_study_from_nothing_to_its_report_and_what_a_second_start_does(checkout):
    done = snakemake(checkout)
    assert "MAML + CML" in whole(done), "the tables end in the terminal"
    assert trained(done) == 2 + 5
    check_files_of_the_study(checkout / "results" / "tiny")
    before = records_in(checkout)
    assert len(before) == 4 + 5
    allocators = {json.loads(content)["machine"]["allocator"] for content in before.values()}
    assert allocators == {"keep"}, "the launcher sets glibc's variables before a process starts"

    again = snakemake(checkout)
    assert "MAML + CML" in whole(again), "the tables are shown all the same"
    assert trained(again) == 0
    assert "rendering" not in again.stdout + again.stderr, "nothing is made again"

    check_gathered_report(checkout)
    check_an_edited_title_trains_nothing(checkout)
    check_jobs_without_stamps_find_their_runs(checkout, before)


@pytest.mark.slow
def test_one_table_is_a_target(checkout):
    dry = snakemake(checkout, "-n", "table1", "--config", "results=elsewhere")
    assert dry.returncode == 0, dry.stderr[-2000:]
    assert "rendering table1" in dry.stdout + dry.stderr


@pytest.mark.slow
def test_a_wrong_configuration_stops_before_anything_runs(checkout):
    bad = json.loads(json.dumps(CONFIG))
    bad["experiments"]["glyphs"]["network"] = "conv5"
    (checkout / "bad.yaml").write_text(yaml.safe_dump(bad))
    done = snakemake(checkout, config="bad.yaml")
    assert done.returncode != 0
    assert "unknown network 'conv5'. Did you mean 'conv4'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_only_what_is_new_is_trained(checkout):
    assert trained(start(checkout, changed())) == 2 * 2
    more = start(checkout, {**changed(), "seeds": 3})
    assert (more.returncode, trained(more)) == (0, 2), "the added seed's runs"
    for path in [
        *(checkout / "configs").glob("*"),
        checkout / "environment.yml",
        checkout / "Snakefile",
    ]:
        os.utime(path)
    touched = start(checkout, {**changed(), "seeds": 3}, "--dry-run")
    assert (touched.returncode, trained(touched)) == (0, 0), "an innocent mtime"
    methods = changed()["experiments"]["sinusoid"]["methods"]
    methods = {**methods, "maml+cml": {"options": {"cml": {"gamma": 0.5}}}}
    other = start(checkout, {**changed(methods=methods), "seeds": 3}, "--dry-run")
    assert (other.returncode, trained(other)) == (0, 3), "the runs that the changed gamma touches"


def most_at_once(done: subprocess.CompletedProcess) -> int:
    """The largest number of Conv4 trainings at one time, by Snakemake's own account."""
    running, most = set(), 0
    for line in (done.stdout + done.stderr).splitlines():
        if match := re.match(r"Job (\d+): training 1 run: maml", line):
            running.add(match[1])
        elif match := re.match(r"Finished jobid: (\d+)", line):
            running.discard(match[1])
        most = max(most, len(running))
    return most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "places"), [(("--resources", "mem_mb=4000"), 1), (("--resources", "gpu_slots=2"), 2)]
)
def test_a_gpu_gets_one_training_at_a_time_whatever_other_flags_say(checkout, flags, places):
    config = json.loads(json.dumps(CONFIG)) | {
        "study": "gpus",
        "results": f"gpus{places}",
        "figures": {},
    }
    config["experiments"] = {"glyphs": glyphs_experiment()}
    config["tables"] = {"table1": config["tables"]["table1"] | {"rows": [MAML]}}
    done = start(checkout, config, "--verbose", *flags, "--", "trained", CML_BENCH_GPUS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert trained(done) == 2
    assert most_at_once(done) == places


@pytest.mark.slow
def test_a_study_that_expects_a_gpu_stops_without_one_and_says_what_to_do(checkout):
    config = CONFIG | {"study": "expecting", "gpu": "expected", "results": "expecting", "seeds": 1}
    refused = start(checkout, config, CML_BENCH_GPUS="0")
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0
    for words in (
        "study expecting: 5 runs",
        "`make demo`",
        "--config allow_cpu=1",
        "--cores N sinusoid or figure2",
    ):
        assert words in said
    assert not list(checkout.glob("expecting/runs/*")), "nothing was started"
    assert "Traceback" not in said
    small = start(checkout, config, "-n", "sinusoid", CML_BENCH_GPUS="0")
    assert small.returncode == 0
    assert trained(small) == 1
    allowed = start(checkout, config, "--config", "allow_cpu=1", "--", "table1", CML_BENCH_GPUS="0")
    assert (allowed.returncode, trained(allowed)) == (0, 3), allowed.stderr[-2000:]


@pytest.mark.slow
def test_data_that_cannot_be_had_leaves_the_rest_running(checkout):
    """In a copy of the package, a data set has terms of use: its runs are `not run: reason`.

    All other runs go on.
    """
    package = checkout / "cml_bench"
    shutil.copytree(ROOT / "cml_bench", package, ignore=shutil.ignore_patterns("__pycache__"))
    template = (
        (package / "data" / "_template.py")
        .read_text()
        .replace('register("template")', 'register("closed")')
    )
    line = "    smallest_class = 20  # images in the smallest class\n"
    assert line in template
    terms = f'{line}    terms = "https://example.org/terms"\n'
    (package / "data" / "closed.py").write_text(template.replace(line, terms))
    config = json.loads(json.dumps(CONFIG)) | {"study": "closed", "results": "closed", "seeds": 1}
    config["experiments"]["glyphs"] |= {"data": "closed", "data_options": {}}
    try:
        done = start(checkout, config, PYTHONPATH=str(checkout))
        assert done.returncode == 0, done.stderr[-3000:]
        assert trained(done) == 1, "the sinusoid"
        reason = "the terms of use of closed are not acknowledged: read https://example.org/terms"
        assert "3 runs not run: " + reason in done.stdout.replace("\n", " ")
        agreed = start(checkout, {**config, "acknowledged": ["closed"]}, PYTHONPATH=str(checkout))
        assert agreed.returncode == 0, agreed.stderr[-3000:]
        assert trained(agreed) == 3
        assert "not run" not in agreed.stdout
    finally:
        shutil.rmtree(package)


@pytest.mark.slow
def test_when_a_run_fails_the_tables_of_the_others_are_shown(checkout):
    """One record is damaged, so its training refuses; everything else is made and shown."""
    config = {**changed(), "study": "failing", "results": "failing"}
    resolved = resolve(parse(config, "test"), "test")
    bad = checkout / "failing" / "runs" / resolved.runs[0].folder
    bad.mkdir(parents=True)
    (bad / "record.json").write_text("{")
    done = start(checkout, config)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "record.json is damaged" in said
    assert "1 failed" in done.stdout, "status per table"
    assert "Counted as missing:" in done.stdout
    table = done.stdout[done.stdout.index("Some runs failed") :]
    assert re.search(r"MAML \+ CML +2 ", table), table


@pytest.mark.slow
def test_a_configuration_without_a_name_is_refused(checkout):
    config = changed()
    del config["study"]
    done = start(checkout, config)
    assert done.returncode != 0
    assert "the configuration has no `study`, its name" in done.stderr


@pytest.mark.slow
def test_a_study_in_parts_trains_every_run_once(checkout):
    config = {**changed(), "study": "parts", "results": "parts"}
    parts = [
        start(checkout, config, "--dry-run", "--config", f"shard={i}/3", "--", "trained")
        for i in (1, 2, 3)
    ]
    assert [trained(part) for part in parts] == [2, 1, 1]
    named = [set(re.findall(r"training 1 run: .*", part.stdout + part.stderr)) for part in parts]
    assert [len(names) for names in named] == [2, 1, 1]
    assert len(set.union(*named)) == 4
    wrong = start(checkout, config, "--config", "shard=4/3", "--", "trained")
    assert "shard must be i/n" in wrong.stdout + wrong.stderr
