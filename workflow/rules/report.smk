# Figures, tables and the report page, from finished runs. The plan is a parameter here: its path is the hash of the
# configuration and the source, so an edited title or a mended figure is drawn anew.
REPORT = f"{OUT}/report.html"
TABLES_TEXT = f"{OUT}/tables.txt"
STAMPS = [f"{RESULTS}/done/{job}.json" for job in JOBS]


rule figures:
    input:
        STAMPS,
    output:
        expand("{out}/figures/{figure}.png", out=OUT, figure=PLAN["figures"]),
    log:
        f"{RESULTS}/logs/figures-{STUDY['study']}.log",
    conda:
        "../../environment.yml"
    params:
        python=PYTHON,
        plan=PLAN_FILE,
    message:
        "drawing figures"
    shell:
        "{params.python} -m cml_bench figure --plan {params.plan} > {log} 2>&1"


rule tables:
    input:
        STAMPS,
        rules.figures.output,
    output:
        page=REPORT,
        text=TABLES_TEXT,
        tables=expand("{out}/tables/{table}.{kind}", out=OUT, table=PLAN["tables"], kind=["md", "tex", "csv"]),
    log:
        f"{RESULTS}/logs/tables-{STUDY['study']}.log",
    conda:
        "../../environment.yml"
    params:
        python=PYTHON,
        plan=PLAN_FILE,
    message:
        "rendering tables"
    shell:
        "{params.python} -m cml_bench table --plan {params.plan} > {output.text} 2> {log}"


# `snakemake table1` and `snakemake figure2` make one of them and everything it needs.
for key in [*PLAN["tables"], *PLAN["figures"]]:

    rule:
        name:
            key
        input:
            f"{OUT}/tables/{key}.md" if key in PLAN["tables"] else f"{OUT}/figures/{key}.png",
