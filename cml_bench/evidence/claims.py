"""The paper's claims, one by one, and what the runs made here say of each. Imports no torch.

A claims file (configs/reference/claims.yaml) names for each claim its place in the paper and what
decides it: rows of tables, or rows of figures, of studies. Each gives cells, and
each cell has an outcome. The rules, in this order:

* **not run**: no cell has a run.
* **does not hold**: some cell is the contrary of the claim, significant at 5 % after Holm's
  correction.
* **holds**: every cell is as claimed, significant likewise, and the cells are of every method and
  data set that the claim names. A cell that is not run, has too few seeds or misses a run is not as
  claimed. Where other data stand in for the paper's, they stand in for all of it.
* **cannot tell**: anything else. So a difference that is not significant never speaks against a
  claim, and a claim about several cells never holds by some of them.

Cells at the paper's size decide alone once one of them has a run. Until then all smaller studies
decide together, and the size says what is smaller.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from cml_bench.errors import UserError, unknown
from cml_bench.evidence.deciding import AS_CLAIMED, CONTRARY, NOT_RUN, Cell, Source
from cml_bench.evidence.deciding_figure import InFigure
from cml_bench.evidence.deciding_table import Gain, NoCost, NoWorse
from cml_bench.evidence.verdict import CANNOT_TELL
from cml_bench.registry import CML
from cml_bench.spec import Model
from cml_bench.study import strict_yaml
from cml_bench.study.plan import Plan, PlannedRun
from cml_bench.study.schema import Key
from cml_bench.texts import Line

HOLDS, DOES_NOT_HOLD = "holds", "does not hold"
VERDICTS = (HOLDS, DOES_NOT_HOLD, CANNOT_TELL, NOT_RUN)
FILE = Path("configs/reference/claims.yaml")
PAPER_SIZE, BELOW = "at the paper's size", "below the paper's size"
BEYOND = "not asserted there"  # in place of a claim's place in the paper


class Size(Model):
    """What a claim was made on in the paper. Runs on other data or not on all of it, not of all
    methods, with another network, fewer filters or fewer outer steps are below its size.
    """

    data: tuple[str, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field((), description="without +cml, where the claim names several")
    network: str
    steps: dict[str, int] = Field(description="outer steps of each method, without +cml")
    assumed: Line = Field("", description="what of this the paper does not state")


Decider = Annotated[Gain | NoWorse | NoCost | InFigure, Field(discriminator="kind")]


class Claim(Model):
    """One assertion of the paper, its place there, and what decides it."""

    claim: Line
    where: Line
    size: Size
    decided_by: tuple[Decider, ...] = Field(min_length=1)


class StudyFile(Model):
    """A study that claims are decided by. ``parts``: the studies of single files that it
    includes.
    """

    config: str
    parts: tuple[Key, ...] = ()


class Claims(Model):
    """A whole file of claims."""

    source: Line
    studies: dict[Key, StudyFile]
    claims: dict[Key, Claim]

    def of(self, plan: Plan) -> "Claims":
        """The claims that a study decides, by itself alone: as if there were no other study.

        A study that is a part of another, or includes others, has those of the tables and figures
        that it has.
        """
        mine = plan.study.study
        names = {name for name, file in self.studies.items() if mine in (name, *file.parts)}
        names |= {*self.studies[mine].parts} if mine in self.studies else set()
        kept = {}
        for key, claim in self.claims.items():
            deciders = [
                decider.model_copy(update={"study": mine})
                for decider in claim.decided_by
                if decider.study in names and (decider.study == mine or decider.there(plan))
            ]
            if deciders:
                kept[key] = claim.model_copy(update={"decided_by": tuple(deciders)})
        return self.model_copy(
            update={"claims": kept, "studies": {mine: StudyFile(config=f"study {mine}")}}
        )


def read(path: Path | str) -> Claims:
    """Read and check a file of claims; a UserError names the file and the key."""
    content: Any = strict_yaml.read(path)
    claims = Claims.read(content, str(path))
    for key, claim in claims.claims.items():
        for decider in claim.decided_by:
            if decider.study not in claims.studies:
                raise unknown(f"study (in {path}, claim {key})", decider.study, claims.studies)
    return claims


def check(claims: Claims, plans: Mapping[str, Plan], path: Path | str) -> None:
    """A UserError that names the claim, if one names a table, row, column or figure that its study
    does not have.
    """
    for key, claim in claims.claims.items():
        for decider in claim.decided_by:
            where = f"{path}, claim {key}, study {decider.study}"
            plan = plans[decider.study]
            decider.check(plan, where)
            methods = {_method(run) for run in _planned(decider.runs(plan), plan)}
            if missing := sorted(methods - claim.size.steps.keys()):
                raise UserError(
                    f"{where}: the size names no outer steps of {missing[0]}: add it under `steps`."
                )


def check_study(plan: Plan, path: Path = FILE) -> None:
    """:func:`check` of the claims that a study decides, before anything runs; without a file there
    is nothing to check. A study is known by its name, so one of your own may be taken for another.
    """
    if path.exists():
        name, claims = plan.study.study, read(path)
        try:
            check(claims.of(plan), {name: plan}, path)
        except UserError as error:
            raise UserError(
                f"{error} If `study: {name}` is a study of your own, give it another name."
            ) from None


@dataclass(frozen=True)
class Finding:
    """What the runs say of a claim.

    ``verdict`` is one of ``VERDICTS``, ``size`` says how large the runs are beside the paper's.
    ``cells`` are those that decide, by study.
    """

    claim: Claim
    verdict: str
    size: str
    cells: dict[str, tuple[Cell, ...]]

    @property
    def every(self) -> list[Cell]:
        """The cells of all studies."""
        return [cell for cells in self.cells.values() for cell in cells]

    @property
    def weakest(self) -> tuple[str, Cell] | None:
        """Study and cell that speak least for the claim, in units of the half-width; among those of
        the contrary, if there are any. None where nothing is run.
        """
        ran = [(name, c) for name, cells in self.cells.items() for c in cells if _ran(c)]
        contrary = [(name, c) for name, c in ran if c.outcome == CONTRARY]
        return min(contrary or ran, key=lambda pair: pair[1].strength, default=None)


class _Part(NamedTuple):
    """What one of a claim's deciders reads: its study, its runs, and what makes them smaller."""

    study: str
    runs: list[PlannedRun]
    smaller: list[str]
    cells: list[Cell]


def find(claim: Claim, sources: Mapping[str, Source]) -> Finding:
    """What the runs say of a claim, by the rules above."""
    parts = []
    for decider in claim.decided_by:
        source = sources[decider.study]
        runs = _planned(decider.runs(source.plan), source.plan)
        smaller = shortfall(claim.size, runs)
        parts.append(_Part(decider.study, runs, smaller, decider.cells(source)))
    full = [part for part in parts if not part.smaller]
    below = [part for part in parts if part.smaller]
    full_ran = any(_ran(cell) for part in full for cell in part.cells)
    deciding = full if full_ran or not below else below
    cells: dict[str, tuple[Cell, ...]] = {}
    for part in deciding:
        cells[part.study] = (*cells.get(part.study, ()), *part.cells)
    made = {record.id for of_one in cells.values() for cell in of_one for record in cell.records}
    ran = [run for part in deciding for run in part.runs if run.id in made]
    lacks = missing(claim.size, ran)
    verdict = judge([cell for part in deciding for cell in part.cells], whole=not lacks)
    smaller = [*lacks, *(text for part in deciding for text in part.smaller)]
    return Finding(claim, verdict, _size(claim.size, verdict, smaller), cells)


def judge(cells: Sequence[Cell], whole: bool = True) -> str:
    """The verdict on a claim from its cells; see the rules above. ``whole``: they are of every
    method and data set that the claim names.
    """
    if not any(map(_ran, cells)):
        return NOT_RUN
    if any(cell.outcome == CONTRARY for cell in cells):
        return DOES_NOT_HOLD
    return HOLDS if whole and all(c.outcome == AS_CLAIMED for c in cells) else CANNOT_TELL


def shortfall(size: Size, runs: Iterable[PlannedRun]) -> list[str]:
    """What makes runs smaller than the paper's, each thing once; empty: nothing."""
    found: dict[str, None] = {}
    for run in runs:
        spec = run.spec
        if spec.data.name not in size.data:
            found[f"{spec.data.name} instead of {', '.join(size.data)}"] = None
        if spec.network and spec.network.name != size.network:
            found[f"{spec.network.name} instead of {size.network}"] = None
        if spec.steps < size.steps[_method(run)]:
            found[f"{spec.steps:,} of {size.steps[_method(run)]:,} steps"] = None
        mine, theirs = run.deviates.get("network.filters", (0, 0))
        if mine < theirs:
            found[f"{mine} of {theirs} filters"] = None
    return [*found]


def missing(size: Size, runs: Sequence[PlannedRun]) -> list[str]:
    """``without NAME, NAME``: methods and data sets that a claim names and no run has.

    ``runs`` are those that were made: what is planned shows nothing.
    """
    data, methods = {run.spec.data.name for run in runs}, set(map(_method, runs))
    lost = [name for name in size.methods if name not in methods]
    lost += [name for name in size.data if name not in data and data <= set(size.data)]
    return [f"without {', '.join(lost)}"] if lost else []


def _size(size: Size, verdict: str, smaller: list[str]) -> str:
    if verdict == NOT_RUN:
        return ""
    if smaller:
        return f"{BELOW}: {', '.join(dict.fromkeys(smaller))}"
    return f"{PAPER_SIZE} (assumed: {size.assumed})" if size.assumed else PAPER_SIZE


def _ran(cell: Cell) -> bool:
    return cell.outcome != NOT_RUN


def _planned(ids: Iterable[str], plan: Plan) -> list[PlannedRun]:
    runs = {run.id: run for run in plan.runs}
    return [runs[i] for i in ids]


def _method(run: PlannedRun) -> str:
    """The name of the run's method without the co-learner."""
    return run.spec.method.removesuffix(CML)
