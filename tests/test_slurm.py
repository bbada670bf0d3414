"""Studies through SLURM on a cluster of this one machine, with the project's profile."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from cml_bench.system import hardware
from tests.helpers.checkouts import CONFIG, ROOT, trained
from tests.helpers.waiting import wait_for

SCRIPT = ROOT / "tests" / "slurm" / "cluster.sh"
# This cluster has no accounting and a partition for GPUs, and its jobs take seconds.
SETTINGS = (
    "--slurm-status-command",
    "squeue",
    "--slurm-partition-config",
    str(SCRIPT.with_name("partitions.yaml")),
    "--slurm-init-seconds-before-status-checks",
    "5",
)
GPU = "gres:gpu:1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The commands of a running cluster, first on the path.

    Nothing is left running, whatever the tests do.
    """
    if os.getuid() != 0:
        pytest.skip("munge and slurmd need root")
    folder = tmp_path_factory.mktemp("slurm")
    up = subprocess.run([SCRIPT, "up", folder], capture_output=True, text=True)
    try:
        if up.returncode == 3:
            pytest.skip(f"SLURM is not installed and cannot be: {up.stderr[-500:]}")
        assert up.returncode == 0, up.stderr
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
            patch.setenv("OMP_NUM_THREADS", "1")
            yield folder
    finally:
        subprocess.run([SCRIPT, "down", folder], check=True)
        left = [
            pid
            for name in ("munged", "slurmctld", "slurmd")
            if (pid := living(folder / f"{name}.pid"))
        ]
        assert not left, f"processes {left} are left of the cluster"


def living(pid_file: Path) -> str:
    pid = pid_file.read_text().strip() if pid_file.exists() else ""
    return pid if pid and Path("/proc", pid).exists() else ""


def command(folder: Path, config: dict, *args: str) -> list[str]:
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    start = [
        sys.executable,
        "-m",
        "snakemake",
        "--profile",
        "profiles/slurm",
        "--configfile",
        "study.yaml",
    ]
    return [*start, *SETTINGS, *args]


def submit(folder: Path, config: dict, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(folder, config, *args), cwd=folder, capture_output=True, text=True
    )


def small_demo() -> dict:
    """configs/demo.yaml with every rule, method, table and figure, trained for a moment.

    It has one seed.
    """
    config = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text()) | {"seeds": [0]}
    glyphs, sinusoid = config["experiments"]["glyphs"], config["experiments"]["sinusoid"]
    short = {"val_every": 2, "val_tasks": 4}
    glyphs |= {"steps": 4, "evaluation": {"tasks": 10, "query": 5}, "protocol_options": short}
    glyphs |= {"network_options": {"filters": 4}, "runs_per_job": 8}
    sinusoid |= {"steps": 20, "protocol_options": {"val_tasks": 10}}
    sinusoid["evaluation"] |= {"tasks": 20}
    config["experiments"]["sbm"] |= {
        "steps": 2,
        "evaluation": {"tasks": 4, "query": 10},
        "runs_per_job": 12,
    }
    return config


def jobs_of(said: str) -> dict[str, dict[str, str]]:
    """SLURM's job id -> what scontrol says of the job, for all jobs that Snakemake submitted."""
    ids = re.findall(r"^Job \d+ has been submitted with SLURM jobid (\d+)", said, re.MULTILINE)
    shown = {
        i: subprocess.check_output(["scontrol", "show", "job", i, "--oneliner"], text=True)
        for i in ids
    }
    return {
        i: dict(part.split("=", 1) for part in text.split() if "=" in part)
        for i, text in shown.items()
    }


@pytest.mark.slow
def test_the_demos_jobs_run_on_the_cluster_and_ask_for_what_they_need(cluster, checkout):
    done = submit(checkout, small_demo())
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    jobs = jobs_of(done.stdout + done.stderr)
    assert len(jobs) == trained(done) == 3, "every training, and nothing else, is a job"
    for job in jobs.values():
        assert (job["JobState"], job["NumCPUs"], job["MinMemoryNode"]) == (
            "COMPLETED",
            "1",
            "8000M",
        ), job
        assert job["TimeLimit"] == "00:30:00"
    # The network of glyphs is faster on a GPU; those of sinusoids and graphs are not, whatever this
    # machine has.
    asked = sorted((job["Partition"], job.get("TresPerJob")) for job in jobs.values())
    assert asked == [("cpu", None), ("cpu", None), ("gpu", GPU)]
    out = checkout / "results" / "demo"
    made = [
        "report.html",
        *(f"tables/{table}.md" for table in ("sinusoid", "table1", "table3", "table4")),
        "figures/figure2.png",
    ]
    for name in made:
        assert (out / name).stat().st_size > 200, name
    assert "MAML + CML†" in done.stdout, "the tables end in the terminal"
    again = submit(checkout, small_demo())
    assert (again.returncode, jobs_of(again.stdout + again.stderr)) == (0, {}), (
        "nothing is left to do"
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a job must find no GPU")
def test_a_job_that_is_cut_off_goes_on_and_one_that_fails_is_told_with_its_log(cluster, checkout):
    """A study that expects a GPU starts on a machine without one: its job says what it lacks.

    The other job is cancelled after the first of its two runs, as at a time limit: by SIGTERM, and
    by SIGKILL a little later.
    """
    config = {
        **CONFIG,
        "study": "cut",
        "results": "cut",
        "gpu": "expected",
        "seeds": 1,
        "figures": {},
    }
    glyphs = {
        **CONFIG["experiments"]["glyphs"],
        "methods": {"maml": {"options": {"inner_lr": 0.4}}},
    }
    config["experiments"] = {
        "sinusoid": {**CONFIG["experiments"]["sinusoid"], "steps": 3000},
        "glyphs": glyphs,
    }
    config["tables"] = {"sinusoid": CONFIG["tables"]["sinusoid"]}
    start = command(checkout, config, "--retries", "1", "trained", "sinusoid")
    with subprocess.Popen(
        start, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as snakemake:
        records = wait_for(lambda: list(checkout.glob("cut/runs/*-sinusoid-*/record.json")))
        before = records[0].read_bytes()
        subprocess.run(["scancel", "--user=root", "--partition=cpu", "--state=RUNNING"], check=True)
        said = snakemake.communicate()[0]
    assert snakemake.returncode != 0
    assert "no GPU is visible" not in said, "not refused at the start"
    assert f"the study expects a GPU, and torch {torch.__version__} sees none on" in said
    assert re.search(r"^its log, cut/logs/train-\w+\.log:$", said, re.MULTILINE)
    assert "SLURM status is: 'CANCELLED'" in said
    states = sorted((job["JobState"], job.get("TresPerJob")) for job in jobs_of(said).values())
    assert states == [("CANCELLED", None), ("COMPLETED", None), ("FAILED", GPU), ("FAILED", GPU)]
    assert len(records) == 1, "it was cancelled in its second run"
    assert records[0].read_bytes() == before, "what was finished is not trained again"
    assert (checkout / "cut" / "cut" / "tables" / "sinusoid.md").exists(), "made from both runs"


@pytest.mark.slow
def test_a_job_sees_the_gpus_that_it_was_given(cluster):
    code = (
        "import os; from cml_bench.system import hardware as h; "
        "print(os.environ['SLURM_JOB_ID'], h.gpus(), h.slot_folder())"
    )
    for request, numbers in [((), "[]"), (("--gpus=1",), "[0]"), (("--gpus=2",), "[0, 1]")]:
        asked = ["srun", "--quiet", *request, "--mem=500", "--time=1", sys.executable, "-c", code]
        job, said = subprocess.check_output(asked, text=True, cwd=ROOT).strip().split(" ", 1)
        assert said == f"{numbers} {hardware.slot_folder()}-slurm{job}"


def test_two_slurm_jobs_do_not_wait_for_each_others_gpu(monkeypatch, tmp_path):
    """Both jobs call their GPU number 0."""
    monkeypatch.setattr(hardware.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with hardware.claim([0]):
        monkeypatch.setenv("SLURM_JOB_ID", "2")
        with hardware.claim([0], say=lambda text: pytest.fail(text)) as number:
            assert number == 0


def test_a_job_without_gpus_has_none(monkeypatch):
    monkeypatch.delenv("CML_BENCH_GPUS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")  # SLURM's word for a GPU
    assert hardware.gpus() == []
