"""A study is run here: the only training loop and the only evaluation loop.

``run`` makes one run whole, ``jobs`` several, ``train`` holds the loop, ``step`` one outer step,
``evaluate`` and ``readings`` the tests; ``captured``, ``compiled`` and ``seeds`` are faster paths
with equal results; ``learner`` opens a stored run. A change here must leave the golden traces and
the plain reference equal in float64: see tests/test_methods.py.
"""
