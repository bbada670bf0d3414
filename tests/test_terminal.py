"""What a running study shows: its state from files, the bar and its lines, Snakemake's records."""

import io
import logging
import pkgutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent

from cml_bench.records import Progress, Store, write_failure, write_progress
from cml_bench.study import cost, endings, targets, view, watching
from cml_bench.study.plan import Work
from cml_bench.study.view import View, by_job, sparkline, summary
from cml_bench.study.watching import Row, Watch
from cml_bench.system import stops
from cml_bench.system.locks import run_lock
from snakemake_logger_plugin_cml_bench import LogHandler
from tests.helpers.plans import edited
from tests.helpers.simulated import LEVEL, finish, study
from tests.helpers.specs import glyph_spec

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "verbose": False,
    "dryrun": False,
    "debug_dag": False,
    "printshellcmds": False,
    "stdout": False,
    "nocolor": False,
}


@pytest.fixture
def begun(tmp_path):
    """A study of four runs, of which the first is finished."""
    resolved = study(seeds=1)
    first = resolved.runs[0].id
    return resolved, finish(resolved, tmp_path, LEVEL, only=lambda spec: spec.id == first)


@pytest.fixture
def asked(monkeypatch):
    """The user has pressed Ctrl-C."""
    stops.asked.set()
    yield
    stops.asked.clear()


# -- what is read from files


def test_a_watch_tells_what_happens_to_runs_and_nothing_of_before(begun, tmp_path):
    resolved, store = begun
    second, third = resolved.runs[1:3]
    folder = store.folder(second.spec)
    watch = Watch(resolved, tmp_path)
    assert (watch.poll(), watch.ended, watch.rows) == ([], 1, [])
    with run_lock(folder):
        write_progress(folder, Progress(step=30, steps=100, left=65, validation=(0.2, None, 0.415)))
        assert watch.poll() == [("running", f"started: {second.title}")]
        (row,) = watch.rows
        assert (row.share, row.score, row.title) == (0.3, "41.5 %", second.title)
        assert 60 <= row.left <= 65
        assert watch.poll() == []
    (folder / "progress.json").unlink()
    finish(resolved, tmp_path / "made", LEVEL, only=lambda spec: spec.id == second.id)
    for path in Store(tmp_path / "made").folder(second.spec).iterdir():
        path.rename(folder / path.name)
    write_failure(store.folder(third.spec), "RuntimeError: out of memory\n")
    events = dict(watch.poll())
    assert events["finished"].startswith(f"finished: {second.title}")
    assert "out of memory (see " in events["failed"]
    assert summary(watch) == "2 of 4 runs done, 1 failed"
    watch.left = 0.4
    assert summary(watch) == "2 of 4 runs done, 1 failed", "0:00 is no time to wait"
    watch.left = 65
    assert summary(watch) == "2 of 4 runs done, 1 failed, about 1:05 left"
    assert not watch.over


def test_a_failure_of_an_earlier_start_is_not_counted_when_the_study_starts(begun, tmp_path):
    resolved, store = begun
    write_failure(store.folder(resolved.runs[1].spec), "out of memory\n")
    early, late = Watch(resolved, tmp_path, fresh=True), Watch(resolved, tmp_path)
    early.poll()
    late.poll()
    assert (early.counts["failed"], late.counts["failed"]) == (0, 1)


def test_the_time_left_for_all_is_that_of_the_pace_so_far(begun, tmp_path, monkeypatch):
    resolved, store = begun
    clock = iter([0.0, 0.0, 30.0])
    monkeypatch.setattr(
        watching, "time", SimpleNamespace(monotonic=lambda: next(clock), time=lambda: 0.0)
    )
    folder, watch = store.folder(resolved.runs[1].spec), Watch(resolved, tmp_path)
    watch.poll()
    with run_lock(folder):
        write_progress(folder, Progress(step=0, steps=100))
        watch.poll()
        assert watch.left is None, "no pace is known"
        write_progress(folder, Progress(step=50, steps=100))
        watch.poll()
    assert watch.left == pytest.approx(150.0), "half a run took 30 s, and two and a half are left"


def test_a_tiny_runs_start_counts_as_time(begun):
    tiny, twice = (Work(steps=n, flops=0, bytes=0) for n in (10, 20))
    runs = [begun[0].runs[0].model_copy(update={"work": work}) for work in (tiny, twice)]
    one, two = map(watching._weight, runs)
    assert 1 < two / one < 1.1, "twice the steps are hardly more time"


# -- what is shown


def test_a_sparkline_averages_many_values_and_leaves_out_what_is_not_finite():
    assert sparkline([]) == ""
    assert sparkline([0.5]) == "▁"
    assert sparkline([0.0, None, float("inf"), 1.0]) == "▁  █"
    assert sparkline([0.0] * 50 + [1.0] * 50, width=4) == "▁▁██"


def test_a_job_of_several_seeds_has_one_line_of_the_seed_that_is_least_far():
    def row(job: str, seed: int, step: int) -> Row:
        return Row(job, f"maml on x, seed {seed}", Progress(step=step, steps=10), None)

    shown = by_job([row("a", 0, 5), row("a", 1, 4), row("b", 2, 1)])
    assert [(line.title, line.share) for line in shown] == [
        ("maml on x, 2 seeds", 0.4),
        ("maml on x, seed 2", 0.1),
    ]


def test_a_terminal_has_a_bar_and_a_line_for_each_job(begun, tmp_path):
    resolved, store = begun
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=20, color_system=None)
    shown = View(Watch(resolved, tmp_path), console)
    folder = store.folder(resolved.runs[1].spec)
    with run_lock(folder):
        write_progress(folder, Progress(step=30, steps=100, left=65, validation=(0.2, 0.3)))
        shown.watch.poll()
        shown.others[7] = "preparing data set omniglot"
        console.print(shown._shown())
        shown.tell(shown.watch.poll())
    head, line, other = screen.getvalue().splitlines()
    assert head.startswith("simulated ━")
    assert head.rstrip().endswith("1 of 4 runs done, 1 running")
    assert line.split()[-6:] == ["▁█", "val", "30.0", "%", *line.split()[-2:]]
    assert line.rstrip().endswith(" left")
    assert "30 %" in line
    assert all(len(text) <= 80 for text in (head, line))
    assert other.strip() == "preparing data set omniglot"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_line_of_the_study_is_never_two(width, begun, tmp_path, monkeypatch):
    resolved, _ = begun
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, height=20, color_system=None)
    told = "0 of 2 runs done, 1 running, about 12:34:56 left"
    monkeypatch.setattr("cml_bench.study.view.summary", lambda watch: told)
    watch = Watch(resolved, tmp_path)
    monkeypatch.setattr(watch, "rows", [])
    console.print(View(watch, console)._shown())
    (head,) = filter(str.strip, screen.getvalue().splitlines())
    assert len(head.rstrip()) <= width
    assert head.rstrip().endswith(told) or width == 40


def test_a_pipe_has_one_line_an_event_with_the_state_of_the_study(begun, tmp_path):
    resolved, _ = begun
    pipe = io.StringIO()
    shown = View(Watch(resolved, tmp_path), Console(file=pipe, width=40))
    shown.watch.poll()
    shown.start()
    long = "finished: " + "a long title " * 9
    shown.tell([("running", "started: a"), ("finished", long), ("failed", "failed: \x1b[31m b")])
    shown.stop()
    assert pipe.getvalue().splitlines() == [
        "started: a",
        long,
        "failed: \\x1b[31m b (1 of 4 runs done)",
    ]


def test_watch_ends_by_itself_when_the_study_ends(begun, tmp_path, monkeypatch):
    resolved, _ = begun
    resolved = edited(resolved, lambda plan: plan["study"].update(results=str(tmp_path)))
    answers = [True, True, False, False]
    monkeypatch.setattr(view, "going_on", lambda folder: answers.pop(0))
    monkeypatch.setattr(view, "Watch", lambda *args: Watch(*args))
    pipe = io.StringIO()
    view.follow(resolved, tmp_path, Console(file=pipe, width=100))
    assert len(answers) == 1, "asked at the start, and after each poll until it has ended"
    assert "all runs: 1 finished, 3 missing" in pipe.getvalue()
    assert "not running" not in pipe.getvalue()


def test_a_study_is_going_on_while_its_process_lives(tmp_path):
    assert watching.going_on(tmp_path / "none") is False
    with watching.marked(tmp_path / "s"):
        assert watching.going_on(tmp_path / "s") is True
    assert watching.going_on(tmp_path / "s") is False


def test_results_of_a_run_are_told_in_percent_or_as_squared_errors(begun):
    resolved, store = begun
    record = store.read(resolved.runs[0].spec)
    made = {"meta@0": 0.2, "meta@1": 0.615, "co@1": 0.5, "meta@1,one_class": 0.1, "co_last@1": 0.4}

    def told(kind: str, steps: int) -> str:
        spec = record.spec.model_copy(update={"options": {"inner_steps": steps}})
        return record.model_copy(update={"results": made, "kind": kind, "spec": spec}).told

    assert told("classification", 1) == "test 61.5 %, co-learner 50.0 %"
    assert told("regression", 0) == "test MSE 0.200, co-learner MSE 0.500"


def test_controls_are_named_as_controls():
    assert glyph_spec().title == "maml on glyphs, 5-way 1-shot, seed 0"
    assert glyph_spec(steps=0).title.endswith(", seed 0 (control: untrained)")
    noisy = glyph_spec(protocol_options={"gradient_noise": 0.5})
    assert noisy.title.endswith("(control: gradient noise 0.5)")


# -- ends and targets


def test_ctrl_c_ends_with_three_lines(begun, tmp_path):
    resolved, store = begun
    for run in resolved.runs[1:3]:
        store.folder(run.spec).mkdir()
        write_progress(store.folder(run.spec), Progress(step=7, steps=9))
    (store.folder(resolved.runs[1].spec) / "checkpoint-a.pt").write_bytes(b"x")
    command = "cml-bench run 'my file.yaml'"
    assert endings.stopped(resolved, tmp_path, command).splitlines() == [
        "Finished: 1 of 4 runs.",
        "Interrupted: 1 run with a checkpoint and 1 run without one.",
        "The same command goes on from there: cml-bench run 'my file.yaml'",
    ]
    (store.folder(resolved.runs[1].spec) / "checkpoint-a.pt").unlink()
    assert "Interrupted: 2 runs without a checkpoint." in endings.stopped(
        resolved, tmp_path, command
    )


def test_the_end_of_a_failing_study_names_each_failure(begun, tmp_path):
    resolved, store = begun
    write_failure(store.folder(resolved.runs[1].spec), "RuntimeError: out of memory\n")
    told = endings.failed(resolved, tmp_path)
    assert told.startswith("Some runs failed: 1 finished, 1 failed, 2 missing.")
    assert f"failed: {resolved.runs[1].title}: RuntimeError: out of memory" in told


def test_a_target_costs_its_own_runs():
    resolved = study(seeds=3)
    part = targets.focused(resolved, ["table1_1shot_n2"], [])
    assert {(run.spec.shot, run.spec.seed) for run in part.runs} == {(1, 0), (1, 1)}
    assert len(part.runs) == 4
    assert set(part.tables) == {"table1_1shot_n2"}
    told = cost.summary(part)
    assert "4 runs" in told
    assert "table1_1shot_n2 " in told
    assert targets.with_runs(resolved, {resolved.runs[0].id}).runs == resolved.runs[:1]


# -- Snakemake's records


def handler(**settings) -> LogHandler:
    made = LogHandler(SimpleNamespace(**{**SETTINGS, **settings}), None)
    made.setFormatter(logging.Formatter("%(message)s"))
    return made


def record(text: str | None, level: int = logging.INFO, **fields) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": level, "levelname": "X", **fields})


def job_error(log: Path) -> logging.LogRecord:
    fields = {"jobid": 3, "rule_name": "fetch", "rule_msg": None, "log": [str(log)]}
    return record("Error in rule", logging.ERROR, event=LogEvent.JOB_ERROR, **fields)


def test_snakemakes_remarks_are_left_out_and_its_warnings_are_said(tmp_path, capsys):
    made, log = handler(), tmp_path / "fetch.log"
    log.write_text("".join(f"line {i}\n" for i in range(20)))
    job = {"jobid": 3, "rule_name": "fetch", "rule_msg": "preparing data set x"}
    stats = {"fetch": 1, "train": 4, "all": 1, "total": 6}
    final = "Exiting because a job execution failed. Look below for error messages"
    for item in (
        record("Building DAG of jobs..."),
        record("Job stats", event=LogEvent.RUN_INFO, stats=stats),
        record("Rule: fetch", event=LogEvent.JOB_INFO, **job),
        record("a disk is slow", logging.WARNING),
        job_error(log),
        record(final, logging.ERROR),
        record("RuleException:\nCalledProcessError in line 3", logging.ERROR, event=LogEvent.ERROR),
        record("1 of 6 steps", event=LogEvent.PROGRESS, done=1, total=6),
    ):
        made.emit(item)
    said = capsys.readouterr().err.splitlines()
    made.emit(record("Unlocked working directory."))
    assert capsys.readouterr().err == "Unlocked working directory.\n"
    assert said[:3] == [
        "jobs to do: data sets 1, trainings 4",
        "warning: a disk is slow",
        "failed: preparing data set x.",
    ]
    assert said[3] == f"its log, {log}:"
    assert said[4:] == [f"  line {i}" for i in range(8, 20)]


def test_jobs_that_ctrl_c_ends_did_not_fail(tmp_path, capsys, asked):
    made, log = handler(), tmp_path / "fetch.log"
    log.write_text("KeyboardInterrupt\n")
    made.emit(job_error(log))
    made.emit(record("At least one job did not complete successfully.", logging.ERROR))
    assert capsys.readouterr().err == ""


def test_a_study_from_start_to_end_in_a_pipe(begun, tmp_path, capsys):
    resolved, store = begun
    made, folder = handler(), store.folder(resolved.runs[1].spec)
    made.emit(record("what it costs", cml_bench="start", plan=resolved, results=str(tmp_path)))
    with run_lock(folder):
        made._poller.poll()
    made.emit(record("the tables", cml_bench="end"))
    made.emit(record("WorkflowError: at least one job", logging.ERROR, event=LogEvent.ERROR))
    made.close()
    said = capsys.readouterr()
    assert said.out == "what it costs\nthe tables\n"
    assert said.err.splitlines()[0] == f"started: {resolved.runs[1].title}"
    assert "WorkflowError" not in said.err


@pytest.mark.parametrize("setting", ["verbose", "dryrun", "printshellcmds"])
def test_snakemakes_own_output_is_there_when_it_is_asked_for(setting, begun, tmp_path, capsys):
    made = handler(**{setting: True})
    made.emit(record("Building DAG of jobs..."))
    made.emit(record("cost", cml_bench="start", plan=begun[0], results=str(tmp_path)))
    said = capsys.readouterr()
    assert "Building DAG of jobs..." in said.err
    assert (said.out, made._view) == ("cost\n", None)


def test_the_plug_in_is_found_and_is_the_one_that_the_profile_names():
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

    named = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())["logger"]
    assert named == ["cml-bench"]
    assert LoggerPluginRegistry().is_installed("cml-bench")
    assert "snakemake_logger_plugin_cml_bench" in {item.name for item in pkgutil.iter_modules()}
