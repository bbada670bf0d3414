"""The kinds of tables, one file each, found by scanning this folder.

:class:`~cml_bench.study.table_kind.TableKind` says what a kind may set. Planning imports these
files, so a kind imports ``report/grids.py``, which loads scipy, in the function that needs it.
"""
