"""Laws that a method, a data set or a network must keep, whoever wrote it.

``subject`` is a method on a network with tasks to try it on, ``laws`` are the laws, and ``check``
tries those that apply to a name: the command ``check NAME``, and the package's own tests.
"""
