"""A record is read into one typed object, and is written again as it was."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from cml_bench.records import Record, Store, read, write_record

ROOT = Path(__file__).parent.parent
COMMITTED = sorted((ROOT / "results/reference").glob("*/runs/*/record.json"))


def test_there_are_committed_records():
    assert len(COMMITTED) > 600


@pytest.fixture(scope="module")
def records() -> dict[Path, Record]:
    """Every committed record, whichever version wrote it."""
    return {path: record for path in COMMITTED if (record := read(path.parent))}


def test_every_committed_record_is_read(records):
    assert list(records) == COMMITTED


def test_what_is_read_is_written_again_as_it_was(records):
    """Also the numbers: a whole one stays whole, and a key that is absent stays absent."""
    for path, record in records.items():
        stored = json.loads(path.read_text(encoding="utf-8"))
        again, before = (json.dumps(each, sort_keys=True) for each in (record.content, stored))
        assert again == before, path


def test_keys_of_a_trained_run_stay_in_their_order(records, tmp_path):
    """The file of a run that was trained is the same, byte by byte."""
    trained = {path: record for path, record in records.items() if record.curves.step}
    untrained = [record for record in records.values() if not record.spec.steps]
    assert len(trained) == len(records) - len(untrained)
    for i, (path, record) in enumerate(trained.items()):
        if i % 50 == 0:
            (tmp_path / path.parent.name).mkdir()
            again = write_record(tmp_path / path.parent.name, record.content)
            assert (again.folder / "record.json").read_bytes() == path.read_bytes()
            assert again == record.model_copy(update={"folder": again.folder})


def test_a_record_cannot_be_changed(records):
    record = next(iter(records.values()))
    for part, name in ((record, "status"), (record.seconds, "train"), (record.engine, "path")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, "x")


def test_a_record_of_an_earlier_version_lacks_what_was_added_since(records):
    without = {
        name: sum(name not in record.model_fields_set for record in records.values())
        for name in ("memory", "data_differs", "data_unordered_sha256")
    }
    assert min(without.values()) > 100, "some of the committed ones are that old"


def test_a_key_of_a_later_version_is_kept(tmp_path):
    source = read(COMMITTED[0].parent)
    content = source.content | {"added_later": [1, {"x": None}]}
    content["engine"]["also_later"] = 3
    folder = Store(tmp_path).folder(source.spec)
    folder.mkdir(parents=True)
    write_record(folder, content)
    assert read(folder).content == content
