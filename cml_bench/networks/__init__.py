"""Backbones, one file each: features, and heads on them.

``base`` is the interface, ``conv4`` an example, ``_template`` is where a new network begins.
``_convolution`` and ``_sparse`` hold the fast operations; each equals torch's own in float64,
derivatives included.
"""
