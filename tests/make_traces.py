"""Golden traces: losses of ten meta-steps of every method on two small problems, in float64.

Methods on graphs have one problem. ``python -m tests.make_traces`` writes the traces of methods
that have none. ``--all`` writes all of them anew; that is right only when the ``version`` of the
changed method is raised as well.
"""

import json
import sys
from pathlib import Path

from cml_bench import registry
from tests.helpers.cases import Case, images, waves
from tests.helpers.graphs import Case as GraphCase

FOLDER = Path(__file__).parent / "golden" / "traces"


def trace(name: str, path: str = "plain") -> dict[str, dict[str, list[float]]]:
    """problem -> head -> ten losses, each taken before its step."""
    losses = {}
    if registry.method(name).needs == "nodes":
        case = GraphCase(name, path)
        return {"graph": run(case, case.step(lr=0.01), lambda number: case.task(number))}
    for net, make in (("conv4", images), ("mlp", waves)):
        if net == "mlp" and registry.method(name).needs_classes:
            continue
        case = Case(name, net, path, inner_steps=2)
        losses[net] = run(
            case, case.step(lr=0.01), lambda number, make=make: make(name=f"trace {number}")
        )
    return losses


def run(case, step, task) -> dict[str, list[float]]:
    """head -> ten losses."""
    losses: dict[str, list[float]] = {head: [] for head in case.method.heads}
    for number in range(10):
        case.method.at_step(number)
        scores = step(task(number))
        for head in case.method.heads:
            losses[head].append(scores.loss[head].mean().item())
    return losses


def main() -> None:
    """Write missing traces, or with ``--all`` every trace."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in registry.method_names():
        path = FOLDER / f"{name}.json"
        if registry.method(name).learns and ("--all" in sys.argv or not path.exists()):
            path.write_text(json.dumps(trace(name), indent=1) + "\n")
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
