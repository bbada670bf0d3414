"""Backbones, one file each. See ``base.py`` for the interface and ``conv4.py`` for an example."""
