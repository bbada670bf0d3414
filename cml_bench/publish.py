"""Results that are committed: records of a study under ``results/reference``, its tables in the README.

Imports no torch. No rule of the workflow writes there; this is done by hand, after looking at the results.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from cml_bench import abstract, report
from cml_bench.errors import UserError
from cml_bench.files import write_bytes, write_text
from cml_bench.records import Store, evaluation_key, write_episodes
from cml_bench.spec import RunSpec
from cml_bench.tables import build

REFERENCE = Path("results/reference")


def publish(
    plan: dict[str, Any], results: Path, reference: Path = REFERENCE, readme: Path = Path("README.md"),
    partial: bool = False,
) -> None:  # fmt: skip
    """Copy the study's finished records (not the models) and figures, render its tables, fill the README's block.

    Of the test episodes only those series are kept that the study's tables show; the means of all are in the record.
    ``partial``: copy what is finished, while the rest still runs, and leave the README alone.

    Runs that the configuration no longer has are removed. Those it has stay in ``reference`` if ``results`` has them
    not, so tables can be made again from the committed records alone.
    """
    study = plan["study"]["study"]
    source, home = Store(results), Path(reference) / study
    target = Store(home)
    specs = [RunSpec.model_validate(run["spec"]) for run in plan["runs"]]
    shown = series(plan)
    for spec in specs:
        record = source.read(spec)
        if record is not None:
            kept = {key: values for key, values in record.arrays.items() if key in shown.get(spec.id, ())}
            write_episodes(target.folder(spec), kept)
            write_bytes(target.folder(spec) / "record.json", (record.folder / "record.json").read_bytes())
    if partial:
        return
    missing = [spec.title for spec in specs if target.read(spec) is None]
    if missing:
        raise UserError(f"{study}: {len(missing)} runs are in neither {results} nor {home}; the first: {missing[0]}")
    wanted = {spec.folder for spec in specs}
    for record in target.all():  # runs that the configuration had before; they stay in the history
        if record.folder.name not in wanted:
            shutil.rmtree(record.folder)
    for kind in ("figures/*.png", "probes/*.npz"):  # the pictures, and the arrays to draw them again without models
        for path in sorted((Path(results) / study).glob(kind)):
            write_bytes(home / path.parent.name / path.name, path.read_bytes())
    report.tables(plan, home, [], out=home)
    report.page(plan, home, out=home)
    if readme.exists():
        write_text(readme, filled(readme.read_text(), plan, home))


def series(plan: dict[str, Any]) -> dict[str, set[str]]:
    """Run id -> the keys of its test series that a table shows."""
    found: dict[str, set[tuple[str, int | None]]] = {}
    for key in plan["tables"]:
        for row, column, cell in build(plan, Store("nowhere"), key).cells():
            for part, reading in ((cell, row.reading), (cell.base, "meta")):
                for run in part.runs if part else ():
                    found.setdefault(run, set()).add((reading, column.steps))
    own = {run["id"]: run["spec"]["options"].get("inner_steps", 0) for run in plan["runs"]}
    return {
        run: {evaluation_key(reading, own[run] if steps is None else steps) for reading, steps in keys}
        for run, keys in found.items()
    }


def block(plan: dict[str, Any], home: Path) -> str:
    """What stands in the README: the study's tables, its pictures, and where the numbers come from."""
    study = plan["study"]
    parts = [(home / "tables" / f"{key}.md").read_text().strip() for key in plan["tables"]]
    parts += [
        f"![{figure['title']}]({path.as_posix()})\n\n{figure['title']}. {figure['caption']}"
        for key, figure in plan["figures"].items()
        if (path := home / "figures" / f"{key}.png").exists()
    ]
    runs = Store(home).all()
    records = [record.content for record in runs]
    made = max(content["created"] for content in records)[:10]
    machines = sorted({f"{c['machine']['processor']}, {c['machine']['cores']} cores" for c in records})
    parts.append(
        f"{len(records)} runs of {made}, torch {records[0]['versions']['torch']}, {'; '.join(machines)}; records in "
        f"[`{home.as_posix()}`]({home.as_posix()}). Study: {study['title']}. Computing time of the runs: "
        f"{abstract.computing_time(runs)}."
    )
    return "\n\n".join(parts)


def filled(text: str, plan: dict[str, Any], home: Path) -> str:
    """The text with the study's block between its markers replaced; unchanged where it has none."""
    return between(text, plan["study"]["study"], block(plan, home))


def between(text: str, name: str, content: str) -> str:
    """The text with what stands between the markers of ``name`` replaced; unchanged where it has none."""
    pattern = re.compile(rf"(<!-- {name}:begin[^\n]*-->\n).*?(<!-- {name}:end -->)", flags=re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def show_plan(path: Path = REFERENCE / "paper_plan.txt", readme: Path = Path("README.md")) -> None:
    """Put a stored output of ``plan`` into the README."""
    write_text(readme, between(readme.read_text(), "plan", f"```text\n{path.read_text().strip()}\n```"))
