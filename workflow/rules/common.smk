# Functions that the rules share: which jobs and stamps a target needs.
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
PAPER_NUMBERS = [STUDY.published] if STUDY.published else []
CLAIMS = [path for path in ["configs/reference/claims.yaml"] if os.path.exists(path)]
JOB_OF = {run: job for job, content in JOBS.items() for run in content.runs}


def interpreter(wildcards):
    """The Python of the jobs.

    This is a function, since Snakemake would take braces in a plain value for a wildcard.
    """
    return PYTHON


def stamps_of(runs):
    """The stamps of the jobs of these runs. Runs that cannot be made here have none."""
    return sorted({f"{RESULTS}/done/{JOB_OF[run]}.json" for run in runs if run in JOB_OF})


def forced(stamp, name):
    """Make the job of a stamp run again if its runs were moved away or its data has changed.

    Returns no input. Call it in the input function of a rule, when the DAG exists. The stamp is not
    removed: this file cannot tell a dry run from a real one, and a dry run must write nothing.
    """
    if name in AGAIN:
        workflow.dag.forcefiles.add(stamp)
    return []


def stamps_of_shard(shard):
    """The stamps of part i of n, "i/n": every n-th job, so that all parts cost about the same."""
    part, _, parts = str(shard).partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise WorkflowError(f"shard must be i/n with 1 <= i <= n, such as 1/4; got {shard!r}.")
    # A part has the runs of selected settings only when all parts of the selection are there.
    plan = after_selection() if str(shard) == "1/1" else selected()
    jobs = [job.id for job in plan.jobs if job.id in JOBS]
    return [f"{RESULTS}/done/{job}.json" for job in jobs[int(part) - 1 :: int(parts)]]


def selected():
    """The plan with the settings that the records select now; that of a study without sweeps."""
    return selection.narrowed(PLAN, Store(RESULTS))


def after_selection():
    """The plan with the settings that are selected. Jobs that need it wait for the selection."""
    if PLAN.sweeps:
        checkpoints.select.get()
    return selected()


def is_swept(rows):
    """Whether some of these rows of a table, or lines of a figure, show selected settings."""
    return any(selection.sweeps_of(PLAN, key) for row in rows for key in (row.run, row.against))


def stamps_of_table(wildcards):
    table = targets.restrict(PLAN, wildcards.table).tables[wildcards.table]
    plan = after_selection() if is_swept(table.rows) else PLAN
    cells = targets.restrict(plan, wildcards.table).cells
    return stamps_of(run for cell in cells if cell.table == wildcards.table for run in cell.needs)


def stamps_of_figure(wildcards):
    plan = after_selection() if is_swept(PLAN.figures[wildcards.figure].runs) else PLAN
    return stamps_of(targets.runs_of_figure(plan, wildcards.figure))


def stamps_of_all(wildcards):
    return stamps_of(after_selection().specs)


# A figure whose runs cannot be made here is left out, so that the page can be written.
DRAWN = [key for key in PLAN.figures if JOB_OF.keys() >= set(targets.runs_of_figure(PLAN, key))]


def titled(kind, key):
    """The label of a table or figure in Snakemake's report: its title.

    A part of a table has no title of its own, so its key is the label. There is no second label:
    Snakemake 9.27 makes a toggle for results whose second labels differ, and that toggle fails.
    """
    named = (PLAN.tables if kind == "table" else PLAN.figures).get(key)
    return {kind: texts.snakemake_label(named.title if named else key)}


def on_cluster():
    """Whether jobs are sent to other machines.

    This one is then a login node, and its GPUs do not matter.
    """
    dry = workflow.dryrun and workflow.resource_settings.nodes is not None
    return workflow.non_local_exec or workflow.remote_exec or dry


def refuse_names_for_cluster():
    """Stop if a shell would change something that Snakemake writes into a cluster job's command."""
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
    """A generous time limit for a queue, at most a day. A run that is cut off goes on when retried.

    Nobody reads the limit of a job on this machine, so its work is not counted.
    """
    if not (workflow.is_main_process and on_cluster()):
        return DAY
    hours = cost.hours([counted_runs()[run] for run in JOBS[job].runs], gpu=wants_gpu(job))
    return min(DAY, 30 + int(3 * 60 * hours))


@functools.cache
def counted_runs():
    return {run.id: run for run in work.counted(PLAN).runs}


def planned_gpu_jobs():
    """The jobs about to run that would take very long on a CPU."""
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name == "train"]
    return [job for job in jobs if JOBS[job.wildcards.job].gpu]
