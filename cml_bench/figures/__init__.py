"""A study is drawn here: what its figures measure, and how they look.

``kinds`` has one file for each kind of figure. ``make`` draws a study's figures and keeps the
arrays behind them. The kinds share ``probes`` (stored models on test tasks; it imports torch),
``measures`` (computing on plain arrays), ``draw`` and ``style`` (looks). Safe to change: looks. Who
changes what is measured changes the kind's ``definition`` too, which the caption says.
"""
