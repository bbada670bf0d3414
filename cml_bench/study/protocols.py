"""Presets of the training protocol: a recipe, and the quirks of the released code as named options.

* ``official``: the method's own recipe (``Method.recipe``) with its quirks, for verdicts against
  the paper.
* ``clean``: the method's own recipe without quirks. This is what we recommend.
* ``matched``: the recipe R0 for all (Conv4, 4 tasks, Adam 1e-3, 30,000 steps, one selected model)
  without quirks, for comparing methods with each other. The inner steps and their size, what adapts
  and SAM radii stay the method's own.
* Further names: other rows of a method (``Method.more_recipes``).

Every preset is resolved into each run's spec, so a record never says only "official". Under every
preset x+cml differs from x in the co-learner's keys alone.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from cml_bench.errors import unknown
from cml_bench.spec import Model, Protocol, RunSpec, canonical
from cml_bench.study import places

if TYPE_CHECKING:
    from cml_bench.methods.base import Method
    from cml_bench.networks.base import Network


class Recipe(NamedTuple):
    """A method's row in its own code: outer steps, and options of the protocol, the method and the
    network.
    """

    steps: int = 30_000
    protocol: dict[str, Any] = {}
    options: dict[str, Any] = {}
    network: dict[str, Any] = {}


# R0: the options' defaults.
MATCHED = Recipe()

# The released CML and BOIL code: Adam re-created every 100 steps, phi selected apart from psi and
# theta, 100 new validation tasks each time.
RELEASED = Recipe(
    protocol={
        "optimizer_reset_every": 100,
        "selection": "separate",
        "val_tasks": 100,
        "val_fresh": True,
    }
)

# The value of every quirk that is switched off. ``val_tasks`` is raised to at least this.
CLEAN_PROTOCOL: dict[str, Any] = {
    "optimizer_reset_every": 0,
    "selection": "joint",
    "val_fresh": False,
    "save_last": False,
}
CLEAN_VAL_TASKS = 600
CLEAN_OPTIONS = {"sharp_test_perturb": True}
CLEAN_NETWORK = {"shortcuts": "adapted"}

PRESETS = ("official", "clean", "matched")


def released_row(method: "type[Method]", network: "type[Network] | None") -> Recipe:
    """The row of a method on a network: the method's, with what the network's own code changes in
    it.

    That code is BOIL's, whose other methods have the row :data:`RELEASED`. A method with its own
    released code keeps its row. Options that the method lacks are left out.
    """
    own: Recipe = method.recipe
    if network is None or own != RELEASED:
        return own
    changed = {
        key: value
        for key, value in network.recipe.options.items()
        if key in method.Options.model_fields
    }
    return own._replace(
        options={**own.options, **changed},
        protocol={**own.protocol, **network.recipe.protocol},
        network={**own.network, **network.recipe.network},
    )


def deviation(
    spec: RunSpec, method: "type[Method]", network: "type[Network] | None"
) -> dict[str, list[Any]]:
    """Where a run is not of the preset ``official`` of its method on its network: dotted key ->
    [its value, official].

    Options that make a row of a table (``cml.gamma``, ``network.head_blocks``) are among them:
    evidence/paper.py knows which of them the paper's row has too.
    """
    if network is None or spec.network is None:
        return {}
    own = released_row(method, network)
    of_network = {**own.network, **method.network_defaults}
    if strange := of_network.keys() - network.Options.model_fields.keys():
        return {"network": [network.name, f"one with {', '.join(sorted(strange))}"]}
    parts: list[tuple[str, dict[str, Any], type[Model], dict[str, Any]]] = [
        ("protocol.", canonical(spec.protocol), Protocol, own.protocol),
        ("", spec.options, method.Options, own.options),
        ("network.", spec.network.options, network.Options, of_network),
    ]
    differences: dict[str, list[Any]] = {}
    for prefix, given, model, released in parts:
        wanted = model.read(released, f"preset official of {spec.method}").model_dump(mode="json")
        here = model.read(given, spec.title).model_dump(mode="json")
        a, b = flat(here, prefix), flat(wanted, prefix)
        differences |= {
            key: [a.get(key), b.get(key)]
            for key in sorted(a.keys() | b.keys())
            if a.get(key) != b.get(key)
        }
    return differences


def flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested options by dotted keys."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        )
    return out


def recipe(preset: str, own: Recipe = RELEASED, more: Mapping[str, Recipe] | None = None) -> Recipe:
    """What the preset fixes. ``own`` is the method's row; ``more`` are its other rows, by name.

    A UserError for an unknown preset.
    """
    more = more or {}
    if preset in more:
        return more[preset]
    if preset not in PRESETS:
        raise unknown("protocol preset", preset, (*PRESETS, *more))
    if preset == "matched":
        return MATCHED
    if preset == "official":
        return own
    kept = {key: CLEAN_PROTOCOL.get(key, value) for key, value in own.protocol.items()}
    kept["val_tasks"] = max(CLEAN_VAL_TASKS, kept.get("val_tasks", 0))
    return own._replace(
        protocol=kept,
        options={key: CLEAN_OPTIONS.get(key, value) for key, value in own.options.items()},
        network={key: CLEAN_NETWORK.get(key, value) for key, value in own.network.items()},
    )


def protocol(
    preset: str,
    overrides: dict[str, Any],
    where: str,
    own: Recipe = RELEASED,
    more: Mapping[str, Recipe] | None = None,
) -> Protocol:
    """The preset's options with overrides. A UserError for an unknown preset or key."""
    return Protocol.read(
        {**recipe(preset, own, more).protocol, **overrides},
        where,
        places.instead_of(places.PROTOCOL),
    )
