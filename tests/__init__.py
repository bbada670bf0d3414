"""The tests; while they run, beartype checks the types and shapes in signatures.

Python imports this package before any of its modules, and so before it imports the modules that are
checked: the public modules of networks and methods, the episodes, and the engine's evaluation. Not
checked are:

* modules with a leading underscore: the fast operations in them have no shapes in their signatures;
* stored data sets: beartype refuses ``Self`` where it checks a method without its class;
* ``engine/learner.py``: it answers wrong values of a user itself, and tests read those answers.
"""

from pathlib import Path

from jaxtyping import install_import_hook

_PACKAGE = Path(__file__).parent.parent / "cml_bench"

CHECKED = [
    *(
        f"cml_bench.{room}.{path.stem}"
        for room in ("networks", "methods")
        for path in sorted((_PACKAGE / room).glob("[a-z]*.py"))
    ),
    "cml_bench.data.episodes",
    "cml_bench.engine.evaluate",
    "cml_bench.engine.readings",
]

install_import_hook(CHECKED, "beartype.beartype")
