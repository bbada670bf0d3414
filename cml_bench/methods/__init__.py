"""Meta-learning algorithms, one file each, and CML around any of them.

``base`` is the interface, ``maml`` an example, ``cooperative`` adds the co-learner, ``_template``
is where a new method begins. A method whose numbers change gets a new ``version``, so that old runs
keep their ids.
"""
