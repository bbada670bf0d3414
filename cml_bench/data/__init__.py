"""Data sets, one file each. ``base.py`` is the interface, ``sinusoid.py`` and ``glyphs.py`` are examples."""
