"""What a configuration may say of a figure, and what each kind of figure must do. Imports no torch.

The kinds are in ``figures/kinds``, one file each. The paper leaves open what exactly its figures 3
and 4 show: each definition is an option of a kind, and :meth:`FigureConfig.definition` puts the
choice into the caption.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union

import numpy as np
from pydantic import Field, PlainValidator, SerializeAsAny, TypeAdapter

from cml_bench.records import Store
from cml_bench.registry import figures
from cml_bench.spec import MOST_EXAMPLES, MOST_SEED, Model, RunSpec
from cml_bench.texts import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

    from cml_bench.data.base import DataSet

Positive = Annotated[int, Field(ge=1, le=MOST_EXAMPLES)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Tasks = Annotated[int, Field(ge=1, le=10_000)]
Arrays = dict[str, np.ndarray]
Wanted = dict[int, list[list[RunSpec]]]  # shot -> the runs of each row, one a seed


class Row(Model):
    """One row of a table, one line of a figure."""

    label: Line
    run: str = Field(description="a key of the experiment's methods")
    reading: str = Field(
        "meta", description="which result of the run: see the documentation of readings"
    )
    against: str | None = Field(None, description="the baseline's key, for the paired difference")
    shown: bool = Field(True, description="no: the row stands among the paired differences only")
    varies: tuple[str, ...] = Field(
        (),
        description=(
            "keys in which the row differs from its baseline because that is its point, such as"
            " inner_steps or protocol.gradient_noise: see study/likes.py"
        ),
    )

    @property
    def head(self) -> str:
        """The head whose result it shows in a figure: meta or co."""
        return "meta" if self.reading == "meta" else "co"


class FigureConfig(Model):
    """What every figure has, and the hooks that a kind fills.

    A kind is a class in ``figures/kinds``, registered by its name. It has ``kind:
    Literal["NAME"]``, its options as fields, and :meth:`measured` and :meth:`drawn`; the other
    hooks have a default.
    """

    name: ClassVar[str]
    needs_models: ClassVar[bool] = False  # arrays come from stored models, not from records
    data_kind: ClassVar[str | None] = None  # of the data sets that it is for; None: any
    # What changes a drawing and not the arrays behind it.
    looks: ClassVar[frozenset[str]] = frozenset(
        {"title", "caption", "experiment", "runs", "shots", "kind"}
    )

    kind: str
    experiment: str
    title: Line
    caption: Line = ""
    runs: tuple[Row, ...] = Field(
        min_length=1, description="its lines; a reading is that of a head: meta or co"
    )
    shots: tuple[Positive, ...] = Field((), description="which of the experiment's; empty: all")

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments whose runs it shows."""
        return (self.experiment,)

    @property
    def only_seed(self) -> int | None:
        """The seed whose models alone are drawn; None: every seed counts."""
        return None

    def definition(self, unit: str) -> str:
        """What is drawn, in sentences for the caption: the options' choices. ``unit``: seeds, or
        class splits.
        """
        return ""

    def check_data(self, data: "type[DataSet]", place: str) -> None:
        """A UserError that begins with ``place`` if it cannot show such a data set."""

    def check_run(
        self, spec: RunSpec, readings: Sequence[str], layers: Sequence[str], place: str
    ) -> None:
        """A UserError that begins with ``place`` if it cannot show such a run, which has these
        readings and a psi of these layers.
        """

    def resolved(self, layers: Sequence[str]) -> Self:
        """The figure with what depends on its network filled in. ``layers``: names of psi's."""
        return self

    def of_seeds(self, runs: list[RunSpec]) -> list[RunSpec]:
        """Those of a row's runs, one a seed, that the arrays are made from."""
        return runs

    def identity(self, wanted: Wanted) -> Arrays:
        """What its arrays are of. It is stored with them, so that an edited figure is never drawn
        from old ones.
        """
        ids = [[" ".join(spec.id for spec in runs) for runs in rows] for rows in wanted.values()]
        options = self.model_dump(mode="json", exclude=set(self.looks))
        return {"runs": np.array(ids), "options": np.array(json.dumps(options, sort_keys=True))}

    def measured(self, wanted: Wanted, store: Store, data_dir: Path, place: str) -> Arrays:
        """The arrays that are drawn. A UserError that begins with ``place`` if a run lacks what is
        needed.
        """
        raise NotImplementedError

    def drawn(self, arrays: Arrays, styles: Sequence[int]) -> "Picture":
        """The picture of these arrays. ``styles``: the number of each row's colour and dashes."""
        raise NotImplementedError


class ProbeFigure(FigureConfig):
    """Measured on the first test tasks with the stored models (those of the best validation by the
    meta head).
    """

    needs_models = True

    examples: Literal["query", "support"] = "query"
    tasks: Tasks = Field(100, description="so many test tasks, the first ones")

    def shown(self, spec: RunSpec) -> int:
        """The number of examples of a test task that it looks at."""
        return spec.way * (spec.shot if self.examples == "support" else spec.evaluation.query)


def _of_kind(content: Any) -> FigureConfig:
    """A figure of any registered kind. The errors are those of pydantic, with their places."""
    if isinstance(content, FigureConfig):
        return content
    return _adapter(tuple(map(figures.get, figures.names()))).validate_python(content)


@functools.cache
def _adapter(kinds: tuple[type[FigureConfig], ...]) -> TypeAdapter[FigureConfig]:
    every: Any = Union[kinds]  # noqa: UP007  (its members are known when it runs)
    return TypeAdapter(Annotated[every, Field(discriminator="kind")])


Figure = Annotated[SerializeAsAny[FigureConfig], PlainValidator(_of_kind)]
