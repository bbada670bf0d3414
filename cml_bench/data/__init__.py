"""Data is given here: data sets, one file each, and the episodes that are drawn from them.

``base`` is the interface, ``sinusoid`` and ``glyphs`` are examples, ``_template`` is where a new
set begins. ``episodes`` draws tasks as a function of their number, ``loader`` and ``wrap`` are the
public face. What begins with an underscore helps: downloads, archives, pictures, pickles. A change
of what is decoded moves the digest that every record holds.
"""
