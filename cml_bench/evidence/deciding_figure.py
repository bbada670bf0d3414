"""A claim that is decided by what a figure measures. Imports no torch."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from cml_bench.errors import UserError, unknown
from cml_bench.evidence import stats
from cml_bench.evidence.deciding import (
    NOT_RUN,
    NOT_TESTED,
    Cell,
    Deciding,
    Judged,
    Source,
    tested,
)
from cml_bench.records import Record
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Arrays, FigureConfig, Wanted
from cml_bench.study.plan import Plan
from cml_bench.study.schema import Key
from cml_bench.texts import Line

# Kind of a figure -> name of its array, unit, scale and decimals of its values.
_MEASURED = {
    "accuracy": ("validation", "points", 100.0, 2),
    "cosine": ("cosine", "", 1.0, 3),
    "gradients": ("norms", "", 1.0, 3),
    "cka": ("cka", "", 1.0, 3),
    "tsne": ("score", "", 1.0, 3),
}
_CURVES, _PANELS = ("accuracy", "cosine"), ("before", "after", "queries")
_LATE = 2 / 3  # of the outer steps: what comes after is averaged
_Unit = tuple[str | None, int]  # class split and seed
_Values = dict[str, dict[_Unit, float]]  # place -> replication -> value


class _Pair(NamedTuple):
    """What a cell is made of: differences of shape (seeds,), and whether no run is missing."""

    name: str
    sample: np.ndarray
    whole: bool
    records: tuple[Record, ...]


class InFigure(Deciding):
    """What a figure measures is larger for one row than for others, or than 0: pairs by seed.

    Of a curve (accuracy in validation, or cosine) the mean over the last third of the outer steps
    counts. Else each place is a cell: a layer's gradient norm or CKA, a panel's silhouette. Holm's
    family has all cells that are read.
    """

    kind: Literal["figure"]
    figure: Key
    row: Line
    against: tuple[Line, ...] = Field((), description="labels of rows; empty: 0")
    places: tuple[Line, ...] = Field(
        (), description="layers, or panels (before, after, queries); empty: all"
    )
    lower: bool = Field(False, description="the claim is that it is smaller")

    def there(self, plan: Plan) -> bool:
        """See :class:`Deciding`."""
        return self.figure in plan.figures

    def check(self, plan: Plan, where: str) -> None:
        """See :class:`Deciding`."""
        if self.figure not in plan.figures:
            raise unknown(f"figure (in {where})", self.figure, plan.figures)
        figure = plan.figures[self.figure]
        labels = [row.label for row in figure.runs]
        for label in (self.row, *self.against):
            if label not in labels:
                raise unknown(f"row of {self.figure} (in {where})", label, labels)
        if figure.kind not in _MEASURED:
            raise UserError(
                f"{where}: {self.figure} is of kind {figure.kind}, which measures nothing: name a"
                f" figure of kind {', '.join(_MEASURED)}."
            )
        if self.places and figure.kind in _CURVES:
            raise UserError(f"{where}: {self.figure} is a curve and has no `places`: leave it out.")
        for place in self.places if figure.kind == "tsne" else ():
            if place not in _PANELS:
                raise unknown(f"panel of {self.figure} (in {where})", place, _PANELS)

    def runs(self, plan: Plan) -> list[str]:
        """See :class:`Deciding`."""
        figure = plan.figures[self.figure]
        members = plan.members[figure.experiment]
        return [
            i
            for row in figure.runs
            if row.label in (self.row, *self.against)
            for shot in figure.shots or sorted(members[row.run])
            for i in members[row.run][shot]
        ]

    def cells(self, source: Source) -> list[Cell]:
        """See :class:`Deciding`."""
        try:
            arrays, runs = source.drawn(self.figure)
        except UserError as error:
            return [Cell(f"{self.row}, {self.figure}", NOT_RUN, reason=f"{error}".rstrip("."))]
        figure = source.plan.figures[self.figure]
        pairs = list(self._pairs(source, figure, arrays, runs))
        judged = tested([pair.sample if pair.whole else None for pair in pairs], self._sign)
        return [self._cell(figure, pair, one) for pair, one in zip(pairs, judged, strict=True)]

    @property
    def _sign(self) -> int:
        return -1 if self.lower else 1

    def _pairs(
        self, source: Source, figure: FigureConfig, arrays: Arrays, runs: Wanted
    ) -> Iterator[_Pair]:
        labels = [row.label for row in figure.runs]
        mine, *others = (labels.index(label) for label in (self.row, *self.against))
        for shot, rows in runs.items():
            values = _values(figure, arrays, rows[mine], mine, shot)
            for other in others or (None,):
                used = [mine] if other is None else [mine, other]
                base = None if other is None else _values(figure, arrays, rows[other], other, shot)
                against = "" if other is None else f" − {labels[other]}"
                found = [source.store.read(spec) for i in used for spec in rows[i]]
                wanted = source.plan.members[figure.experiment]
                whole = all(len(rows[i]) == len(wanted[figure.runs[i].run][shot]) for i in used)
                for place in self._of(values):
                    name = [f"{self.row}{against}", f"{shot}-shot", *([place] if place else [])]
                    sample = _sample(values[place], base[place] if base else None)
                    there = np.isfinite(sample)
                    records = tuple(record for record in found if record)
                    yield _Pair(
                        ", ".join(name), sample[there], whole and bool(there.all()), records
                    )

    def _of(self, values: _Values) -> list[str]:
        """The places that are read."""
        for place in self.places:
            if place not in values:
                raise unknown(f"place of {self.figure} of {self.study}", place, values)
        return list(self.places or values)

    def _cell(self, figure: FigureConfig, pair: _Pair, judged: Judged | None) -> Cell:
        _, unit, _, decimals = _MEASURED[figure.kind]
        n = len(pair.sample)
        if not n:
            return Cell(pair.name, NOT_RUN)
        short = n < stats.MIN_SEEDS
        reason = stats.not_tested(n) if short else "runs or values missing: not tested"
        return Cell(
            pair.name,
            judged.outcome if judged else NOT_TESTED,
            paired=stats.paired(pair.sample, np.zeros(n)),
            p=judged.p if judged else np.nan,
            detectable=judged.detectable if judged else np.nan,
            better=self._sign,
            decimals=decimals,
            unit=unit,
            reason="" if judged else reason,
            records=pair.records,
        )


def _sample(mine: dict[_Unit, float], base: dict[_Unit, float] | None) -> np.ndarray:
    """The differences, or the values where there is no base, of replications that have a row here:
    (seeds,), nan where nothing was measured.
    """
    units = [u for u in mine if base is None or u in base]
    return np.array([mine[u] - (base[u] if base is not None else 0.0) for u in units])


def _values(
    figure: FigureConfig, arrays: Arrays, runs: list[RunSpec], row: int, shot: int
) -> _Values:
    """The values of a figure's row; those of a curve have the place ""."""
    name, _, scale, _ = _MEASURED[figure.kind]
    if figure.kind in _CURVES:
        steps = arrays[f"steps/{shot}"]
        late = arrays[f"{name}/{shot}"][row][:, steps >= _LATE * steps.max()]
        by_place = {"": late.mean(axis=1)}
    elif figure.kind == "tsne":
        by_place = {panel: arrays[f"{name}/{shot}/{panel}"][row] for panel in _PANELS}
    else:
        table = arrays[f"{name}/{shot}"][row]
        by_place = {str(layer): table[:, k] for k, layer in enumerate(arrays["layers"])}
    units = [(spec.split, spec.seed) for spec in runs]
    return {
        place: {unit: scale * float(v) for unit, v in zip(units, values, strict=False)}
        for place, values in by_place.items()
    }
