# Changes of Snakemake 9.27 for which it has no setting. tests/test_readers.py tests each of them.
import os
import tempfile

import snakemake.workflow as internals
from snakemake.dag import DAG


async def unchecked(*_):
    """Replaces Snakemake's check that no output is older than an input.

    If the clocks of two machines differ, or those of a machine and a file server, that check fails
    a finished job and removes its stamp. Without it an output that seems older does not make its
    job run again, since stamps are compared by content.
    """


DAG.check_output_mtime = unchecked

# Snakemake writes into .snakemake even in a dry run. If that folder cannot be written, Snakemake
# gets a temporary one, with a link to what it has kept about finished jobs.
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
