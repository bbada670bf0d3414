"""Settings of glibc's memory allocator, as variables of the environment.

glibc reads them when a process starts, so the program that launches a training sets them. By
default glibc returns memory to the system at every outer step, and on a CPU the page faults that
follow take much of the time. With ``keep`` a process keeps all memory that it ever needed. Other C
libraries ignore these variables.
"""

import os

KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def environment(allocator: str) -> dict[str, str]:
    """Variables for the jobs of a study whose ``allocator`` is ``keep`` or ``system``."""
    return KEEP if allocator == "keep" else {}


def in_force() -> str:
    """Which setting this process has: ``keep``, ``system``, or the list of the variables set."""
    held = {name: os.environ[name] for name in KEEP if name in os.environ}
    if not held:
        return "system"
    return "keep" if held == KEEP else " ".join(f"{name}={value}" for name, value in held.items())
