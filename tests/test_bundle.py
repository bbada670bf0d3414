"""`export` and `import`: a study's records as one file, verified member by member."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from cml_bench.__main__ import main
from cml_bench.errors import UserError
from cml_bench.records import Store, read, write_episodes, write_record
from cml_bench.study import bundle, portable
from tests.helpers.simulated import LEVEL, finish, study

SECRET = {"sources": {"omniglot": {"a.zip": {"path": "/home/me/a.zip"}}}, "results": "/home/me"}


@pytest.fixture(scope="module")
def plan():
    return study(seeds=2, tasks=20)


@pytest.fixture
def made(plan, tmp_path):
    """A results folder with eight runs: one diverged, one has a model."""
    store = finish(
        plan,
        tmp_path / "theirs",
        LEVEL,
        status=lambda spec: "diverged" if spec == plan.runs[-1].spec else "finished",
    )
    (store.folder(plan.runs[0].spec) / "model.safetensors").write_bytes(b"weights")
    (store.folder(plan.runs[0].spec) / "run.log").write_text("a path of my machine")
    return tmp_path / "theirs"


@pytest.fixture
def packed(plan, made, tmp_path):
    bundle.write(plan, {"study": "simulated", **SECRET}, made, tmp_path / "study.zip")
    return tmp_path / "study.zip"


def tree(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def repacked(path: Path, change) -> Path:
    """A copy of a bundle whose members ``change`` has edited, as name -> content."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    other = path.with_name("changed.zip")
    with zipfile.ZipFile(other, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return other


def record_of(members, number=0):
    return sorted(name for name in members if name.endswith("record.json"))[number]


def listed_anew(members):
    """Give the members the digests that they have: a change by somebody who is careful."""
    contents = json.loads(members["bundle.json"])
    contents["files"] = {
        name: {"sha256": bundle.hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in members.items()
        if name != "bundle.json"
    }
    members["bundle.json"] = json.dumps(contents).encode()


def test_the_same_runs_come_back_and_give_the_same_bytes(plan, made, packed, tmp_path):
    done = bundle.read_in(packed, tmp_path / "mine")
    assert (done.runs, done.there) == (8, 0)
    theirs, mine = tree(made / "runs"), tree(tmp_path / "mine" / "runs")
    assert mine == {name: theirs[name] for name in theirs if name.endswith((".json", ".npz"))}
    assert all(Store(tmp_path / "mine").usable(run.spec)[0] for run in plan.runs)
    assert len((tmp_path / "mine" / "index.csv").read_text().splitlines()) == 9
    again = bundle.write(plan, {"study": "simulated"}, tmp_path / "mine", tmp_path / "again.zip")
    assert (again.runs, again.left) == (8, 0)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "imported",
        "index.csv",
        "runs",
    ]


def test_the_configuration_comes_along_without_what_belongs_to_a_machine(packed, tmp_path):
    done = bundle.read_in(packed, tmp_path / "mine")
    assert json.loads(done.configuration.read_text()) == {"study": "simulated"}
    with zipfile.ZipFile(packed) as archive:
        assert not any(b"/home/me" in archive.read(name) for name in archive.namelist())
        assert not any(b"my machine" in archive.read(name) for name in archive.namelist())


def test_equal_runs_are_skipped_and_weights_come_only_when_asked(plan, made, packed, tmp_path):
    before = tree(made)
    assert bundle.read_in(packed, made)[1:4] == (8, 8, 0)
    after = tree(made)
    assert {name: after[name] for name in before} == before
    bundle.write(plan, {"study": "simulated"}, made, tmp_path / "whole.zip", weights=True)
    bundle.read_in(packed, tmp_path / "mine")
    assert bundle.read_in(tmp_path / "whole.zip", tmp_path / "mine")[1:4] == (8, 8, 1)
    folder = plan.runs[0].folder
    shutil.rmtree(tmp_path / "mine" / "runs" / folder)
    assert bundle.read_in(tmp_path / "whole.zip", tmp_path / "mine")[1:4] == (8, 7, 0)
    assert (tmp_path / "mine" / "runs" / folder / "model.safetensors").read_bytes() == b"weights"


def test_committed_records_with_fewer_series_are_equal_ones(plan, made, packed):
    folder = made / "runs" / next(r.folder for r in plan.runs if "+cml" in r.folder)
    write_episodes(folder, {"meta@1": read(folder).arrays["meta@1"]})
    assert bundle.read_in(packed, made).there == 8


def edit(members, number, old, new):
    name = record_of(members, number)
    members[name] = members[name].replace(old, new)


def truncated(members):
    episodes = next(name for name in members if name.endswith("episodes.npz"))
    members[episodes] = members[episodes][:50]
    listed_anew(members)


def swapped(members):
    a, b = record_of(members, 0), record_of(members, 1)
    members[a], members[b] = members[b], members[a]
    listed_anew(members)


def outside(members):
    members["runs/../../evil/record.json"] = b"{}"
    listed_anew(members)


def other_list(members, **keys):
    members["bundle.json"] = json.dumps(json.loads(members["bundle.json"]) | keys).encode()


CHANGES = {
    "a result": (
        lambda m: edit(m, 3, b"2026-01-01", b"2026-01-02"),
        r"member runs/.*/record.json has another digest",
    ),
    "one byte more": (
        lambda m: m.update({record_of(m): m[record_of(m)] + b" "}),
        r"member runs/.*/record.json has another digest",
    ),
    "the configuration": (
        lambda m: m.update({"configuration.json": b"{}"}),
        "member configuration.json has another digest",
    ),
    "a member less": (lambda m: m.pop(record_of(m)), r"runs/.*/record.json is missing"),
    "a member more": (
        lambda m: m.update({"runs/x/record.json": b"{}"}),
        "runs/x/record.json is not in bundle.json",
    ),
    "a path outside": (outside, r"the member 'runs/../../evil/record.json', which is no file of a"),
    "an absolute path": (lambda m: m.update({"/etc/x": b""}), "the member '/etc/x', which is no"),
    "a program": (
        lambda m: m.update({"runs/a/x.py": b""}),
        "the member 'runs/a/x.py', which is no",
    ),
    "a record in another's place": (swapped, r"record.json is of the run maml"),
    "episodes cut off": (truncated, r"runs/.*: episodes.npz is missing or damaged"),
    "no list": (lambda m: m.pop("bundle.json"), "no bundle of runs: it has no bundle.json"),
    "a newer format": (lambda m: other_list(m, format=2), "bundle.json is damaged, or of a newer"),
    "half a list": (
        lambda m: m.update({"bundle.json": b'{"format": 1, '}),
        r"bundle.json is damaged, or of a newer version: \(top level\): Invalid JSON: [^']*\.$",
    ),
    "an odd study": (
        lambda m: other_list(m, study="../x"),
        "bundle.json is damaged, or of a newer",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_bundle_is_refused_by_name_and_nothing_is_left(what, packed, tmp_path, capsys):
    change, said = CHANGES[what]
    with pytest.raises(UserError, match=said):
        bundle.read_in(repacked(packed, change), tmp_path / "new" / "results")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "evil").exists()


def test_a_damaged_archive_and_another_file_are_refused(packed, tmp_path):
    whole = packed.read_bytes()
    for name, content in {"cut": whole[:-100], "text": b"hello", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is no bundle, or is cut off"):
            bundle.read_in(tmp_path / name, tmp_path / "new")
    middle = bytearray(whole)
    middle[200:210] = bytes(10)
    (tmp_path / "bits").write_bytes(middle)
    with pytest.raises(UserError, match=r"its member .* cannot be read"):
        bundle.read_in(tmp_path / "bits", tmp_path / "new")
    with pytest.raises(UserError, match="there is no file"):
        bundle.read_in(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_record_with_other_content_is_never_overwritten(plan, made, packed, tmp_path):
    mine = tmp_path / "mine"
    folder = mine / "runs" / plan.runs[0].folder
    shutil.copytree(made / "runs" / plan.runs[0].folder, folder)
    record = read(folder)
    write_record(folder, record.content | {"created": "2027"})
    before = tree(mine)
    with pytest.raises(UserError, match=r"already with other content \(created\): move it away"):
        bundle.read_in(packed, mine)
    write_record(folder, record.content)
    write_episodes(folder, {key: x + 1 for key, x in record.arrays.items()})
    with pytest.raises(UserError, match=r"already with other content \(meta@1\)"):
        bundle.read_in(packed, mine)
    (folder / "record.json").unlink()
    with pytest.raises(UserError, match="is a run that is begun and not finished"):
        bundle.read_in(packed, mine)
    assert set(tree(mine)) == set(before) - {f"runs/{folder.name}/record.json"}


def test_a_move_that_fails_half_way_takes_the_others_back(packed, tmp_path, monkeypatch):
    rename, moved = bundle.os.rename, []

    def failing(source, target):
        if len(moved) == 3:
            moved.append(target)
            raise OSError(28, "No space left on device")
        moved.append(target)
        rename(source, target)

    monkeypatch.setattr(bundle.os, "rename", failing)
    with pytest.raises(UserError, match=r"No space left on device.* nothing was imported"):
        bundle.read_in(packed, tmp_path / "new")
    assert len(moved) == 7
    assert not (tmp_path / "new").exists()


def test_a_damaged_record_or_none_stops_an_export(plan, made, tmp_path):
    out = tmp_path / "study.zip"
    with pytest.raises(UserError, match="no finished run of the study simulated: name the folder"):
        bundle.write(plan, {}, tmp_path / "nowhere", out)
    (made / "runs" / plan.runs[0].folder / "episodes.npz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"is missing or damaged.*Nothing was exported"):
        bundle.write(plan, {}, made, out)
    assert not out.exists()


CONFIG = """
study: tiny
seeds: 1
experiments:
  g: {data: glyphs, network: conv4, way: 5, shots: [1], query: 5, steps: 10,
      evaluation: {tasks: 20, query: 5}, methods: {maml: {}}}
tables: {t: {kind: accuracy, experiment: g, title: T, rows: [{label: A, run: maml}]}}
"""


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    from cml_bench.study import config
    from cml_bench.study.resolve import resolve

    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    finish(resolve(config.read("tiny.yaml"), "tiny"), Path("results"), LEVEL)
    assert main(["export", "--config", "tiny.yaml", "--out", "tiny.zip"]) == 0
    digest = bundle.digest_of(Path("tiny.zip"))
    said = capsys.readouterr().out
    assert "tiny.zip: 1 finished runs of tiny, without weights" in said
    assert f"sha256 {digest}" in said
    assert main(["import", "tiny.zip", "--results", "other"]) == 0
    said = capsys.readouterr().out
    assert f"tiny.zip: 1 runs of tiny, sha256 {digest}" in said
    assert "1 are new in other/runs, 0 were there already" in said
    (configuration,) = Path("other/imported").glob("tiny-*/configuration.json")
    assert main(["status", "--config", str(configuration), "--results", "other"]) == 0
    assert "all runs: 1 finished" in capsys.readouterr().out
    assert "plug-ins" not in said
    assert main(["import", "tiny.yaml"]) == 2
    assert "tiny.yaml is no bundle" in capsys.readouterr().err


def test_a_plug_in_is_named_without_the_folders_of_this_machine(plan, made, tmp_path):
    asked = {"study": "simulated", "plugins": ["/home/me/mine.py", "./yours.py"]}
    bundle.write(plan, asked, made, tmp_path / "study.zip")
    done = bundle.read_in(tmp_path / "study.zip", tmp_path / "mine")
    assert done.plugins == ("./mine.py", "./yours.py")
    assert "/home/me" not in done.configuration.read_text()
    assert portable.plugins_of(b'{"plugins": "one.py"}') == ("one.py",)
    for odd in (b"{", b"[]", b"{}", b'{"plugins": 1}', b"\xff"):
        assert portable.plugins_of(odd) == ()
