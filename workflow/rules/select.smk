# Selects a setting of each sweep when all runs of the selection have ended. It is a checkpoint:
# only then is known which runs of the report are made.
TRIED = [run for sweep in PLAN.sweeps for one in sweep.settings for run in one.tried]


checkpoint select:
    input:
        stamps_of(TRIED),
    output:
        f"{OUT}/selected.json",
    log:
        f"{RESULTS}/logs/{STUDY.study}-select.log",
    conda:
        "../../environment.yml"
    params:
        python=interpreter,
        plan=PLAN_FILE,
    message:
        "selecting settings"
    shell:
        "{params.python:q} -m cml_bench select --plan={params.plan:q} --out={output:q}"
        " > {log:q} 2>&1"
