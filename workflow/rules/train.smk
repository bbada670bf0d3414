# One job trains one run or several short ones. Its output is a stamp with the status of each run.
# The package writes the runs themselves under results/runs, atomically and under a lock, and never
# trains a finished run again. A stamp for each run would say no more: a rule has a fixed number of
# outputs, and Snakemake deletes all of them if one run fails. Whether a run is finished stands in
# its record.
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
        ' -- "$CML_BENCH_PLAN"' + LOGGED


# `snakemake trained` trains every run of the study, or of the shard, and makes no tables.
rule trained:
    input:
        lambda wildcards: stamps_of_shard(SHARD),
