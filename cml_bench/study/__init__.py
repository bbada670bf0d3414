"""A study is asked here: from a configuration to a plan of runs, and how far it is.

``schema`` has the keys that a user may write, and ``config`` reads them. ``protocols`` has the
recipes of training. ``resolve`` makes the plan, ``plan`` is its type and its cache, and ``checks``
refuses what could not be shown later. ``targets`` names parts of a plan. ``preflight`` says what
cannot start, ``work`` counts what the runs compute, ``cost`` turns it into hours, and ``status``
says how far they are. ``figure_config`` and ``table_kind`` say what a kind of figure or table must
do.

Nothing here imports torch: ``resolve`` loads the plug-ins in a process of its own. Safe to change:
messages, checks, new keys with a default. A default that changes what is trained moves run ids: see
``spec.py`` before you touch one.
"""
