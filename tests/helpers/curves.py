"""Records of made-up studies with validation curves of their own."""

import json
from collections.abc import Callable
from pathlib import Path

from cml_bench.records import Store, write_record
from cml_bench.spec import RunSpec

STEPS = [0, 50, 100]
LEVELS = [20.0, 40.0, 50.0]  # percent, of the baseline


def redraw(resolved, store: Store, scores: Callable[[RunSpec, str], dict[int, float]]) -> None:
    """Give each finished run the validation curve ``scores(spec, head)``: step -> percent."""
    for run in resolved.runs:
        folder = store.folder(run.spec)
        if (folder / "record.json").exists():
            curves = {head: scores(run.spec, head) for head in ("meta", "co")}
            content = json.loads((folder / "record.json").read_text())
            content["curves"] = {
                "step": list(curves["meta"]),
                "validation": {
                    f"score_{head}": [value / 100 for value in curve.values()]
                    for head, curve in curves.items()
                    if head == "meta" or "+cml" in run.spec.method
                },
            }
            write_record(folder, content)


def gains(*of_step: float, spread: float = 0.2) -> Callable[[RunSpec, str], dict[int, float]]:
    """Curves in which CML gains so much over MAML at each step, seed s by ``spread`` (s - 2) more;
    its co head gains twice as much.
    """

    def scores(spec: RunSpec, head: str) -> dict[int, float]:
        times = {"meta": 1, "co": 2}[head] if "+cml" in spec.method else 0
        return {
            step: level + spec.seed + times * (gain + (spread * (spec.seed - 2) if step else 0))
            for step, level, gain in zip(STEPS, LEVELS, of_step, strict=True)
        }

    return scores


def edit_record(folder: Path, change: Callable[[dict], None]) -> None:
    """Change the content of a record that is there."""
    content = json.loads((folder / "record.json").read_text())
    change(content)
    write_record(folder, content)
