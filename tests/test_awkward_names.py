"""Names that a shell would take for something else reach every command as one word."""

import json
import re
import shlex
from pathlib import Path

import pytest

from cml_bench import registry
from cml_bench.errors import UserError
from cml_bench.study import plan
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from cml_bench.system import shells
from tests.helpers import awkward_clone

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_whole_study_in_folders_with_awkward_names_writes_nothing_beside_them(tmp_path):
    home, config = awkward_clone.clone(tmp_path), awkward_clone.study()
    before = awkward_clone.around(tmp_path, home, config)
    done = awkward_clone.snakemake(home, config)
    assert awkward_clone.around(tmp_path, home, config) == before
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "Pixel nearest neighbour" in done.stdout, "the tables end in the terminal"
    out = home / awkward_clone.RESULTS
    logs = [next((out / "logs").glob(name)) for name in ("fetch-*.log", "train-*.log")]
    assert [
        ("ready in" in path.read_text(), "run 2 of 2" in path.read_text()) for path in logs
    ] == [(True, False), (False, True)]
    assert (out / "awkward" / "report.html").stat().st_size > 200


@pytest.mark.slow
def test_a_failing_study_in_such_folders_still_tells_how_far_it_is_and_writes_nothing_beside_them(
    tmp_path,
):
    """The results' folder begins like an option, and the stamps of data sets lie there too."""
    data_dir = awkward_clone.DATA_DIR
    config = awkward_clone.study(
        data_dir=data_dir, results=f"{data_dir}/ready/{awkward_clone.RESULTS}"
    )
    home = awkward_clone.clone(tmp_path)
    run = resolve(parse(config, "t"), "t").runs[0]
    bad = home / config["results"] / "runs" / run.folder
    bad.mkdir(parents=True)
    (bad / "record.json").write_text("{")
    before = awkward_clone.around(tmp_path, home, config)
    done = awkward_clone.snakemake(home, config)
    assert awkward_clone.around(tmp_path, home, config) == before
    assert done.returncode != 0, "tee does not hide it"
    assert "record.json is damaged" in done.stdout + done.stderr
    end = done.stdout[done.stdout.index("Some runs failed") :]
    assert "1 failed" in end, "status"
    assert "Pixel nearest neighbour" in end, "report"
    assert (home / config["results"] / "awkward" / "report.html").exists()


# -- the rules


def rules() -> str:
    return "\n".join(
        path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]
    )


def test_every_placeholder_of_a_rules_command_is_quoted():
    commands = re.findall(r"^    shell:\n((?:        .*\n)+)", rules(), flags=re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        values = {value for value in re.findall(r"\{([^}]*)\}", command) if value != "threads"}
        assert values, command
        assert {value for value in values if not value.endswith(":q")} == set(), command
        assert re.findall(r'(?<!")\$\w+|\$\w+\b(?!")', command) == [], (
            "a variable without double quotes"
        )


def test_no_rule_starts_a_process_in_a_way_that_does_not_quote():
    """Only these ways quote words.

    Snakemake starts its own Python unquoted for ``run:``, and ``shell()`` pastes its words as they
    are.
    """
    assert (
        re.findall(r"^\s+run:|\bshell\(|os\.system|shell=True", rules(), flags=re.MULTILINE) == []
    )


# -- what Snakemake cannot take


@pytest.mark.parametrize(
    ("key", "value", "culprit"),
    [
        ("results", "runs of {x}/results", "'{'"),
        ("data_dir", "a}b", "'}'"),
        ("published", "{a}.json", "'{'"),
        ("results", "a\nb", r"'\n'"),
        ("data_dir", "a\tb", r"'\t'"),
        ("results", "\x1b[31m", r"'\x1b'"),
    ],
)
def test_a_name_that_snakemake_cannot_take_is_refused_before_anything_is_written(
    key, value, culprit, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        plan.cached(awkward_clone.study(**{key: value}), "my.yaml")
    text = str(error.value)
    assert text.startswith(f"my.yaml: {key}: ")
    assert f"Snakemake cannot take {culprit} in a path" in text
    assert repr(value) in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["/home/me/{x}/clone", "/a\nb", "/}"])
def test_a_clone_where_snakemake_cannot_read_the_workflow_is_refused(folder):
    with pytest.raises(UserError, match=r"the folder of the Snakefile, .* Move it"):
        shells.check_clone(folder)
    shells.check_clone(f"/home/{awkward_clone.PLACE}")


@pytest.mark.parametrize(
    ("python", "other", "named"),
    [
        ("/my drive/.venv/bin/python", "results", "/my drive"),
        ("/o'neil/bin/python", "results", "o'neil"),
        ("/R&D/bin/python", "results", "/R&D"),
        ("/$x/bin/python", "results", "/[$]x"),
        ("/usr/bin/python", "/a/$x", "[$]x"),
        ("/usr/bin/python", "results=a`b`", "a`b`"),
        ("/usr/bin/python", "-n data", "-n data"),
    ],
)
def test_what_would_not_reach_a_clusters_jobs_is_refused(python, other, named):
    with pytest.raises(UserError, match=named):
        shells.check_cluster(python, [other])
    shells.check_cluster(
        "/home/jürgen/.venv/bin/python3.11", ["a b", "R&D", "o'neil", "seeds=[0, 1]"]
    )


@pytest.mark.parametrize("folder", ["my data", "$x/R&D", "o'neil", "-n/(1)"])
def test_a_command_in_a_message_can_be_copied(folder):
    cls = registry.datasets.get("glyphs")
    command = cls(cls.Options(size=16))._fetch(Path(folder) / "glyphs" / "16px").strip("`")
    words = shlex.split(command)
    assert words[-1] == f"--data-dir={folder}"
    assert json.loads(words[-2].removeprefix("--options="))["size"] == 16
