# One job trains one run or several short ones. The output is a stamp: the runs themselves are
# written by the package under results/runs, atomically and under a lock, and a finished run is
# never trained again. One stamp a job, with each run's status in it: a rule has a fixed number of
# outputs, and Snakemake deletes all of them where one run failed, so stamps of single runs would
# say no more. What says that a run is finished is its own record.
rule train:
    input:
        lambda wildcards: forced(f"{RESULTS}/done/{wildcards.job}.json", wildcards.job)
        + [
            f"{STUDY.data_dir}/ready/{key}.json"
            for key, item in DATA.items()
            if item.data_id in JOBS[wildcards.job].data
        ],
    output:
        f"{RESULTS}/done/{{job}}.json",
    log:
        f"{RESULTS}/logs/train-{{job}}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu_slots=lambda wildcards: int(
            bool(GPUS) and not on_cluster() and wants_gpu(wildcards.job)
        ),
        gpu=lambda wildcards: int(on_cluster() and wants_gpu(wildcards.job)),
        runtime=lambda wildcards: minutes(wildcards.job),
    params:
        python=interpreter,
        runs=lambda wildcards: list(JOBS[wildcards.job].runs),
        title=lambda wildcards: JOBS[wildcards.job].title,
    message:
        "training {params.title}"
    shell:
        "{params.python:q} -m cml_bench train --job={wildcards.job:q}"
        " --stamp={output:q} --threads={threads}"
        ' -- "$CML_BENCH_PLAN" 2>&1 | tee -- {log:q}'


# `snakemake trained`: every run of the study, or of the shard, without tables.
rule trained:
    input:
        stamps_of_shard(SHARD),
