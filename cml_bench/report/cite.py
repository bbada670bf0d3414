"""How to cite the method and a study's results, as BibTeX. Imports no torch."""

import cml_bench
from cml_bench import texts
from cml_bench.report import summary
from cml_bench.study.plan import Plan

PAPER = """@inproceedings{shin2024cml,
  title     = {Cooperative Meta-Learning with Gradient Augmentation},
  author    = {Shin, Jongyun and Han, Seungjin and Kim, Jangho},
  booktitle = {Proceedings of the Fortieth Conference on Uncertainty in Artificial Intelligence},
  series    = {Proceedings of Machine Learning Research},
  volume    = {244},
  pages     = {3198--3210},
  year      = {2024}
}"""  # names as on OpenReview, ymjADRNzvu


def harness(plan: Plan) -> str:
    study, version = texts.latex(plan.study.study), cml_bench.__version__
    title = "a benchmark-reproduction harness for Cooperative Meta-Learning"
    return f"""@software{{cml_bench,
  title   = {{{texts.latex("cml_bench")}: {title}}},
  version = {{{version}}},
  note    = {{Study {study}, plan {summary.plan_id(plan)}}}
}}"""
