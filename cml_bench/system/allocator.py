"""Settings of glibc's allocator, which read them as a process starts: whoever launches trainings
must set them.

By default memory goes back to the system at every outer step, and on a CPU page faults then take
much of the time. Kept, a process holds the most that it ever needed. Other C libraries do not know
these names.
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
    """``keep`` or ``system``, whoever has set the variables of this process; else those that are
    set.
    """
    held = {name: os.environ[name] for name in KEEP if name in os.environ}
    if not held:
        return "system"
    return "keep" if held == KEEP else " ".join(f"{name}={value}" for name, value in held.items())
