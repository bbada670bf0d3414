"""A study is weighed here: from records to tables of cells, tests, notes and verdicts.

``stats`` holds the intervals and tests, ``verdict`` the rules of what may be said, ``table`` what a
table is made of, ``build`` makes one from records, ``notes`` says it in sentences, ``paper`` sets
the published numbers beside it, ``gate`` compares short runs with committed references. Nothing
here imports torch. The rules are written down in docs/evidence.md: a change of one needs a reason
there and a simulation in tests/test_simulated_results.py.
"""
