# Reads the resolved plan of a configuration, includes the rules, names the targets.
# What runs is decided here; how it runs is decided in cml_bench.
import os
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from cml_bench import texts
from cml_bench.errors import UserError
from cml_bench.study import plan as planning
from cml_bench.study import preflight, strict_yaml, targets
from cml_bench.system import allocator, hardware, shells, utf8

min_version("9.27")

# Before anything is planned. Not where Snakemake is a part of another program, which cannot be
# started again.
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

# `--config shard=1/4` with the target `trained`: the first of four parts of a study that takes
# several sittings.
SHARD = config.pop("shard", "1/1")

# A job on another machine takes the plan that the study was started with, whatever was edited
# since. Nor does it look for lost runs: a network file system may show it a new stamp before the
# record.
AGAIN = set()
if workflow.is_main_process:
    try:
        shells.check_clone(workflow.basedir)
        for (
            path
        ) in workflow.configfiles:  # Snakemake has read them, and its reader drops doubled keys
            strict_yaml.read(os.path.relpath(path))
        PLAN = planning.cached(config, f"configuration of study {config['study']}")
    except UserError as error:
        raise WorkflowError(str(error))
    PLAN_FILE = PLAN.path
    AGAIN = preflight.lost_jobs(PLAN) | {item.key for item in preflight.other_data(PLAN)}
    # Here too, since a dry run and a start with nothing to do have no `onstart`.
    for line in [*preflight.told_of_data(PLAN), *preflight.told_of_lost(preflight.lost(PLAN))]:
        print(line, file=sys.stderr)
else:
    PLAN_FILE = os.environ["CML_BENCH_PLAN"]
    PLAN = planning.read_plan(Path(PLAN_FILE))

STUDY = PLAN.study
RESULTS = STUDY.results
OUT = f"{RESULTS}/{STUDY.study}"
PYTHON = sys.executable
# Jobs get the plan's path by the environment: as a parameter it would run them again after every
# edit of the source.
os.environ["CML_BENCH_PLAN"] = PLAN_FILE
for name, value in allocator.environment(STUDY.allocator).items():
    os.environ.setdefault(name, value)  # what the user set holds


envvars:
    "CML_BENCH_PLAN",


# What workflow/report/study.rst says of the study; Snakemake hands nothing but `config` to it.
config["told"] = {"title": texts.rst(STUDY.title), "summary": texts.rst(STUDY.summary)}


report: "workflow/report/study.rst"


# A wildcard is one name: no folder that a user chooses can make the output of one rule look like
# another's.
wildcard_constraints:
    data="[^/]+",
    job="[^/]+",
    table="[^/]+",
    figure="[^/]+",


# Runs whose data cannot be had here, or whose record has neither the results nor the weights, are
# left out, with the reason in the tables; all else goes on.
BLOCKED, LOST = preflight.blocked(PLAN), preflight.lost(PLAN).keys()
JOBS = {
    job.id: job for job in PLAN.jobs if not BLOCKED.keys() & set(job.data) and set(job.runs) - LOST
}

# One training per place on a GPU. setdefault, because a limit in a profile is wiped by any
# --resources flag; this one is only overridden by --resources gpu_slots=N itself. On a cluster jobs
# ask for a `gpu` instead, see the rule `train`.
GPUS = hardware.gpus()
workflow.global_resources.setdefault("gpu_slots", max(1, len(GPUS) * STUDY.runs_per_gpu))


include: "workflow/rules/internals.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


# On a cluster only trainings are submitted. The rest takes seconds, less than a place in the queue,
# and downloads need the network, which compute nodes often lack.
localrules:
    all,
    trained,
    fetch,
    table,
    figure,
    report,


# Has no output, so it is run at every start: the tables end in the terminal also when nothing was
# left to do.
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
        "cat -- {input.text:q} 2> {log:q}"


onstart:
    if not Path(
        PLAN_FILE
    ).exists():  # a folder for reading only will do for a dry run, not for jobs
        raise WorkflowError(
            f"nothing can be written to {RESULTS}: name a folder of yours under `results`."
        )
    if on_cluster():
        refuse_names_for_cluster()
    print(preflight.summary(PLAN, len(GPUS) or on_cluster()), flush=True)
    if (
        STUDY.gpu == "expected"
        and not (GPUS or on_cluster() or STUDY.allow_cpu)
        and planned_gpu_jobs()
    ):
        raise WorkflowError(preflight.refusal(PLAN))


onerror:
    print(
        "Some runs failed; the tables below hold what is finished."
        " Start again to go on where it stopped.",
        flush=True,
    )
    for command in ("status", "report"):
        subprocess.run(
            [PYTHON, "-m", "cml_bench", command, f"--plan={PLAN_FILE}", f"--results={RESULTS}"]
        )
