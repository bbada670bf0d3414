"""A study is weighed here: from records to tables of cells, tests, notes and verdicts.

``stats`` holds intervals and tests, ``verdict`` the rules of what may be said, ``table`` the parts
of a table. ``build`` makes a table from records, ``notes`` its sentences, and ``paper`` sets the
paper's numbers beside it. ``gate`` compares short runs with committed references. Nothing here
imports torch. docs/evidence.md states the rules: a change of one needs a reason there, and a
simulation in tests/test_simulated_results.py.
"""
