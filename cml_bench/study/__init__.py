"""A study is asked here: from a configuration to a plan of runs, and how far it is.

``config`` says what a user may write, ``protocols`` which recipes there are, ``resolve`` makes the
plan, ``plan`` is its type and its cache, ``checks`` refuses what could not be shown later,
``targets`` names parts of it, ``preflight`` says what cannot start, ``work`` how much the runs are,
``cost`` what that costs, ``status``
how far it is. Nothing here imports torch: the plug-ins are loaded by ``resolve`` in a process of
its own. Safe to change: messages, checks, new keys with a default. A default that changes what is
trained moves run ids: see ``spec.py`` before you touch one.
"""
