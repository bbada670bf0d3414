"""A study is told here: tables in every form, the page, and what is published.

``grids`` lays a table out in blocks of strings, ``forms`` renders them for terminals, Markdown,
LaTeX and CSV, ``summary`` counts and says what came out. ``charts``, ``forest`` and ``page`` make
report.html, ``write`` puts files into a study's folder, ``publish`` copies records to
results/reference and fills README and docs. Nothing here imports torch or decides what a number
means: that is ``evidence``. A text that a person wrote goes through ``texts.py`` in every form.
"""
