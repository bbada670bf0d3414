"""The paper's numbers (configs/reference/paper.yaml), and our cells beside them. Imports no torch.

This module brings the two sides of a comparison together. Only verdict.py decides what may be said.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cml_bench.errors import UserError, unknown
from cml_bench.evidence import verdict
from cml_bench.evidence.table import Beside, Cell, Column, Table, TableRow
from cml_bench.spec import Model, RunSpec
from cml_bench.study import strict_yaml
from cml_bench.study.plan import Plan, PlannedRun
from cml_bench.texts import Line

PlusMinus = Literal["seeds", "episodes", "unknown", "none"]
MEANS = {
    "seeds": "over training seeds",
    "episodes": "over test episodes of one model",
    "unknown": "not said of what",
    "none": "none given",
}


class PaperSetting(Model):
    """What the paper's number was measured on; see :class:`cml_bench.evidence.verdict.Setting`."""

    data: str
    split: str | None = None
    size: int | None = None
    backbone: str | None = None
    way: int


class PaperRow(Model):
    """One row: numbers by the title of their column, with the half-width where one is printed."""

    label: Line
    values: dict[Line, float | tuple[float, float] | None] = {}
    plus_minus: PlusMinus | None = Field(
        None, description="what the half-width is of; none: as the table says"
    )
    copied: Line = Field(
        "", description="the paper that the authors copied the row from, if they did not run it"
    )
    steps: int | None = Field(None, description="outer steps; none: the table's")
    structure: dict[str, Any] = Field(
        {},
        description=(
            "options that make the row, as network.head_blocks. A gamma that is not here is not"
            " known: any one that was fixed beforehand will do"
        ),
    )
    numbers: dict[str, float] = Field(
        {}, description="what else is printed of the row: parameters, sizes"
    )
    note: str = ""


class PaperTable(Model):
    """One table; ``settings`` by the title of a group of columns ("" where there is one)."""

    title: str
    plus_minus: PlusMinus
    repetitions: str = Field("", description="what the paper says of repeated runs")
    steps: int | None = None
    query: int | None = Field(
        None, description="query examples per class in training; none: not compared"
    )
    test_query: int | None = Field(
        None, description="query examples per class at test; none: not compared"
    )
    settings: dict[Line, PaperSetting] = {}
    structures: dict[Line, dict[str, Any]] = Field(
        {}, description="options that make a group of columns, by its title"
    )
    rows: tuple[PaperRow, ...]
    errata: tuple[Line, ...] = ()


class PaperNumbers(Model):
    """A whole file of a paper's numbers."""

    source: Line
    tables: dict[str, PaperTable]
    errata: tuple[str, ...] = ()


def read(path: Path | str) -> PaperNumbers:
    """Read and check a file of a paper's numbers; a UserError names the file and the key."""
    content = strict_yaml.read(
        path, missing=f"there is no file {path}: correct `published` in the configuration."
    )
    return PaperNumbers.read(content, str(path))


def paper_table(table: Table, plan: Plan) -> tuple[str, PaperTable] | None:
    """Name and content of the paper's table that a table's configuration names by ``paper``; None
    if it names none.
    """
    key, path = plan.tables[table.key].paper, plan.study.published
    if not key:
        return None
    if not path:
        raise UserError(
            f"table {table.key} names the published table {key!r}: name their file under"
            " `published`."
        )
    numbers = read(path)
    if key not in numbers.tables:
        raise unknown(f"published table (in {path})", key, numbers.tables)
    return f"{key.replace('table', 'Table ')} of {numbers.source}", numbers.tables[key]


def beside(table: Table, source: PaperTable, plan: Plan) -> list[Beside]:
    """Each cell of the table that the paper has too."""
    rows = {row.label: row for row in source.rows}
    runs = {run.id: run for run in plan.runs}
    lines = []
    for row in table.results:
        theirs = rows.get(row.label)
        base = rows.get(row.against) if row.against else None
        for column in table.columns if theirs else ():
            if theirs and (numbers := _numbers(theirs, column)):
                line = _line(row, column, theirs, source, numbers)
                line.paper_gain = _gain(numbers, base, column)
                _judge(line, theirs, base, source, runs)
                lines.append(line)
    return lines


def _line(
    row: TableRow,
    column: Column,
    theirs: PaperRow,
    source: PaperTable,
    numbers: tuple[float, float | None],
) -> Beside:
    """A cell and the paper's numbers, not judged yet."""
    cell = row.cells[column]
    return Beside(
        label=row.label,
        column=column,
        cell=cell.fixed or cell,
        paper=numbers[0],
        paper_half=numbers[1],
        plus_minus=theirs.plus_minus or source.plus_minus,
        copied=theirs.copied,
        paper_gain=None,
    )


def _numbers(row: PaperRow, column: Column) -> tuple[float, float | None] | None:
    """The paper's number and its half-width, where one is printed; None where it has no number."""
    printed = row.values.get(column.place)
    return printed if isinstance(printed, tuple) or printed is None else (printed, None)


def _gain(
    numbers: tuple[float, float | None], base: PaperRow | None, column: Column
) -> float | None:
    """The paper's number minus that of its baseline, where it has both."""
    baseline = _numbers(base, column) if base else None
    return numbers[0] - baseline[0] if baseline else None


def _judge(
    line: Beside,
    theirs: PaperRow,
    base: PaperRow | None,
    source: PaperTable,
    runs: dict[str, PlannedRun],
) -> None:
    """Add the verdicts on level and gain, or why there are none."""
    cell = line.cell
    line.reason = _reason(cell, line.column, theirs, source, runs)
    if line.reason:
        return
    seeds = sorted(cell.values)
    line.level = verdict.level_verdict(
        [cell.values[s] for s in seeds], [cell.scores[s] for s in seeds], line.paper
    )
    d = cell.difference
    if d is None or cell.base is None:
        return
    # The baseline has the network of the row that it is compared with.
    network = {key: value for key, value in theirs.structure.items() if key.startswith("network.")}
    like = (base or PaperRow(label="")).model_copy(update={"structure": network})
    line.gain_reason = (
        _reason(cell.base, line.column, like, source, runs) if d.testable else d.verdict
    )
    if not line.gain_reason:
        line.gain = verdict.gain_verdict(d.paired, d.holm_p, line.paper_gain)


def _reason(
    cell: Cell,
    column: Column,
    theirs: PaperRow,
    source: PaperTable,
    runs: dict[str, PlannedRun],
) -> str:
    """Why a cell may not be set beside the paper's row; empty: it may."""
    if not cell.records:
        return "no run yet"
    return verdict.comparable(_claim(cell, column, theirs, source, runs)) or ""


def _deviation(
    spec: RunSpec, run: PlannedRun, column: Column, theirs: PaperRow, source: PaperTable
) -> tuple[str, str]:
    """The protocol, and an option that is not that of the paper's row.

    The protocol is ``official``, or names an option that is not the official one's.
    """
    structure = {**source.structures.get(column.group, {}), **theirs.structure}
    deviates = {**run.deviates}
    for key, value in structure.items():
        mine, _ = deviates.pop(key, (_option(spec, key), None))
        if mine != value:
            return "official", f"{key} {mine}, the paper {value}"
    deviates.pop("cml.gamma", None)
    for key, (mine, official) in deviates.items():
        return f"{key} {mine} instead of {official}", ""
    asked = run.spec.evaluation.query
    for what, mine, wanted in (
        ("query", spec.query, source.query),
        ("test query", asked, source.test_query),
    ):
        if wanted is not None and mine != wanted:
            return "official", f"{what} {mine}, the paper's code {wanted}"
    return "official", ""


def _option(spec: RunSpec, key: str) -> Any:
    """A resolved option by its dotted key; None if it has a default that the record leaves out."""
    tree: Any = {**spec.options, "network": spec.network.options if spec.network else {}}
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _claim(
    cell: Cell,
    column: Column,
    theirs: PaperRow,
    source: PaperTable,
    runs: dict[str, PlannedRun],
) -> verdict.Claim:
    spec = next(iter(cell.records.values())).spec
    data, split, size = spec.data_id.split("/")[0], *_split_and_size(spec.data_id)
    setting = source.settings.get(column.group) or source.settings[""]
    backbone = spec.network.name if spec.network else None
    mine = verdict.Setting(data, split, size, backbone, spec.steps, spec.way, spec.shot)
    paper = verdict.Setting(
        setting.data,
        setting.split,
        setting.size,
        setting.backbone,
        theirs.steps or source.steps,
        setting.way,
        column.shot,
    )
    used = [runs[i] for i in cell.runs]
    protocol, other_option = _deviation(spec, used[0], column, theirs, source)
    return verdict.Claim(
        protocol=protocol,
        other_option=other_option,
        ours=mine,
        paper=paper,
        gamma_fixed_beforehand=all(run.gamma_named for run in used),
        statuses=tuple(record.status for record in cell.records.values()),
        data_hashes=tuple(record.data_sha256 for record in cell.records.values()),
        data_differs=tuple(record.data_differs for record in cell.records.values()),
        precisions=tuple(record.spec.precision for record in cell.records.values()),
    )


def _split_and_size(data_id: str) -> tuple[str | None, int | None]:
    """``omniglot/vinyals/28px`` -> ("vinyals", 28). Other parts (such as rotations) belong to the
    split.
    """
    parts = data_id.split("/")[1:]
    sizes = [part for part in parts if part.endswith("px") and part[:-2].isdecimal()]
    names = [part for part in parts if part not in sizes]
    return "/".join(names) or None, int(sizes[0][:-2]) if sizes else None


def _gammas(table: Table, source: PaperTable) -> list[str]:
    """The gamma of our rows, where the paper does not say which it used."""
    rows = {row.label: row for row in source.rows}
    assumed: dict[float, list[str]] = {}
    for row in table.results:
        records = [record for cell in row.cells.values() for record in cell.records.values()]
        gammas = [record.spec.gamma for record in records if record.spec.gamma is not None]
        if gammas and row.label in rows and "cml.gamma" not in rows[row.label].structure:
            assumed.setdefault(gammas[0], []).append(row.label)
    return [
        f"γ = {gamma:g} assumed, since the paper does not say: {', '.join(labels)}."
        for gamma, labels in assumed.items()
    ]


def sentences(table: Table, name: str, source: PaperTable) -> list[str]:
    """What came of the comparison, and what is known to be wrong in the paper's table."""
    lines = table.beside
    if not lines:
        return []
    counts = Counter(line.outcome for line in lines)
    told = "; ".join(f"{outcome} ({count} of {len(lines)})" for outcome, count in counts.items())
    said = [f"Beside {name}: {told}."]
    if any(line.level for line in lines):
        said.append(
            "The paper's number is taken as fixed. Reproduced: the 90 % interval of the difference"
            " is within ±1 point; differs: it is outside altogether; else it cannot be told."
        )
    said += _gammas(table, source)
    copied = {line.copied for line in lines if line.copied}
    if copied:
        said.append(
            "Rows that the paper copied from elsewhere and did not run are marked (c):"
            f" {'; '.join(copied)}."
        )
    kinds = dict.fromkeys(line.plus_minus for line in lines if line.paper_half is not None)
    if kinds:
        said.append(f"The paper's ±: {'; '.join(MEANS[kind] for kind in kinds)}.")
    return said + [f"Erratum: {text}" for text in source.errata]
