"""A study is drawn here: what its figures measure, and how they look.

``make`` decides which arrays a figure needs, ``probes`` measures stored models on test tasks (the
one module here that imports torch, and only when models are looked at), ``measures`` computes on
plain arrays, ``draw`` and ``style`` turn arrays into pictures. Safe to change: looks. A change of
what is measured needs its definition in ``study/figure_config.py``, which writes it into the
caption.
"""
