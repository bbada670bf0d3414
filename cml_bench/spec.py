"""What one training run is, and the id that follows from it.

A :class:`RunSpec` holds a value for every option, so that it can be run, compared and re-created
without any configuration file. Its id is the SHA-256 of the canonical JSON of everything that can
change the trained model. Paths, device, threads, engine path, checkpoint interval and diagnostics
cannot change it, and are left out. So is :class:`Evaluation`: more test episodes give further
results of the same model.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from cml_bench.errors import UserError

NAME = r"^[a-z0-9_+]+$"  # of methods, networks, data sets: they become folders

# Far above anything that can be trained. Beyond them numbers overflow, or planning does not end.
MOST_STEPS, MOST_TASKS, MOST_EXAMPLES, MOST_INNER_STEPS = 10**9, 10**7, 100_000, 200
MOST_SEED = 2**63 - 1
_SHOWN = 200  # characters of a wrong value in a message


NormalisedWith = Literal["task", "support", "two_classes", "one_class"]
Precision = Literal["float32", "float64", "tf32", "bf16"]  # see engine/precision.py
Belongs = Callable[[tuple[int | str, ...]], str]  # see explain


class Model(BaseModel):
    """Base of what users write: frozen, and an unknown key is an error that names it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def read(cls, content: Any, where: str, belongs: Belongs | None = None) -> Self:
        """The model of what a user or a file gave.

        A UserError names ``where`` the content stands, and every wrong key. ``belongs``: see
        :func:`explain`.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(explain(error, where, list(cls.model_fields), belongs)) from None


def added(default: Any, **constraints: Any) -> Any:
    """A field that was added when runs existed already; its default is how these were made.

    While the field has this value, it is left out of the canonical JSON, so that old ids stay.
    """
    return Field(default, json_schema_extra={"added_with": default}, **constraints)


def canonical(model: BaseModel) -> dict[str, Any]:
    """The model as plain values, without fields of :func:`added` that have their default."""
    out = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        extra = _extra(field)
        if extra.get("left_out") or ("added_with" in extra and value == extra["added_with"]):
            continue
        if isinstance(value, BaseModel):
            value = canonical(value)
        elif isinstance(value, tuple):
            value = [canonical(v) if isinstance(v, BaseModel) else v for v in value]
        out[name] = value
    return out


def left_out(model: BaseModel) -> dict[str, Any]:
    """The fields that the canonical JSON never has, such as paths of this machine."""
    names = {name for name, f in type(model).model_fields.items() if _extra(f).get("left_out")}
    return model.model_dump(include=names)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


class Options(Model):
    """Base of the options of a method, network or data set. Each field has a description."""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def explain(
    error: ValidationError,
    where: str,
    known: list[str] | None = None,
    belongs: Belongs | None = None,
) -> str:
    """One paragraph for a pydantic error: the keys, what is wrong with them, what would be right.

    ``belongs``: a function that gets the path of an unknown key and says where the key would be
    known, or nothing.
    """
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(top level)"
        if item["type"] == "extra_forbidden":
            place = belongs(item["loc"]) if belongs else ""
            choices = f"; known keys: {', '.join(known)}" if known and len(item["loc"]) == 1 else ""
            parts.append(
                f"unknown key {key!r}" + (f": it belongs under {place}" if place else choices)
            )
        else:
            told = item["type"] in ("missing", "json_invalid")  # of which the input says nothing
            shown = "" if told else f" (got {_short(item['input'])})"
            parts.append(f"{key}: {item['msg']}{shown}")
    return (f"{where}: " + "; ".join(parts) + ".").replace("\n", " ")  # a key may hold one


class Component(Model):
    """A network or data set by name, with a value for each of its options.

    ``paths``: options that say where data is, or what a digest says already. Ids and records lack
    them.
    """

    name: str = Field(pattern=NAME)
    options: dict[str, Any] = {}
    paths: dict[str, Any] = Field({}, json_schema_extra={"left_out": True})

    @classmethod
    def of(cls, name: str, options: Options) -> Self:
        """The component with these options."""
        return cls(name=name, options=canonical(options), paths=left_out(options))


class Protocol(Model):
    """How a method is trained and its model chosen. Every quirk of a released code is an option.

    The defaults are the recipe R0 of the released CML code without its quirks (preset ``matched``).
    """

    meta_batch: int = Field(4, ge=1, le=MOST_EXAMPLES, description="tasks per outer step")
    outer_lr: float = Field(1e-3, ge=0, description="learning rate of the outer optimiser")
    outer_optimizer: Literal["adam", "sgd"] = added(
        "adam",
        description=(
            "adam, or sgd with ``outer_momentum``; Reptile's outer step is sgd with its step size"
            " as ``outer_lr``"
        ),
    )
    outer_momentum: float = added(0.0, ge=0, lt=1, description="momentum of sgd; 0: none")
    optimizer_reset_every: int = Field(
        0,
        ge=0,
        le=MOST_STEPS,
        description=(
            "re-create the outer optimiser every so many steps, as the released code does (100);"
            " 0: never"
        ),
    )
    val_every: int = Field(100, ge=1, le=MOST_STEPS, description="outer steps between validations")
    val_tasks: int = Field(600, ge=2, le=MOST_TASKS, description="validation tasks each time")
    val_fresh: bool = Field(
        False, description="new validation tasks each time instead of the same ones"
    )
    selection: Literal["joint", "separate", "last"] = Field(
        "joint",
        description=(
            "joint: (psi, theta, phi) of the step with the best meta head; separate: phi is that of"
            " the step with the best co head, as in the released CML code (reading co_unpaired);"
            " last: no selection"
        ),
    )
    save_last: bool = added(
        False,
        description=(
            "the best-model bug of pytorch-maml and Sharp-MAML: from the first improvement on every"
            " validated step is stored, so the last one is tested whatever ``selection`` says"
        ),
    )
    ensemble_top_k: int = added(
        1,
        ge=1,
        le=1000,
        description=(
            "test the averaged logits of the so many best validated models (MAML++: 5; its"
            " paper: 3)"
        ),
    )
    clamp: float = added(
        0.0,
        ge=0,
        description=(
            "clamp outer gradients to +-this value, as MAML and MAML++ do on MiniImagenet (10);"
            " 0: no"
        ),
    )
    outer_lr_min: float | None = added(
        None,
        ge=0,
        description=(
            "annealing of the outer learning rate from ``outer_lr`` to this value over the"
            " training, epoch by epoch (MAML++ on Omniglot: 1e-5; on MiniImagenet it equals"
            " outer_lr); none: constant"
        ),
    )
    outer_schedule: Literal["cosine", "linear"] = added(
        "cosine",
        description=(
            "how ``outer_lr`` goes to ``outer_lr_min``: by half a cosine (MAML++), or in equal"
            " steps (Reptile)"
        ),
    )
    epoch_steps: int = added(
        500,
        ge=1,
        le=MOST_STEPS,
        description="outer steps of an epoch, the grain of annealing (MAML++: 500)",
    )
    weight_decay: float = added(
        0.0,
        ge=0,
        description=(
            "of the outer optimiser, coupled: so much of each parameter is added to its gradient"
            " (TLP: 5e-4)"
        ),
    )
    patience: int = added(
        0,
        ge=0,
        le=MOST_STEPS,
        description=(
            "stop after so many validations in a row without a better meta head (TLP: 10); 0: never"
        ),
    )
    gradient_noise: float = added(
        0.0,
        ge=0,
        description=(
            "add to the outer gradient of every tensor of psi Gaussian noise of this multiple of"
            " its norm (of the whole gradient, since without a co-learner there is no other): a"
            " control for figure 3a, whose own noise is the gradient of a frozen random co-learner"
            " (``cml.frozen``)"
        ),
    )

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.outer_momentum and self.outer_optimizer != "sgd":
            raise ValueError(
                "outer_momentum is of outer_optimizer sgd, and adam has momentum of its own: set"
                " outer_optimizer to sgd, or leave outer_momentum out"
            )
        return self


class Evaluation(Model):
    """The test results that are wanted of a trained model. They are not part of the run's id."""

    tasks: int = Field(600, ge=0, le=MOST_TASKS, description="0: the model is not tested")
    query: int = Field(15, ge=1, le=MOST_EXAMPLES)
    inner_steps: tuple[Annotated[int, Field(ge=0, le=MOST_INNER_STEPS)], ...] = Field(
        (), description="empty: the method's own number"
    )
    normalised_with: tuple[NormalisedWith, ...] = Field(
        ("task",),
        min_length=1,
        description=(
            "examples that share batch-norm statistics with a query: all queries of the task, as in"
            " the paper; the support set; the queries of two classes; those of one class"
        ),
    )

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``normalised_with`` where it is the paper's way, as stored results are."""
        out: dict[str, Any] = plain(self)
        if self.normalised_with == ("task",):
            out.pop("normalised_with", None)
        return out

    def covers(self, other: "Evaluation") -> bool:
        """Whether the results of this evaluation contain those of the other one."""
        return other.tasks == 0 or (
            self.query == other.query
            and self.tasks >= other.tasks
            and set(self.inner_steps) >= set(other.inner_steps)
            and set(self.normalised_with) >= set(other.normalised_with)
        )

    def joined(self, other: "Evaluation") -> "Evaluation":
        """The evaluation that contains both, which have one number of queries if both test."""
        if 0 in (self.tasks, other.tasks):
            return self if self.tasks else other
        return Evaluation(
            tasks=max(self.tasks, other.tasks),
            query=other.query,
            inner_steps=tuple(sorted({*self.inner_steps, *other.inner_steps})),
            normalised_with=tuple(dict.fromkeys((*self.normalised_with, *other.normalised_with))),
        )


class RunSpec(Model):
    """One training run, with a value for every option."""

    method: str = Field(pattern=NAME)
    version: int = Field(ge=1)
    options: dict[str, Any]
    network: Component | None
    data: Component
    data_id: str
    protocol: Protocol
    way: int = Field(ge=1, le=MOST_EXAMPLES)
    shot: int = Field(ge=1, le=MOST_EXAMPLES)
    query: int = Field(
        ge=1, le=MOST_EXAMPLES, description="query examples per class in training and validation"
    )
    steps: int = Field(ge=0, le=MOST_STEPS)
    seed: int = Field(ge=0, le=MOST_SEED)
    precision: Precision = "float32"
    evaluation: Evaluation = Field(Evaluation(), json_schema_extra={"left_out": True})

    @property
    def id(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        text = json.dumps(canonical(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def inner_steps(self) -> int:
        """Inner steps in training; 0 for a method that does not adapt."""
        return self.options.get("inner_steps", 0)

    @property
    def gamma(self) -> float | None:
        """The weight of the co-learner's loss; None without a co-learner."""
        return self.options["cml"]["gamma"] if "cml" in self.options else None

    @property
    def frozen(self) -> bool:
        """Whether there is a co-learner that stays as it was drawn."""
        return bool(self.options.get("cml", {}).get("frozen"))

    @property
    def inner_rate(self) -> float | None:
        """The inner step size, or its value at the start where it is learned; None for a method
        that does not adapt.
        """
        return self.options.get("inner_lr", self.options.get("inner_lr_init"))

    @property
    def control(self) -> str:
        """What a run is a control of, in a few words; empty if it is no control."""
        cml = self.options.get("cml", {})
        if self.network is None:
            return "nothing is learned"
        if self.steps == 0:
            return "untrained"
        if cml.get("frozen"):
            return "frozen co-learner"
        if cml.get("norm", "own") != "own":
            return f"co-learner with norm {cml['norm']}"
        noise = self.protocol.gradient_noise
        return f"gradient noise {noise:g}" if noise else ""

    @property
    def split(self) -> str | None:
        """The class split, where the data set has several."""
        return self.data.options.get("split")

    @property
    def folder(self) -> str:
        """Name of the run's folder: readable, and unique by eight digits of the id."""
        return f"{self.method}-{self.data.name}-{self.way}w{self.shot}s-s{self.seed}-{self.id[:8]}"

    @property
    def title(self) -> str:
        """For people: ``maml+cml on glyphs, 5-way 1-shot, seed 0``.

        A class split follows the data set: ``... on sbm, split r1, ...``. A control is named as
        such: ``... seed 0 (control: untrained)``.
        """
        split = "" if self.split is None else f", split {self.split}"
        return (
            f"{self.method} on {self.data.name}{split}, {self.way}-way {self.shot}-shot, seed"
            f" {self.seed}{f' (control: {self.control})' if self.control else ''}"
        )
