"""Methods, data sets and networks in files of users' own, outside the package."""
# ruff: noqa: F811 (fixtures are imported)

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import cml_bench
from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.costs import estimate
from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.study import config, new, plan, provenance
from cml_bench.study.resolve import resolve
from cml_bench.system import sources
from tests.helpers.cases import said
from tests.helpers.outside import METHOD, SHARED, alone, forget, mine  # noqa: F401
from tests.helpers.studies import plugged

ROOT = Path(__file__).parent.parent
STUDY = {
    "study": "outside",
    "plugins": ["mine"],
    "seeds": 1,
    "experiments": {
        "e": plugged(
            steps=2,
            protocol_options={"val_every": 1, "val_tasks": 2},
            evaluation={"tasks": 4, "query": 3},
        )
    },
}


def resolved(content: dict = STUDY) -> plan.Plan:
    return resolve(config.parse(content, "my.yaml"), "my.yaml")


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


# -- a study


def test_a_study_trains_what_stands_in_a_folder_of_the_users(mine, capsys):
    """Planned and trained in processes of their own, which know the plug-ins by the plan."""
    Path("my.yaml").write_text(yaml.safe_dump(STUDY))
    made = plan.cached(STUDY, "my.yaml")
    (job,) = made.jobs
    main(["fetch", "blobs", "--plan", made.path])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cml_bench", "train", made.path, "--job", job.id],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    records = sorted(Store("results").all(), key=lambda record: record.spec.method)
    assert [record.spec.method for record in records] == ["headonly", "headonly+cml"]
    own = [name for name in records[0].source.files if name.startswith("plugins/")]
    assert own == [f"plugins/mine/{n}.py" for n in ("_shared", "blobs", "headonly", "shallow")]
    capsys.readouterr()
    assert main(["status", "--config", "my.yaml"]) == 0
    assert "2 finished" in (told := capsys.readouterr().out)
    assert "source" not in told
    write("mine/_shared.py", SHARED.replace("in", "is not None or name in"))
    assert main(["status", "--config", "my.yaml"]) == 0
    assert "other source than here: 2 runs (plugins/mine/_shared.py)" in capsys.readouterr().out
    run = records[1].folder
    assert cml_bench.load(run).record.spec.method == "headonly+cml"
    sources.PLUGINS.clear()
    with pytest.raises(UserError, match=r"this run is of the plug-in 'mine': say where it is"):
        cml_bench.load(run)
    assert "--plugins PATH" in said(capsys, "evaluate", str(run), "--tasks", "5")


def test_the_id_of_a_run_depends_neither_on_the_place_of_a_plug_in_nor_on_its_source(mine):
    first = resolved()
    hashed, files = plan.source_hash(), provenance.source(first.runs[0].spec).files
    write("mine/_shared.py", "# The same, and yet another source.\n" + SHARED + "\n\nx = 1\n")
    assert plan.source_hash() != hashed, "so it is planned anew"
    sources.loaded.cache_clear()
    edited = provenance.source(first.runs[0].spec).files
    assert [n for n in files if files[n] != edited[n]] == ["plugins/mine/_shared.py"]
    forget("cml_bench_plugins")
    sources.PLUGINS.clear()
    Path("deep").mkdir()
    mine.rename("deep/mine")
    moved = resolved({**STUDY, "plugins": ["deep/mine"]})
    assert [run.id for run in moved.runs] == [run.id for run in first.runs]
    assert moved.modules == first.modules


def test_an_included_file_brings_its_plug_ins(mine):
    Path("part.yaml").write_text(yaml.safe_dump(STUDY | {"plugins": "mine"}))
    other = new.write("method", "other", Path())
    whole = {"study": "all", "plugins": [str(other)], "include": ["part.yaml"]}
    study = config.parse(config.included(whole, "all.yaml"), "all.yaml")
    assert study.plugins == ("other.py", "mine")
    assert "headonly" in registry.methods.names()
    assert "other+cml" in registry.method_names()
    with pytest.raises(UserError, match=r"all\.yaml: plugins: Input should be a valid tuple"):
        config.parse(config.included(whole | {"plugins": 3}, "all.yaml"), "all.yaml")


def test_list_and_describe_take_plug_ins(mine, capsys):
    assert main(["list", "methods", "--json", "--plugins", "mine"]) == 0
    assert {"headonly", "headonly+cml", "maml"} <= set(json.loads(capsys.readouterr().out))
    words = "--method headonly --network shallow --data blobs --way 3 --shot 1 --plugins mine"
    assert main(["describe", *words.split()]) == 0
    assert capsys.readouterr().out.startswith("headonly with shallow on blobs/v1/16px, 3-way")


def test_installed_packages_have_entry_points(tmp_path):
    """The package is a folder on the path with the metadata that pip writes."""
    write("theirs/__init__.py", "")
    write("theirs/shared/__init__.py", SHARED)
    write("theirs/ml/__init__.py", "")
    write("theirs/ml/headonly.py", METHOD.replace("._shared", "theirs.shared"))
    write("theirs-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    write("theirs-1.dist-info/entry_points.txt", "[cml_bench.plugins]\nml = theirs.ml\n")
    code = (
        "from cml_bench import registry\nfrom cml_bench.system import sources\n"
        "cls = registry.method('headonly+cml')\n"
        "print(*sources.files_of(sources.modules_of([cls])))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    own = [name for name in done.stdout.split() if name.startswith("plugins/")]
    assert own == ["plugins/theirs/ml/headonly.py", "plugins/theirs/shared/__init__.py"]


# -- what is refused


def named(name: str) -> str:
    """The method's file, for another name and without its helper."""
    alone = METHOD.replace("from ._shared import is_head", "from cml_bench.registry import CML")
    return alone.replace("headonly", name)


@pytest.mark.parametrize(
    ("files", "paths", "message"),
    [
        ({}, ["nowhere"], "plugins: there is no plug-in nowhere: paths are from the working"),
        ({"a/x.txt": ""}, ["a"], "plugins: the plug-in a is a folder without any .py file"),
        ({"a.txt": ""}, ["a.txt"], "plugins: the plug-in a.txt is no .py file and no folder"),
        ({"cml_bench.py": ""}, ["cml_bench.py"], "no plug-in can be called cml_bench"),
        (
            {"a/m.py": "", "b/a/m.py": ""},
            ["a", "b/a"],
            "two plug-ins are called 'a': a and b/a. Rename one",
        ),
        (
            {"a.py": named("own"), "b.py": named("own")},
            ["a.py", "b.py"],
            "two files register the method 'own': a.py and b.py. Rename one",
        ),
        (
            {"a.py": named("maml")},
            ["a.py"],
            "register the method 'maml': .*cml_bench/methods/maml.py and a.py. Rename one",
        ),
        ({"a.py": "x\ndef f(:"}, ["a.py"], "cannot be imported: SyntaxError in a.py, line 2: "),
        (
            {"a/m.py": "x = 1\nimport nothere"},
            ["a"],
            "the plug-in a cannot be imported: ModuleNotFoundError in a/m.py, line 2: No module",
        ),
        ({"a.py": "import sys\nsys.exit(3)"}, ["a.py"], "SystemExit in a.py, line 2: 3"),
        ({"a.py": named("My")}, ["a.py"], "a.py: the method 'My' cannot be called so"),
        (
            {
                "a.py": "from cml_bench.registry import tables\n"
                "tables.register('mine')(type('K', (), {'__module__': __name__}))"
            },
            ["a.py"],
            "a.py: the kind of table 'mine' cannot be a plug-in, .* into cml_bench/report/kinds",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_one_sentence(files, paths, message):
    def known() -> list[str]:
        cml_bench.use_plugins(*paths)
        return registry.method_names()

    for name, text in files.items():
        write(name, text)
    with pytest.raises(UserError, match=message) as caught:
        known()
    assert "\n" not in str(caught.value)


def test_an_outer_step_that_fails_is_one_sentence_before_anything_is_trained(mine):
    text = METHOD + "\n    def outer_loss(self, groups, task):\n        raise KeyError('psi')\n"
    (mine / "headonly.py").write_text(text)
    with pytest.raises(UserError, match=r"one outer step fails: KeyError in mine/headonly") as told:
        estimate.counts(resolved())
    assert "\n" not in str(told.value)


def test_a_file_that_is_imported_under_two_names_is_told_how(monkeypatch):
    write("a/one.py", named("one"))
    write("a/two.py", "from a.one import HeadOnly")
    monkeypatch.syspath_prepend(".")
    cml_bench.use_plugins("a")
    with pytest.raises(UserError, match=r"a/one.py registers the method 'one' twice.* with a dot"):
        registry.method_names()
    forget("a")


def test_a_file_that_was_corrected_may_be_used_again():
    write("a.py", "x = y")
    cml_bench.use_plugins("a.py")
    with pytest.raises(UserError, match="NameError"):
        registry.methods.names()
    write("a.py", named("own"))
    cml_bench.use_plugins("a.py")
    cml_bench.use_plugins("./a.py")
    assert "own" in registry.methods.names()


# -- new files


@pytest.mark.parametrize(("kind", "known"), [*new.KINDS.items()])
def test_a_new_file_is_of_its_name_and_known(kind, known, capsys):
    assert main(["new", kind, "my_own2", "--folder", "deep/mine"]) == 0
    assert "plugins: [deep/mine]" in capsys.readouterr().out
    text = Path("deep/mine/my_own2.py").read_text()
    assert "emplate" not in text
    assert text.startswith('"""``my_own2``: ')
    assert "class MyOwn2(" in text
    assert main(["list", known, "--plugins", "deep/mine"]) == 0
    shown = " ".join(capsys.readouterr().out.split())  # lines are as long as the terminal is wide
    assert "to start from; change what is marked (1)" in shown


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("method", "maml", "`list methods` has 'maml' already"),
        ("network", "linear_", "'linear_' cannot be a name: begin with a letter"),
        ("data", "../x", "'../x' cannot be a name"),
        ("data", "my-set", "'my-set' cannot be a name"),
        ("method", "x+cml", "'x+cml' cannot be a name"),
        ("method", "none", "the class would be called None"),
        ("data", "image_set", "the class would be called ImageSet, which means something"),
        ("method", "there", "there.py is there already"),
    ],
)
def test_a_new_file_is_refused_before_anything_is_written(kind, name, message, capsys):
    Path("there.py").write_text("mine")
    assert message in said(capsys, "new", kind, name)
    assert [path.name for path in Path().iterdir()] == ["there.py"]
    assert Path("there.py").read_text() == "mine"
