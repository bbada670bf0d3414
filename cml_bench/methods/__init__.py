"""Meta-learning algorithms, one file each, and CML around any of them.

``base`` is the interface, ``maml`` an example, ``cooperative`` adds the co-learner, ``_template``
is where a new method begins. When a method's numbers change, its ``version`` is raised, so that old
runs keep their ids.
"""
