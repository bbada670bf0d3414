# Data sets are fetched and prepared once, outside the training processes. The output of the rule is
# a stamp and not the arrays: Snakemake deletes outputs before a rule runs again.
import json

USED = preflight.without_stamp(PLAN)
DATA = {item.key: item for item in PLAN.data if item.prepares and item.key not in USED}


rule fetch:
    input:
        lambda wildcards: forced(f"{STUDY.data_dir}/ready/{wildcards.data}.json", wildcards.data),
    output:
        f"{STUDY.data_dir}/ready/{{data}}.json",
    log:
        f"{RESULTS}/logs/fetch-{{data}}.log",
    retries: 2
    conda:
        "../../environment.yml"
    params:
        python=interpreter,
        name=lambda wildcards: DATA[wildcards.data].name,
        options=lambda wildcards: json.dumps(DATA[wildcards.data].options),
        # The command does not use these. They make the rule run again when the user names other
        # copies of the files, which may be other data.
        sources=lambda wildcards: preflight.own_digests(STUDY, DATA[wildcards.data].name),
    message:
        "preparing data set {wildcards.data}"
    shell:
        "{params.python:q} -m cml_bench fetch {params.name:q} --options={params.options:q}"
        ' --plan="$CML_BENCH_PLAN" --stamp={output:q}' + LOGGED
