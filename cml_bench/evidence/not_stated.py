"""What a paper does not state, so that a configuration had to assume it: facts beside its numbers.

They stand under ``not_stated`` in the file of the paper's numbers. Imports no torch.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from cml_bench.evidence.table import Beside
from cml_bench.spec import NAME, Model, RunSpec
from cml_bench.texts import Line

Said = Annotated[Line, Field(min_length=1)]
Names = tuple[Annotated[str, Field(pattern=NAME)], ...]
Values = Annotated[tuple[Any, ...], Field(min_length=1)]


class NotStated(Model):
    """One such setting. It is that of every run which meets each condition that is given."""

    what: Said = Field(description="the setting, in a few words that a verdict can end with")
    place: Said = Field(description="where the paper is silent, or contradicts itself")
    data: Names = Field((), description="names of data sets; none: all")
    network: Names = Field((), description="names of networks; none: all")
    method: Names = Field((), description="names of methods, x and x+cml apart; none: all")
    options: dict[Line, Values | None] = Field(
        {},
        description=(
            "options that a run has, by dotted key: with one of these values, or null: with any"
            " that the paper's row does not state under `structure`, so that ours is no deviation"
        ),
    )

    @model_validator(mode="after")
    def _some_condition(self) -> Self:
        if not (self.data or self.network or self.method or self.options):
            raise ValueError("say where it applies, by data, network, method or options")
        return self

    def open_options(self, structure: Mapping[str, Any]) -> list[str]:
        """Keys of the options for which any value will do, given what the row states."""
        return [k for k, values in self.options.items() if values is None and k not in structure]

    def applies(self, spec: RunSpec, structure: Mapping[str, Any]) -> bool:
        """Whether a run beside a row of this ``structure`` had to assume the setting."""
        network = spec.network.name if spec.network else ""
        return (
            (not self.data or spec.data.name in self.data)
            and (not self.network or network in self.network)
            and (not self.method or spec.method in self.method)
            and all(
                self._has(option(spec, key), values, key in structure)
                for key, values in self.options.items()
            )
        )

    @staticmethod
    def _has(mine: Any, values: tuple[Any, ...] | None, stated: bool) -> bool:
        return mine in values if values is not None else mine is not None and not stated

    def assumed(self, spec: RunSpec) -> str:
        """The setting, what ours is where options hold it, and the place in the paper."""
        mine = [f"{key} {option(spec, key)}" for key in self.options]
        return f"{self.what} ({'; '.join([*mine, self.place])})"


def option(spec: RunSpec, key: str) -> Any:
    """A resolved option by its dotted key; None if it has a default that the record leaves out."""
    tree: Any = {**spec.options, "network": spec.network.options if spec.network else {}}
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def sentences(lines: Iterable[Beside]) -> list[str]:
    """What was assumed, where the paper is silent, and in which rows."""
    rows: dict[str, dict[str, None]] = {}
    for line in lines:
        for text in line.assumed:
            rows.setdefault(text, {})[line.label] = None
    return [
        f"The paper does not state a setting, which is assumed here: {text}. So no level is judged"
        f" of {', '.join(labels)}."
        for text, labels in rows.items()
    ]
