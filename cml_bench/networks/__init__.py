"""Backbones, one file each: features, and heads on them.

``base`` is the interface, ``conv4`` an example, ``_template`` is where a new network begins.
``_convolution``, ``_pooling``, ``_patches`` and ``_sparse`` hold the fast operations. Each equals
torch's own in float64, and so do its derivatives.
"""
