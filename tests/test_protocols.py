"""The three presets of every method, and all differences between any two of them."""

import itertools
import json
from pathlib import Path

import pytest

from cml_bench import registry
from cml_bench.costs.describe import describe
from cml_bench.errors import UserError
from cml_bench.networks.conv4 import Conv4Options
from cml_bench.networks.gcn import GCNOptions
from cml_bench.study.protocols import PRESETS, protocol, recipe

GOLDEN = Path(__file__).parent / "golden" / "presets.json"
NAMES = [n for n in registry.method_names() if registry.method(n).learns]


def resolved(name: str, preset: str) -> dict[str, object]:
    """Every option of a preset by its dotted key, for Conv4 on images or for the GCN on nodes."""
    cls = registry.method(name)
    network = GCNOptions if cls.needs == "nodes" else Conv4Options
    own = recipe(preset, cls.recipe)
    parts = {
        "protocol": protocol(preset, {}, "test", cls.recipe),
        "options": cls.Options.read(own.options, "test"),
        "network": network.read({**own.network, **cls.network_defaults}, "test"),
    }
    flat = {"steps": own.steps}
    for part, model in parts.items():
        flat |= {f"{part}.{key}": value for key, value in model.model_dump().items()}
    return flat


def difference(name: str, a: str, b: str) -> dict[str, list]:
    """Key -> [value under preset a, value under preset b], where the two differ."""
    one, two = resolved(name, a), resolved(name, b)
    return {key: [one[key], two[key]] for key in one if one[key] != two[key]}


def table() -> dict[str, dict[str, dict[str, list]]]:
    """Method -> "preset -> preset" -> differences.

    ``python -m tests.test_protocols`` writes them.
    """
    pairs = list(itertools.combinations(PRESETS, 2))
    return {name: {f"{a} -> {b}": difference(name, a, b) for a, b in pairs} for name in NAMES}


def test_differences_between_presets_are_the_committed_ones():
    now, stored = table(), json.loads(GOLDEN.read_text())
    # A new method is not among the committed ones until someone writes them anew.
    for name in stored:
        for pair, differences in now[name].items():
            text = "\n".join(f"  {key}: {a!r} -> {b!r}" for key, (a, b) in differences.items())
            print(f"{name}, {pair}:\n{text or '  nothing'}")
            assert differences == stored[name][pair], (
                f"{name}, {pair}: now {differences}, committed {stored[name][pair]}"
            )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("+cml")])
def test_with_cml_nothing_but_the_co_learners_keys_differs(name, preset):
    base, cml = resolved(name.removesuffix("+cml"), preset), resolved(name, preset)
    assert {key: cml.get(key) for key in base} == base
    assert set(cml) - set(base) == {"options.cml"}


def test_matched_is_one_recipe_for_all():
    assert (
        len(
            {
                json.dumps(
                    {
                        k: v
                        for k, v in resolved(name, "matched").items()
                        if k.startswith(("protocol", "steps"))
                    }
                )
                for name in NAMES
            }
        )
        == 1
    )
    want = {
        "protocol.meta_batch": 4,
        "protocol.outer_lr": 1e-3,
        "steps": 30_000,
        "protocol.optimizer_reset_every": 0,
        "protocol.selection": "joint",
        "protocol.ensemble_top_k": 1,
        "protocol.clamp": 0.0,
        "network.filters": 64,
        "network.slope": 0.0,
        "network.inputs": "unit",
    }
    assert want.items() <= resolved("mamlpp", "matched").items()
    own = {
        "options.inner_steps": 5,
        "options.inner_lr_init": 0.1,
        "options.learn_inner_lr": True,
        "options.msl_epochs": 15,
        "options.adapt_norm": False,
    }
    assert own.items() <= resolved("mamlpp", "matched").items(), "what stays the method's own"
    assert {"options.inner_steps": 1, "options.inner_lr": 0.5}.items() <= resolved(
        "boil+cml", "matched"
    ).items()
    assert {"options.inner_steps": 5, "options.inner_lr": 0.1}.items() <= resolved(
        "sharp_maml", "matched"
    ).items()


def test_official_rows_are_those_of_the_released_codes():
    maml = {"steps": 30_000, "protocol.optimizer_reset_every": 100, "protocol.val_tasks": 100}
    assert maml.items() <= resolved("maml", "official").items()
    mamlpp = {
        "steps": 50_000,
        "protocol.meta_batch": 2,
        "protocol.val_every": 500,
        "protocol.clamp": 10,
        "protocol.ensemble_top_k": 5,
        "network.filters": 48,
        "network.slope": 0.01,
    }
    assert mamlpp.items() <= resolved("mamlpp", "official").items()
    sharp = resolved("sharp_maml", "official")
    assert (sharp["steps"], sharp["options.rho_up"]) == (60_000, 5e-4)
    assert sharp["protocol.save_last"] is True
    assert sharp["options.sharp_test_perturb"] is False
    clean = resolved("sharp_maml", "clean")
    assert clean["protocol.save_last"] is False
    assert clean["options.sharp_test_perturb"] is True
    assert clean["protocol.val_tasks"] == 600


def test_an_unknown_preset_is_named():
    with pytest.raises(
        UserError, match=r"unknown protocol preset 'offical'\. Did you mean 'official'"
    ):
        recipe("offical")


# 84x84x3, 64 filters, 5 ways: training, and the readings at test (baselines of Table 4).
SIZES = {
    "maml": (121_093, {"meta": 121_093}),
    "fomaml": (121_093, {"meta": 121_093}),
    "boil": (121_093, {"meta": 121_093}),
    "sharp_maml": (121_093, {"meta": 121_093}),
    "more_maml": (232_261, {"meta": 232_261}),
    "maml+cml": (203_210, {"meta": 121_093, "co": 195_205}),
    "boil+cml": (203_210, {"meta": 121_093, "co": 195_205}),
    "sharp_maml+cml": (203_210, {"meta": 121_093, "co": 195_205}),
    "cl": (203_210, {"meta": 121_093, "co": 195_205, "both": 203_210}),
    # 48 filters: 70,085, 1,536 for the further rows of batch-norm, and 60 step sizes.
    "mamlpp": (71_681, {"meta": 71_681}),
}


@pytest.mark.parametrize("name", SIZES)
def test_describe_counts_the_papers_parameters(name, monkeypatch):
    source = registry.datasets.get("glyphs")
    monkeypatch.setattr(
        source,
        "input_shape",
        property(lambda self: (3, 84, 84), lambda self, value: None),
        raising=False,
    )
    options = {"filters": 48} if name == "mamlpp" else {}
    parameters = describe(name, "conv4", "glyphs", 5, 1, network_options=options).parameters
    assert (parameters.training, parameters.test) == SIZES[name]


def test_training_flops_count_every_pass():
    """Below, Sharp-MAML takes twice the inner gradients; above, it makes two passes.

    Both together cost about four times MAML's FLOPs.
    """
    plain = describe(
        "maml", "conv4", "glyphs", 5, 1, options={"inner_steps": 5, "adapt_norm": False}
    ).flops
    flops = {
        level: describe("sharp_maml", "conv4", "glyphs", 5, 1, options={"level": level}).flops[
            "training"
        ]
        for level in ("low", "up", "both")
    }
    assert flops["up"] == 2 * plain["training"]
    assert flops["both"] == 2 * flops["low"]
    assert 1.4 < flops["low"] / plain["training"] < 2.1


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(table(), indent=1) + "\n")
