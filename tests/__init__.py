"""The tests; while they run, beartype checks the types and shapes in signatures.

Python imports this package before any of its modules, and so before it imports the modules that are
checked. These are the public modules of networks and methods, and the engine's readings. The fast
operations behind them, in modules with a leading underscore, have no shapes in their signatures.
Stored data sets are left out: beartype refuses ``Self`` where it checks a method without its class.
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
    "cml_bench.engine.readings",
]

install_import_hook(CHECKED, "beartype.beartype")
