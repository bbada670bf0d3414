"""Data sets, one file each, and the episodes that are drawn from them.

``base`` is the interface. ``stored`` is the common part of sets that are kept as arrays, ``graphs``
that of sets of nodes. ``sinusoid`` and ``glyphs`` are good examples to read, and ``_template`` is a
file to copy for a new set. ``episodes`` draws tasks as a function of their number. ``loader`` and
``wrap`` are for users of the Python API. Modules that begin with an underscore are helpers, for
downloads, archives, pictures and pickles. Take care: a change of what is decoded changes the digest
that every record holds.
"""
