# What Snakemake 9.27 has no setting for. Tests in tests/test_readers.py hold each of these.
import os
import tempfile

import snakemake.workflow as internals
from snakemake.dag import DAG


async def unchecked(*_):
    """In the place of Snakemake's check that no output is older than an input.

    That fails a finished job, and removes its stamp, wherever two clocks differ: of two machines,
    or of a machine and a file server. An older output does not run its job again: stamps are
    compared by content.
    """


DAG.check_output_mtime = unchecked

# Snakemake writes into .snakemake in a dry run, too. Where it cannot, it gets another folder, which
# shows it what it kept there of finished jobs.
KEPT = Path(".snakemake")
if not os.access(KEPT if KEPT.exists() else ".", os.W_OK):
    ELSEWHERE = tempfile.TemporaryDirectory()
    Path(ELSEWHERE.name, "incomplete").mkdir()
    if (KEPT / "metadata").exists():
        Path(ELSEWHERE.name, "metadata").symlink_to((KEPT / "metadata").absolute())

    class Persistence(internals.FilePersistence):
        def __init__(self, **settings):
            super().__init__(**settings | {"path": Path(ELSEWHERE.name)})

    internals.FilePersistence = Persistence
