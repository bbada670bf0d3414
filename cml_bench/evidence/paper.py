"""The paper's numbers (configs/reference/paper.yaml), and our cells beside them. Imports no torch.

This module brings the two sides of a comparison together. Only verdict.py decides what may be said.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cml_bench import registry
from cml_bench.data import references
from cml_bench.errors import UserError, unknown
from cml_bench.evidence import not_stated, verdict
from cml_bench.evidence.not_stated import NotStated, option
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
    """What the paper's number was measured on; see :class:`cml_bench.evidence.verdict.Setting`.

    ``split`` may be a list: the paper leaves open which of them it is.
    """

    data: str
    split: str | tuple[str, ...] | None = None
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
        description=("options that make the row, as network.head_blocks"),
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
    not_stated: tuple[NotStated, ...] = Field(
        (), description="what holds for this table alone; that of the whole file is added"
    )


class PaperNumbers(Model):
    """A whole file of a paper's numbers."""

    source: Line
    tables: dict[str, PaperTable]
    errata: tuple[str, ...] = ()
    not_stated: tuple[NotStated, ...] = Field(
        (), description="settings that the paper leaves open, in every table"
    )

    def table(self, key: str, path: str) -> PaperTable:
        """One table with all that the paper leaves open; a UserError if there is none."""
        if key not in self.tables:
            raise unknown(f"published table (in {path})", key, self.tables)
        found = self.tables[key]
        return found.model_copy(update={"not_stated": self.not_stated + found.not_stated})


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
    key = plan.tables[table.key].paper
    if not key:
        return None
    path, numbers = _file(table.key, plan)
    return f"{key.replace('table', 'Table ')} of {numbers.source}", numbers.table(key, path)


def _file(table: str, plan: Plan) -> tuple[str, PaperNumbers]:
    """Path and content of the file that has the paper's table."""
    path = plan.study.published
    if not path:
        raise UserError(
            f"table {table} names the published table {plan.tables[table].paper!r}: name their file"
            " under `published`."
        )
    return path, read(path)


def check(plan: Plan) -> None:
    """A UserError, before anything runs, if a table's published one is not there, or if the file
    names under ``not_stated`` what does not exist. It loads all plug-ins.
    """
    named = [(key, table.paper) for key, table in plan.tables.items() if table.paper]
    if not named:
        return
    path, numbers = _file(named[0][0], plan)
    for _, key in named:
        for number, item in enumerate(numbers.table(key, path).not_stated):
            for kind, names, known in (
                ("data set", item.data, registry.datasets.names()),
                ("network", item.network, registry.networks.names()),
                ("method", item.method, registry.method_names()),
            ):
                if strange := sorted({*names} - {*known}):
                    place = f"{kind} (in {path}, not_stated.{number})"
                    raise unknown(place, strange[0], known)


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
    line.reason, claim = _reason(cell, line.column, theirs, source, runs)
    if line.reason or claim is None:
        return
    record = next(iter(cell.records.values()))
    if record.data_differs:
        line.repacked = references.repacked(record.spec.data_id, record.data_unordered_sha256)
    line.assumed = [
        item.assumed(record.spec) for item in _assumed(record.spec, line.column, theirs, source)
    ]
    seeds = sorted(cell.values)
    line.level = verdict.level_verdict(
        [cell.values[s] for s in seeds],
        [cell.scores[s] for s in seeds],
        line.paper,
        claim.not_stated,
    )
    d = cell.difference
    if d is None or cell.base is None:
        return
    # The baseline has the network of the row that it is compared with, and no co-learner.
    structure = _structure(line.column, theirs, source)
    network = {key: value for key, value in structure.items() if key.startswith("network.")}
    like = (base or PaperRow(label="")).model_copy(update={"structure": network})
    plain = source.model_copy(update={"structures": {}})
    line.gain_reason = (
        _reason(cell.base, line.column, like, plain, runs)[0] if d.testable else d.verdict
    )
    if not line.gain_reason:
        line.gain = verdict.gain_verdict(d.paired, d.holm_p, line.paper_gain)


def _reason(
    cell: Cell,
    column: Column,
    theirs: PaperRow,
    source: PaperTable,
    runs: dict[str, PlannedRun],
) -> tuple[str, verdict.Claim | None]:
    """Why a cell may not be set beside the paper's row (empty: it may), and the claim."""
    if not cell.records:
        return "no run yet", None
    claim = _claim(cell, column, theirs, source, runs)
    return verdict.comparable(claim) or "", claim


def _structure(column: Column, theirs: PaperRow, source: PaperTable) -> dict[str, Any]:
    """The options that the paper's row and column are made with."""
    return {**source.structures.get(column.group, {}), **theirs.structure}


def _assumed(
    spec: RunSpec, column: Column, theirs: PaperRow, source: PaperTable
) -> list[NotStated]:
    """What the configuration had to assume for a run beside the paper's row."""
    structure = _structure(column, theirs, source)
    return [item for item in source.not_stated if item.applies(spec, structure)]


def _deviation(
    spec: RunSpec, run: PlannedRun, column: Column, theirs: PaperRow, source: PaperTable
) -> tuple[str, str]:
    """The protocol, and an option that is not that of the paper's row.

    The protocol is ``official``, or names an option that is not the official one's. Any value
    will do of an option that the paper leaves open.
    """
    structure = _structure(column, theirs, source)
    deviates = {**run.deviates}
    for key, value in structure.items():
        mine, _ = deviates.pop(key, (option(spec, key), None))
        if mine != value:
            return "official", f"{key} {mine}, the paper {value}"
    for item in _assumed(spec, column, theirs, source):
        for key in item.open_options(structure):
            deviates.pop(key, None)
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
    splits = setting.split if isinstance(setting.split, tuple) else (setting.split,)
    mine = verdict.Setting(data, split, size, backbone, spec.steps, spec.way, spec.shot)
    paper = verdict.Setting(
        setting.data,
        split if split in splits else splits[0],
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
        data_differs=tuple(
            "" if references.repacked(r.spec.data_id, r.data_unordered_sha256) else r.data_differs
            for r in cell.records.values()
        ),
        not_stated=tuple(item.what for item in _assumed(spec, column, theirs, source)),
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


def _repacked(lines: list[Beside]) -> list[str]:
    """How our copies are known as the published data."""
    return [
        f"{text[0].upper()}{text[1:]}: its images are those of the published data by a digest that"
        " does not depend on the order of files and rows."
        for text in dict.fromkeys(line.repacked for line in lines if line.repacked)
    ]


def sentences(table: Table, name: str, source: PaperTable) -> list[str]:
    """What came of the comparison, and what is known to be wrong in the paper's table."""
    lines = table.beside
    if not lines:
        return []
    counts = Counter(line.outcome for line in lines)
    told = "; ".join(f"{outcome} ({count} of {len(lines)})" for outcome, count in counts.items())
    said = [f"Verdicts beside {name}: {told}."]
    if any(line.level for line in lines):
        said.append(
            "The paper's number is taken as fixed. Reproduced means that the 90 % interval of the"
            " difference is within ±1 point, and differs that it is outside altogether. Anything"
            " else cannot be told."
        )
    said += not_stated.sentences(lines)
    said += _repacked(lines)
    copied = {line.copied for line in lines if line.copied}
    if copied:
        said.append(
            "(c) marks a row that the paper copied from elsewhere and did not run:"
            f" {'; '.join(copied)}."
        )
    kinds = dict.fromkeys(line.plus_minus for line in lines if line.paper_half is not None)
    if kinds:
        said.append(f"The paper's ±: {'; '.join(MEANS[kind] for kind in kinds)}.")
    return said + [f"Erratum: {text}" for text in source.errata]
