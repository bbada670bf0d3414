"""A study is told here: tables in every form, the page, and the results that are committed.

``grids`` lays a table out in blocks of strings; ``forms`` renders them for terminals, Markdown,
LaTeX and CSV. ``summary`` counts outcomes and says them in sentences. ``charts``, ``forest`` and
``page`` make report.html, and ``write`` puts files into a study's folder. ``publish`` copies
records to results/reference and fills docs/results.md. Nothing here imports torch, and only
``evidence`` decides what a number means. A text that a person wrote goes through ``texts.py``.
"""
