"""What the machine gives: files, folders, locks, devices, memory, and words that reach a shell or a
terminal.

Each module knows one thing of the system and nothing of meta-learning: ``files`` writes so that
nothing is ever half there, ``locks`` lets one process in, ``paths`` reads what a user wrote as a
path, ``shells`` refuses what Snakemake cannot take, ``utf8`` makes streams speak UTF-8,
``hardware`` counts and claims GPUs, ``allocator`` sets the memory allocator. Change these with
care: a fault here loses somebody's results.
"""
