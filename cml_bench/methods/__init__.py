"""Meta-learning algorithms, one file each. ``base.py`` is the interface, ``maml.py`` an example."""
