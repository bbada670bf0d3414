# Which jobs and stamps a target needs: functions that the rules share.
import functools

NAMED = {key: [f"{OUT}/tables/{key}.md"] for key in targets.parts(PLAN)}
NAMED |= {key: [f"{OUT}/figures/{key}.png"] for key in PLAN.figures}
NAMED |= {
    key: [f"{OUT}/figures/{part}.png" for part in parts]
    for key, parts in targets.figure_groups(PLAN).items()
}
NAMED |= {
    key: [f"{OUT}/tables/{part}.md" for part in parts]
    for key, parts in targets.groups(PLAN).items()
}
PUBLISHED = [STUDY.published] if STUDY.published else []
JOB_OF = {run: job for job, content in JOBS.items() for run in content.runs}


def interpreter(wildcards):
    """The Python of the jobs. A function, since Snakemake would take braces in a plain value for a
    wildcard.
    """
    return PYTHON


def stamps_of(runs):
    """Stamps of the jobs of these runs; runs that cannot be made here have none."""
    return sorted({f"{RESULTS}/done/{JOB_OF[run]}.json" for run in runs if run in JOB_OF})


def forced(stamp, name):
    """Nothing; but if its runs were moved away, or its data is other data, the stamp's job runs in
    spite of the stamp.

    To be called in a rule's input function, when the DAG is there. No stamp is removed for that: a
    dry run, which cannot be told from a start while this file is read, writes nothing.
    """
    if name in AGAIN:
        workflow.dag.forcefiles.add(stamp)
    return []


def stamps_of_shard(shard):
    """Stamps of part i of n, "i/n": every n-th job, so that the parts cost about the same."""
    part, _, parts = str(shard).partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise WorkflowError(f"shard must be i/n with 1 <= i <= n, such as 1/4; got {shard!r}.")
    return [f"{RESULTS}/done/{job}.json" for job in list(JOBS)[int(part) - 1 :: int(parts)]]


def stamps_of_table(wildcards):
    cells = targets.restrict(PLAN, wildcards.table).cells
    return stamps_of(run for cell in cells if cell.table == wildcards.table for run in cell.needs)


def runs_of_figure(key):
    figure = PLAN.figures[key]
    methods = PLAN.members[figure.experiment]
    shown = [methods[row.run] for row in figure.runs]
    return [run for shots in shown for shot in figure.shots or shots for run in shots[shot]]


def stamps_of_figure(wildcards):
    return stamps_of(runs_of_figure(wildcards.figure))


# A figure of runs that cannot be made here does not hold up the page.
DRAWN = [key for key in PLAN.figures if JOB_OF.keys() >= set(runs_of_figure(key))]


def titled(kind, key):
    """The label of a table or figure in Snakemake's report: its title; a part of a table has none
    of its own.

    One label and no second: of two results whose second labels differ, Snakemake 9.27 makes a
    toggle that fails.
    """
    named = (PLAN.tables if kind == "table" else PLAN.figures).get(key)
    return {kind: texts.snakemake_label(named.title if named else key)}


def on_cluster():
    """Whether jobs are sent to other machines: the GPUs of this one, a login node, then say
    nothing.
    """
    dry = workflow.dryrun and workflow.resource_settings.nodes is not None
    return workflow.non_local_exec or workflow.remote_exec or dry


def refuse_names_for_cluster():
    """Stop if something that Snakemake writes into the command of a cluster's job would be read by
    a shell there.
    """
    given = [
        os.getcwd(),
        workflow.basedir,
        RESULTS,
        STUDY.data_dir,
        *workflow.overwrite_configfiles,
    ]
    try:
        shells.check_cluster(
            PYTHON, map(str, [*given, *(workflow.config_settings.config_args or [])])
        )
    except UserError as error:
        raise WorkflowError(str(error))


def wants_gpu(job):
    return JOBS[job].gpu and STUDY.device != "cpu"


DAY = 24 * 60  # minutes


def minutes(job):
    """A generous time limit for a queue, at most a day: a run that is cut off goes on when retried.

    Nobody reads the limit of a job that stays on this machine, so its work is not counted for it.
    """
    if not (workflow.is_main_process and on_cluster()):
        return DAY
    hours = cost.hours([counted_runs()[run] for run in JOBS[job].runs], gpu=wants_gpu(job))
    return min(DAY, 30 + int(3 * 60 * hours))


@functools.cache
def counted_runs():
    return {run.id: run for run in work.counted(PLAN).runs}


def planned_gpu_jobs():
    """Jobs about to run that a CPU would need very long for."""
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name == "train"]
    return [job for job in jobs if JOBS[job.wildcards.job].gpu]
