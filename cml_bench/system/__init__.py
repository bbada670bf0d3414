"""What the machine gives: files, folders, locks, devices, memory, shells and terminals.

Each module knows one part of the system and nothing of meta-learning. ``files`` writes a file whole
or not at all. ``locks`` lets one process at a time into a folder. ``paths`` reads paths as users
write them. ``shells`` refuses paths that Snakemake cannot take. ``utf8`` sets the streams to UTF-8.
``hardware`` counts and claims GPUs. ``allocator`` sets up glibc's memory allocator. Change these
with care: a fault here loses somebody's results.
"""
