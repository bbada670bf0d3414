"""To publish a study is to commit its results: records under ``results/reference``, and pages.

``docs/results.md`` has all tables and pictures of a study between the study's markers
(``<!-- NAME:begin ... -->``, ``<!-- NAME:end -->``). A person publishes by a command, after looking
at the results; no rule of the workflow does. Imports no torch.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from cml_bench.errors import UserError
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Table
from cml_bench.records import Record, Store, write_episodes
from cml_bench.report import batches, changes, charts, forest, summary, sweeps, write
from cml_bench.study import preflight, selection
from cml_bench.study.plan import Plan
from cml_bench.system.files import write_bytes, write_text
from cml_bench.texts import Prose, markdown, paragraph

PUBLISHED = Path("results/reference")
README, RESULTS, HARDWARE = Path("README.md"), Path("docs/results.md"), Path("docs/hardware.md")
CLAIMS = Path("docs/claims.md")
FOREST = "figures/forest.png"
BATCHES = "figures/batches.png"


def publish(
    plan: Plan,
    results: Path,
    reference: Path = PUBLISHED,
    root: Path = Path(),
    partial: bool = False,
) -> None:
    """Copy a study's finished records and figures, render its tables, and fill its block of
    docs/results.md.

    Models are not copied. Of the test episodes, only the series that the study's tables show are;
    a record has the means of all. ``root`` is the folder of docs. ``partial`` copies what is
    finished while the rest still runs, and leaves the page alone.

    Runs that the configuration no longer has are removed from ``reference``. Other records that are
    missing from ``results`` stay there, so that tables can be made from the committed records.
    A UserError if a run is in neither folder.
    """
    study = plan.study.study
    home = Path(reference) / study
    plan = selection.narrowed(plan, Store(results))
    _copy_records(plan, Store(results), Store(home))
    if partial:
        return
    target = Store(home)
    plan = selection.narrowed(plan, target)
    specs = list(plan.specs.values())
    lost = preflight.not_run(plan)  # their data cannot be had here, as the tables say
    missing = [spec.title for spec in specs if spec.id not in lost and target.read(spec) is None]
    if missing:
        raise UserError(
            f"{study}: {len(missing)} runs are in neither {results} nor {home}; the first:"
            f" {missing[0]}"
        )
    wanted = {spec.folder for spec in specs}
    for record in target.all():  # a run of an earlier configuration stays in the git history
        if record.folder.name not in wanted:
            shutil.rmtree(record.folder)
    _copy_figures(plan, Path(results) / study, home)
    write.tables(plan, home, [], out=home)
    write.page(plan, home, out=home)
    tables = _tables(plan, home)
    for name, drawn in ((BATCHES, batches.picture(tables)), (FOREST, forest.picture(tables))):
        if drawn:
            write_bytes(home / name, charts.png(drawn))
    _fill(Path(root) / RESULTS, study, lambda page: block(plan, home, page))
    changes.fill(Path(root) / RESULTS, Path(reference), _fill)


def _copy_records(plan: Plan, source: Store, target: Store) -> None:
    shown = series(plan)
    for spec in plan.specs.values():
        record = source.read(spec)
        if record is not None:
            kept = {
                key: values
                for key, values in record.arrays.items()
                if key in shown.get(spec.id, ())
            }
            write_episodes(target.folder(spec), kept)
            write_bytes(
                target.folder(spec) / "record.json", (record.folder / "record.json").read_bytes()
            )


def _copy_figures(plan: Plan, source: Path, home: Path) -> None:
    """Copy pictures, and the arrays to draw them again without models; remove those of figures that
    the study no longer has.
    """
    for folder, kind in (("figures", "png"), ("probes", "npz")):
        for path in (home / folder).glob(f"*.{kind}"):
            if path.stem not in plan.figures and path != home / FOREST:
                path.unlink()
        for key in plan.figures:
            if (path := source / folder / f"{key}.{kind}").exists():
                write_bytes(home / folder / path.name, path.read_bytes())


def series(plan: Plan) -> dict[str, set[str]]:
    """Run id -> the keys of its test series that a table shows."""
    shown: dict[str, set[str]] = {}
    for key in plan.tables:
        for row, column, cell in build(plan, Store("nowhere"), key).all_cells():
            runs = [(run, row.reading) for run in cell.runs]
            runs += [(run, "meta") for run in (cell.base.runs if cell.base else ())]
            for run, reading in runs:
                key = column.series(reading, plan.specs[run].inner_steps)
                shown.setdefault(run, set()).add(key)
    return shown


def _tables(plan: Plan, home: Path) -> list[Table]:
    return [build(plan, Store(home), key) for key in plan.tables]


def _link(target: Path, page: Path) -> str:
    """The relative link from a page to a file, with odd characters quoted."""
    return quote(Path(os.path.relpath(target, page.parent)).as_posix())


def block(plan: Plan, home: Path, page: Path) -> str:
    """The block of docs/results.md: the study's tables and pictures, and where its numbers come
    from.
    """
    study = plan.study
    parts = [f"## {markdown(study.title or study.study)}", paragraph(Prose(study.summary.strip()))]
    parts += [
        (home / "tables" / f"{key}.md").read_text(encoding="utf-8").strip() for key in plan.tables
    ]
    differences = (
        "Paired differences",
        "Improvement is to the right. The 95 % t intervals are those of the tables above. Colour"
        " and shape show the outcome after Holm's adjustment",
        FOREST,
    )
    by_batch = (
        "Gains by what normalises a query",
        "Improvement is upwards; colour and shape are the outcome, as below",
        BATCHES,
    )
    drawn = [(f.title, f.caption, f"figures/{key}.png") for key, f in plan.figures.items()]
    parts += [
        f"![{markdown(title, link=True)}]({_link(home / name, page)})\n\n"
        f"{paragraph(title)}. {markdown(Prose(caption.removesuffix('.')))}."
        for title, caption, name in (by_batch, differences, *drawn)
        if (home / name).exists()
    ]
    parts.append(sweeps.markdown(plan, Store(home)))
    runs = Store(home).all()
    parts.append(
        f"{markdown(_provenance(runs))}; records in [`{home.as_posix()}`]({_link(home, page)}),"
        f" learning curves and what was run in [report.html]({_link(home / 'report.html', page)})."
        f" Computing time of the runs: {summary.computing_time(runs)}."
    )
    return "\n\n".join(part for part in parts if part)


def _provenance(runs: list[Record]) -> str:
    """``60 runs of 2026-11-24, torch 2.14.1, AMD EPYC, 2 cores``; with two days where the first and
    the last differ.
    """
    days = sorted(record.created[:10] for record in runs)
    made = " to ".join(dict.fromkeys((days[0], days[-1])))
    machines = sorted({record.machine.title for record in runs})
    torches = sorted({f"torch {record.versions.torch}" for record in runs})
    return f"{len(runs)} runs of {made}, {', '.join(torches)}, {'; '.join(machines)}"


def _fill(page: Path, name: str, content: Callable[[Path], str]) -> None:
    """Write ``content(page)`` between the page's markers of ``name``, if there is such a page."""
    if page.exists():
        write_text(page, between(page.read_text(encoding="utf-8"), name, content(page)))


def between(text: str, name: str, content: str) -> str:
    """The text with ``content`` between its markers of ``name``; unchanged if it has no markers."""
    pattern = re.compile(
        rf"^(<!-- {name}:begin[^\n]*-->\n).*?^(<!-- {name}:end -->)", flags=re.DOTALL | re.MULTILINE
    )
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def show_plan(path: Path = PUBLISHED / "paper_plan.txt", page: Path = HARDWARE) -> None:
    """Put the stored output of ``plan`` at ``path`` into the page."""
    _fill(page, "plan", lambda _: f"```text\n{path.read_text(encoding='utf-8').strip()}\n```")


def show_claims(content: str, brief: str, root: Path = Path()) -> None:
    """Put the table of the paper's claims into docs/claims.md, and its short form into the README.

    ``root`` is their folder.
    """
    _fill(Path(root) / CLAIMS, "claims", lambda _: content)
    _fill(Path(root) / README, "claims", lambda _: brief)
