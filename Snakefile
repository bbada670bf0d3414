# Reads the plan of a configuration, includes the rules and names the targets.
# This file decides what runs; cml_bench decides how it runs.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from cml_bench import texts
from cml_bench.errors import UserError
from cml_bench.study import plan as planning
from cml_bench.records import Store
from cml_bench.study import cost, preflight, selection, strict_yaml, targets, work
from cml_bench.system import allocator, hardware, shells, stops, utf8

min_version("9.27")

# This comes before any planning. If another program has loaded Snakemake, it cannot be restarted.
if "snakemake" in Path(sys.argv[0]).parts[-2:]:
    utf8.restart()
utf8.streams()

DEFAULT_CONFIG = "configs/paper.yaml"
if "study" not in config:
    if "experiments" in config:
        raise WorkflowError(
            "the configuration has no `study`, its name: add a line such as `study: mine`."
        )
    config = {**strict_yaml.read(DEFAULT_CONFIG), **config}

# For a study that takes several sittings: `--config shard=1/4` with the target `trained` trains the
# first of four parts.
SHARD = config.pop("shard", "1/1")

# A job on another machine uses the plan with which the study was started, whatever was edited
# since then. It does not look for lost runs: a network file system may show it a new stamp before
# the record.
AGAIN = set()
if workflow.is_main_process:
    try:
        shells.check_clone(workflow.basedir)
        # Snakemake has read these files, but its reader drops doubled keys without a word.
        for path in workflow.configfiles:
            strict_yaml.read(os.path.relpath(path))
        PLAN = planning.cached(config, f"configuration of study {config['study']}")
    except UserError as error:
        raise WorkflowError(str(error))
    PLAN_FILE = PLAN.path
    AGAIN = preflight.lost_jobs(PLAN) | {item.key for item in preflight.other_data(PLAN)}
else:
    PLAN_FILE = os.environ["CML_BENCH_PLAN"]
    PLAN = planning.read_plan(Path(PLAN_FILE))

STUDY = PLAN.study
RESULTS = STUDY.results
OUT = f"{RESULTS}/{STUDY.study}"
PYTHON = sys.executable
# Jobs get the path of the plan from the environment. It changes with every edit of the source, so
# as a parameter it would make every job run again.
os.environ["CML_BENCH_PLAN"] = PLAN_FILE
for name, value in allocator.environment(STUDY.allocator).items():
    os.environ.setdefault(name, value)  # the user's own setting stays


envvars:
    "CML_BENCH_PLAN",


# For workflow/report/study.rst, to which Snakemake gives only `config`.
config["told"] = {"title": texts.rst(STUDY.title), "summary": texts.rst(STUDY.summary)}


report: "workflow/report/study.rst"


# A wildcard is one name, without a slash. Otherwise a user's folder could make the output of one
# rule look like that of another.
wildcard_constraints:
    data="[^/]+",
    job="[^/]+",
    table="[^/]+",
    figure="[^/]+",


# Two kinds of runs are left out, and the tables say why: those whose data cannot be had here, and
# those whose record has lost both results and weights. All others go on.
BLOCKED, LOST = preflight.blocked(PLAN), preflight.lost(PLAN).keys()
JOBS = {
    job.id: job for job in PLAN.jobs if not BLOCKED.keys() & set(job.data) and set(job.runs) - LOST
}

# One training for each place on a GPU. This limit does not stand in a profile, where any
# --resources flag would remove it; here only --resources gpu_slots=N replaces it. On a cluster jobs
# ask for a `gpu` instead: see the rule `train`.
GPUS = hardware.gpus()
workflow.global_resources.setdefault("gpu_slots", max(1, len(GPUS) * STUDY.runs_per_gpu))


include: "workflow/rules/internals.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/terminal.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/report.smk"


# On a cluster only trainings are submitted. The other jobs take seconds, less than the wait in the
# queue, and downloads need the network, which compute nodes often lack.
localrules:
    all,
    trained,
    fetch,
    select,
    table,
    figure,
    report,


# This rule has no output, so it runs at every start: the study's end, with the tables, is shown
# even if there was nothing left to do.
rule all:
    default_target: True
    input:
        page=REPORT,
        text=TABLES_TEXT,
    log:
        f"{RESULTS}/logs/all-{STUDY.study}.log",
    conda:
        "environment.yml"
    shell:
        ": > {log:q}"


onstart:
    # A dry run needs no plan file, so it works in a folder without write permission. Jobs need it.
    if not Path(PLAN_FILE).exists():
        raise WorkflowError(
            f"nothing can be written to {RESULTS}: name a folder of yours under `results`."
        )
    if on_cluster():
        refuse_names_for_cluster()
    if (
        STUDY.gpu == "expected"
        and not (GPUS or on_cluster() or STUDY.allow_cpu)
        and planned_gpu_jobs()
    ):
        print(cost.summary(selected()), file=sys.stderr)
        raise WorkflowError(cost.refusal(selected()))
    begin()


onsuccess:
    end_finished()


onerror:
    end_stopped() if stops.asked.is_set() else end_failed()
