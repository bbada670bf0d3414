"""What a page gives to take along: how to cite the study, and its records as one file."""

import pandas as pd

from cml_bench import load_records
from cml_bench.records import write_record
from cml_bench.report import cite, summary
from tests.helpers.pages import LEVEL, written
from tests.helpers.simulated import finish, study

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_citation_names_authors_year_version_plan_and_commit(tmp_path):
    resolved = study(seeds=1)
    store = finish(resolved, tmp_path, LEVEL)
    record = store.read(resolved.runs[0].spec)
    source = {"commit": COMMIT, "clean": True, "files": {}}
    write_record(record.folder, record.content | {"source": source})
    told = cite.harness(resolved, [store.read(resolved.runs[0].spec)])
    assert "  author  = {{The cml\\_bench authors}},\n" in told
    assert "  year    = {2026},\n" in told
    assert "  version = {0.1.0},\n" in told
    note = f"Study simulated, plan {summary.plan_id(resolved)}, commit {COMMIT[:12]}"
    assert f"  note    = {{{note}}}\n}}" in told
    assert told.count("{") == told.count("}")
    older = store.read(resolved.runs[1].spec)
    mixed = cite.harness(resolved, [store.read(resolved.runs[0].spec), older])
    assert f"commit {COMMIT[:12]} (some runs name none)" in mixed
    assert "commit" not in cite.harness(resolved, [older])


def test_all_records_are_one_file_beside_the_page(tmp_path):
    resolved = study(seeds=2)
    store = finish(resolved, tmp_path, LEVEL)
    record = store.read(resolved.runs[0].spec)
    write_record(record.folder, record.content | {"results": {"meta@1": 0.5, "meta_last@1": 0.25}})
    html = written(resolved, tmp_path)
    assert '<a href="records.csv" download>CSV</a>' in html
    frame = pd.read_csv(tmp_path / "simulated" / "records.csv")
    assert len(frame) == 2 + sum(len(store.read(run.spec).results) for run in resolved.runs[1:])
    mine = frame[frame["run"] == record.id].set_index("reading")
    assert [*mine.index] == ["meta", "meta_last"]
    assert mine["mean"]["meta_last"] == 25
    assert {*mine["unit"]} == {"%"}
    assert {*mine["folder"]} == {record.folder.name}, "no path of this machine"
    assert {*frame["status"]} == {"finished"}
    read = load_records(tmp_path)
    assert {*read.columns} == {*frame.columns}, "one table, whoever writes it"
    assert {*read["run"]} == {*frame["run"]}
