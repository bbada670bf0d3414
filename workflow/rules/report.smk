# Makes figures, tables and the report page from finished runs. The plan is a parameter here: its
# path has the hash of configuration and source, so all is made anew after an edit of a title or of
# the code. `snakemake --report report.html` gathers the outputs marked with report(), with captions
# from workflow/report.
REPORT = f"{OUT}/report.html"
TABLES_TEXT = f"{OUT}/tables.txt"


rule figure:
    input:
        stamps_of_figure,
    output:
        report(
            f"{OUT}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda wildcards: titled("figure", wildcards.figure),
        ),
    log:
        f"{RESULTS}/logs/{STUDY.study}-{{figure}}.log",
    conda:
        "../../environment.yml"
    params:
        python=interpreter,
        plan=PLAN_FILE,
        caption=lambda wildcards: texts.rst(PLAN.figures[wildcards.figure].caption),
    message:
        "drawing {wildcards.figure}"
    shell:
        "{params.python:q} -m cml_bench figure {wildcards.figure:q} --plan={params.plan:q}"
        " > {log:q} 2>&1"


rule table:
    input:
        stamps_of_table,
        PAPER_NUMBERS,
    output:
        multiext(f"{OUT}/tables/{{table}}", ".md", ".tex"),
        report(
            f"{OUT}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels=lambda wildcards: titled("table", wildcards.table),
        ),
        text=f"{OUT}/tables/{{table}}.txt",
    log:
        f"{RESULTS}/logs/{STUDY.study}-{{table}}.log",
    conda:
        "../../environment.yml"
    params:
        python=interpreter,
        plan=PLAN_FILE,
    message:
        "rendering {wildcards.table}"
    shell:
        "{params.python:q} -m cml_bench table {wildcards.table:q} --plan={params.plan:q}"
        " > {output.text:q} 2> {log:q}"


rule report:
    input:
        stamps_of_all,
        expand("{out}/tables/{table}.md", out=OUT, table=PLAN.tables),
        expand("{out}/figures/{figure}.png", out=OUT, figure=DRAWN),
        CLAIMS,
    output:
        page=report(
            REPORT, caption="../report/page.rst", category="Page", labels={"study": STUDY.study}
        ),
        text=TABLES_TEXT,
    log:
        f"{RESULTS}/logs/{STUDY.study}-report.log",
    conda:
        "../../environment.yml"
    params:
        python=interpreter,
        plan=PLAN_FILE,
    message:
        "writing the report"
    shell:
        "{params.python:q} -m cml_bench report --plan={params.plan:q} > {output.text:q} 2> {log:q}"


# `snakemake table1` or `snakemake figure2` makes one table or figure and everything it needs. There
# are also targets for parts of a table, by data set, shots and number of seeds (table2_cifar_fs,
# table1_n3, table2_cifar_fs_1shot_n3), and for all tables of a data set (cifar_fs, cifar_fs_n3).
for key, made in NAMED.items():

    rule:
        name:
            f"{key}"
        input:
            made,
        log:
            f"{RESULTS}/logs/all-{STUDY.study}-{key}.log",
        localrule: True
        conda:
            "../../environment.yml"
        shell:
            ": > {log:q}"
