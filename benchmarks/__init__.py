"""What the engine costs beside other ways of computing the same: ``python -m benchmarks``, see
README.md.
"""
