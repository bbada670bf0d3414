"""A study is priced here: FLOPs, bytes and hours, before anything runs.

``estimate`` counts the work of planned runs on tensors without storage. ``calibrate`` times outer
steps on this machine. ``describe`` gives the sizes and FLOPs of one method on one network and data
set.
"""
