# What is said at the start and at the end of a study. All between is said by the logger that
# profiles/default names, snakemake_logger_plugin_cml_bench, to which this file speaks by records.
import contextlib
import shlex
import subprocess

from snakemake.logging import logger

from cml_bench.study import endings, watching

# The messages of a job go into its log. Snakemake's full output (--verbose) has them, too.
LOGGED = " 2>&1 | tee -- {log:q}" if workflow.output_settings.verbose else " > {log:q} 2>&1"
GOING_ON = contextlib.ExitStack()


def asked_of(names):
    """The tables and the figures that these targets name. One that names neither has none."""
    named = [name for name in names if name in NAMED]
    tables = [part for name in named for part in targets.expand(PLAN, [name])]
    figures = [key for name in named for key in targets.expand_figures(PLAN, [name])]
    return [key for key in tables if key in targets.parts(PLAN)], [
        key for key in figures if key in PLAN.figures
    ]


def asked():
    """The names of the tables and figures that were asked for; None: the whole study.

    A target that is neither, as `trained`, has none.
    """
    names = [rule.name for rule in workflow.dag.targetrules]
    return None if "all" in names else asked_of(names)


def say_what_is_left_out():
    """To standard error, when the rules are read: `onstart` does not run in a dry run, nor when
    there is nothing to do. The targets are not known yet, but for what the command line names.
    """
    names = asked_of(sys.argv[1:])
    plan = targets.focused(PLAN, *names) if any(names) else PLAN
    for line in [*preflight.told_of_data(plan), *preflight.told_of_lost(preflight.lost(plan))]:
        print(line, file=sys.stderr)


if workflow.is_main_process:
    say_what_is_left_out()


def plan_of_target():
    """The plan of what was asked for: all, or runs of some tables and figures, or of a shard."""
    plan = selected()
    if (names := asked()) is None:
        return plan
    if any(names):
        return targets.focused(plan, *names)
    jobs = [job.wildcards.job for job in workflow.dag.jobs if job.rule.name == "train"]
    return targets.with_runs(plan, {run for job in jobs for run in JOBS[job].runs})


def begin():
    stops.notice()
    GOING_ON.enter_context(watching.marked(Path(OUT)))
    try:
        plan = work.counted(plan_of_target())
    except UserError as error:  # a plug-in whose outer step fails
        raise WorkflowError(str(error))
    logger.info(
        cost.summary(plan, len(GPUS) or on_cluster()),
        extra={"cml_bench": "start", "plan": plan, "results": RESULTS},
    )


def say_end(*texts):
    shown = [text.strip() for text in texts if text.strip()]
    logger.info("\n\n".join(shown), extra={"cml_bench": "end"})
    GOING_ON.close()


def to_open(tables, figures):
    """Which files to open; a table or figure that could not be made has none."""
    files = [f"{OUT}/tables/{key}.md" for key in tables]
    files += [f"{OUT}/figures/{key}.png" for key in figures]
    there = [path for path in files if os.path.exists(path)]
    return f"Open {', '.join(there)}" if there else ""


def end_finished():
    names = asked()
    done = endings.finished(plan_of_target())
    if names is None:  # its text ends with the page to open
        say_end(done, Path(TABLES_TEXT).read_text(encoding="utf-8"))
        return
    tables = [Path(f"{OUT}/tables/{key}.txt").read_text(encoding="utf-8") for key in names[0]]
    say_end(done, *tables, to_open(*names))


def end_stopped():
    mine = shlex.join(["snakemake", *sys.argv[1:]])
    given = os.environ.get("CML_BENCH_COMMAND", mine)  # by `cml-bench run`
    say_end(endings.stopped(plan_of_target(), Path(RESULTS), given))


def end_failed():
    names = asked()
    told = endings.failed(plan_of_target(), Path(RESULTS))
    if names is not None and not names[0]:
        say_end(told)
        return
    command = ["report"] if names is None else ["table", *names[0]]
    shown = subprocess.run(
        [PYTHON, "-m", "cml_bench", *command, f"--plan={PLAN_FILE}", f"--results={RESULTS}"],
        capture_output=True,
        text=True,
    )
    say_end(told, shown.stdout, shown.stderr, to_open(*names) if names else "")
