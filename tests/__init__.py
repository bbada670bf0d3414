"""The tests; while they run, beartype checks the types and shapes in signatures.

Python imports this package before any of its modules, and so before it imports the modules that are
checked: the public modules of networks and methods, the data sets and episodes, and the engine's
steps and evaluation. Not checked are:

* modules with a leading underscore: the fast operations in them have no shapes in their signatures;
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
    *(f"cml_bench.data.{name}" for name in ("episodes", "graphs", "stored")),
    *(f"cml_bench.engine.{name}" for name in ("evaluate", "readings", "step")),
]

install_import_hook(CHECKED, "beartype.beartype")
