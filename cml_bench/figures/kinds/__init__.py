"""The kinds of figures, one file each, found by scanning this folder.

A kind's class is the configuration of such a figure. It says what may be chosen, which runs it is
for, how its arrays are measured, and how they are drawn (:class:`FigureConfig` lists the hooks).
Planning imports these files, so what is heavy (torch, matplotlib, scikit-learn) is imported in the
functions that need it.
"""
