"""Data is given here: data sets, one file each, and the episodes that are drawn from them.

``base`` is the interface; ``stored`` is what sets of stored arrays share. ``sinusoid`` and
``glyphs`` are examples, ``_template`` is where a new set begins. ``episodes`` draws tasks as a
function of their number. ``loader`` and ``wrap`` are the public face. Modules that begin with an
underscore help: downloads, archives, pictures, pickles. A change of what is decoded changes the
digest that every record holds.
"""
