"""Settings of glibc's allocator, which read them as a process starts: whoever launches trainings must set them.

By default memory goes back to the system at every outer step, and on a CPU page faults then take much of the time.
Kept, a process holds the most that it ever needed. Other C libraries do not know these names.
"""

KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def environment(allocator: str) -> dict[str, str]:
    """Variables for the jobs of a study whose ``allocator`` is ``keep`` or ``system``."""
    return KEEP if allocator == "keep" else {}
