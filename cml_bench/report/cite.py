"""How to cite the method and a study's results, as BibTeX. Imports no torch."""

from collections.abc import Sequence

import cml_bench
from cml_bench import texts
from cml_bench.records import Record
from cml_bench.report import summary
from cml_bench.study.plan import Plan
from cml_bench.study.provenance import UNKNOWN, commit_of

PAPER = """@inproceedings{shin2024cml,
  title     = {Cooperative Meta-Learning with Gradient Augmentation},
  author    = {Shin, Jongyun and Han, Seungjin and Kim, Jangho},
  booktitle = {Proceedings of the Fortieth Conference on Uncertainty in Artificial Intelligence},
  series    = {Proceedings of Machine Learning Research},
  volume    = {244},
  pages     = {3198--3210},
  year      = {2024}
}"""  # names as on OpenReview, ymjADRNzvu


def harness(plan: Plan, records: Sequence[Record]) -> str:
    """The study with the version, the commits and the year of its records; without records, with
    what is known of the plan alone.
    """
    name = texts.latex("cml_bench")
    made = {commit_of(record) for record in records}
    commits = ", ".join(sorted(made - {UNKNOWN}))
    told = f", commit {texts.latex(commits)}" if commits else ""
    if commits and UNKNOWN in made:
        told += " (some runs name none)"
    fields = {
        "title": f"{name}: a benchmark-reproduction harness for Cooperative Meta-Learning",
        "author": f"{{The {name} authors}}",
        "year": max((record.created[:4] for record in records), default=""),
        "version": cml_bench.__version__,
        "note": f"Study {texts.latex(plan.study.study)}, plan {summary.plan_id(plan)}{told}",
    }
    lines = [f"  {key:7} = {{{value}}}" for key, value in fields.items() if value]
    return "@software{cml_bench,\n" + ",\n".join(lines) + "\n}"
