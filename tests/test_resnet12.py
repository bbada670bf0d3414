"""ResNet-12: equal to torch's own layers, its inner loop, and its rows in the presets."""

import pytest
import torch
import torch.nn.functional as F

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep, adam, expand, leaves
from cml_bench.errors import UserError
from cml_bench.networks.base import count
from cml_bench.networks.resnet12 import ResNet12, ResNet12Options
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers import reference, reference_methods
from tests.helpers.cases import CPU, follow, images, random, relative, values
from tests.helpers.specs import rate

LAST_SKIP = 512 * (256 + 2)  # the weights and batch-norm of block 4's shortcut


class Plain:
    """ResNet-12 for one task, of torch's layers, without folding."""

    def __init__(self, last_skip=True):
        self.last_skip = last_skip

    @staticmethod
    def layer(p, i, x):
        z = F.conv2d(x, p[f"conv{i}.weight"], padding=p[f"conv{i}.weight"].shape[-1] // 2)
        return F.batch_norm(
            z, None, None, p[f"norm{i}.weight"], p[f"norm{i}.bias"], training=True, eps=1e-5
        )

    def features(self, p, x):
        for b in (1, 2, 3, 4):
            z = F.leaky_relu(self.layer(p, f"{b}a", x), 0.1)
            z = F.leaky_relu(self.layer(p, f"{b}b", z), 0.1)
            z = self.layer(p, f"{b}c", z)
            if b < 4 or self.last_skip:
                z = z + self.layer(p, f"{b}s", x)
            x = F.max_pool2d(F.leaky_relu(z, 0.1), 2)
        return x

    def head(self, p, z):
        return F.linear(F.adaptive_avg_pool2d(z, 1).flatten(1), p["head.weight"], p["head.bias"])

    def co(self, p, z, depth=2):
        for i in range(1, depth + 1):
            z = F.leaky_relu(self.layer(p, i, z), 0.1)
        return self.head(p, z)


def built(
    name="maml+cml", path="fast", filters=3, size=16, gamma=0.7, lr=0.3, chosen=None, **options
):
    """A method with options ``chosen`` on a narrow ResNet-12 with perturbed parameters, float64."""
    network = ResNet12(ResNet12Options(filters=filters, **options), (3, size, size), 3, path)
    network.name = "resnet12"
    cls = registry.method(name)
    given = {
        **rate(name, lr),
        **({"cml": {"gamma": gamma}} if "co" in cls.heads else {}),
        **(chosen or {}),
    }
    method = cls(cls.Options.read(given, name), network, "classification")
    groups = leaves(method.init(3), CPU, torch.float64)
    with torch.no_grad():
        for params in groups.values():
            for key, value in params.items():
                value += 0.4 * (random(*value.shape, name=key) - 0.5)
    return method, groups


def gradients(method, groups, task, at_once=2):
    MetaStep(method, groups, adam(groups, 1e-3), at_once).gradients(task)
    return {
        (g, n): torch.zeros_like(p) if p.grad is None else p.grad
        for g, ps in groups.items()
        for n, p in ps.items()
    }


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("last_skip", [True, False])
@pytest.mark.parametrize(
    ("shortcuts", "body"), [("adapted", "adapted"), ("fixed", "adapted"), ("adapted", "fixed")]
)
def test_the_outer_gradient_is_the_obvious_loops(path, last_skip, shortcuts, body):
    method, groups = built(path=path, last_skip=last_skip, shortcuts=shortcuts, body=body)
    task = images(tasks=3, channels=3)
    keep = {
        ("adapted", "adapted"): lambda n: True,
        ("fixed", "adapted"): lambda n: "s." not in n,
        ("adapted", "fixed"): lambda n: n.startswith("head"),
    }[shortcuts, body]
    _, want = reference.meta_gradient(
        Plain(last_skip),
        groups["base"],
        groups["co"],
        task,
        "classification",
        0.7,
        2,
        steps=1,
        lr=0.3,
        adapts=keep,
    )
    assert relative(gradients(method, groups, task), want) < 1e-10


def variants():
    """Every method but More-MAML, which needs blocks that this network lacks.

    MAML++ goes through its schedules.
    """
    for name in registry.method_names():
        base = name.removesuffix("+cml")
        if base == "sharp_maml":
            yield from (
                (name, {"level": level, "rho_low": 0.03, "rho_up": 0.05})
                for level in ("low", "up", "both")
            )
        elif base in reference_methods.STATES.keys() - {"more_maml"}:
            phases = {"epoch_steps": 2, "msl_epochs": 3, "first_order_to_second_order_epoch": 1}
            yield name, {"inner_steps": 2, **phases} if base == "mamlpp" else {}


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize(
    ("name", "options", "first_order"),
    [
        pytest.param(
            *(name, options, first_order),
            marks=[] if name == "maml+cml" else pytest.mark.slow,
            id=f"{name} {options.get('level', '')} {first_order}",
        )
        for name, options in variants()
        for first_order in (False, True)
        if not first_order or "first_order" in registry.method(name).Options.model_fields
    ],
)
def test_adam_steps_are_the_obvious_loops(name, options, path, first_order):
    """The inner step is small: at 0.3, each of Sharp-MAML's steps magnifies rounding tenfold."""
    options = options | ({"first_order": True} if first_order else {})
    (method, ours), (other, theirs) = (built(name, path, lr=0.05, chosen=options) for _ in range(2))
    step, by_hand = MetaStep(method, ours, adam(ours, 1e-3), 2), reference.Adam()
    for number in range(8 if name.startswith("mamlpp") else 3):
        task = images(tasks=2, channels=3, name=f"step {number}")
        phase = {"epoch": number // 2} if name.startswith("mamlpp") else {}
        want = reference_methods.outer_gradient(
            name,
            Plain(),
            theirs["base"],
            theirs.get("co", {}),
            task,
            "classification",
            0.7,
            2,
            other.options,
            **phase,
        )
        method.at_step(number)
        step(task)
        if number == 0:
            got = {
                (g, n): p.grad
                for g, params in ours.items()
                for n, p in params.items()
                if p.grad is not None
            }
            assert (
                relative(
                    got | {key: torch.zeros_like(v) for key, v in want.items() if key not in got},
                    want,
                )
                < 1e-10
            )
        follow(theirs, by_hand, want)
    assert relative(values(ours), values(theirs)) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", ["maml", "fomaml", "mamlpp", "boil", "sharp_maml"])
def test_gamma_zero_is_the_baseline_bit_for_bit(name, path):
    ends = []
    for method_name in (name, f"{name}+cml"):
        method, _ = built(method_name, path, gamma=0.0)
        groups = leaves(method.init(5), CPU, torch.float32)
        step = MetaStep(method, groups, adam(groups, 1e-3), 2)
        for number in range(4):
            task = images(tasks=3, channels=3, name=f"step {number}")
            step(Task(*(Examples(e.x.float(), e.y) for e in task)))
        ends.append(groups["base"])
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_the_inner_step_reaches_body_and_shortcuts_unless_told_otherwise():
    task = images(channels=3)
    moved = {}
    for name, options in {
        "all": {},
        "shortcuts": {"shortcuts": "fixed"},
        "body": {"body": "fixed"},
    }.items():
        method, groups = built("maml", **options)
        *_, after = method.trajectory(expand(groups, 3), task.support, 1)
        moved[name] = {n for n, p in after.items() if not torch.equal(p[0], groups["base"][n])}
    assert moved["all"] == set(method.network.params)
    shortcuts = {n for n in moved["all"] if "s." in n}
    assert len(shortcuts) == 4 * 3
    assert moved["shortcuts"] == moved["all"] - shortcuts
    assert moved["body"] == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["mamlpp", "sharp_maml", "boil", "cl"])
def test_no_method_moves_what_the_network_fixes(name):
    cls = registry.method(name)
    network = ResNet12(ResNet12Options(filters=2, shortcuts="fixed"), (3, 16, 16), 3)
    network.name = "resnet12"
    method, task = cls(cls.Options(), network, "classification"), images(channels=3)
    groups = leaves(method.init(0), CPU, torch.float64)
    *_, after = method.trajectory(expand(groups, 3), task.support, 1)
    assert any(
        not torch.equal(after[n][0], after[n][1]) for n in ("conv1a.weight", "conv4c.weight")
    )
    assert all(torch.equal(after[n][0], after[n][1]) for n in network.params if "s." in n)


def test_parameters_are_those_of_the_papers_code():
    whole, without = (
        ResNet12(ResNet12Options(last_skip=skip), (3, 32, 32), 5) for skip in (True, False)
    )
    assert count(whole.params) == 7_999_365
    assert count(without.params) == 7_999_365 - LAST_SKIP
    assert whole.feature_shape == (512, 2, 2)
    assert count(whole.colearner(2).params) == 2 * (9 * 512 * 512 + 2 * 512) + 5 * 513
    with pytest.raises(UserError, match="16x16"):
        ResNet12(ResNet12Options(), (3, 12, 12), 5)


def resolved(protocol: str, method: str = "maml"):
    content = {
        "study": "t",
        "seeds": 1,
        "experiments": {
            "e": {
                "data": "glyphs",
                "network": "resnet12",
                "shots": [1],
                "query": 5,
                "protocol": protocol,
                "evaluation": {"query": 5},
                "methods": {method: {}},
            }
        },
    }
    return resolve(parse(content, "test"), "test").json_values()["runs"][0]["spec"]


def test_presets_have_boils_row_for_this_network():
    official, clean, matched = (resolved(p) for p in ("official", "clean", "matched"))
    assert (official["options"]["inner_lr"], official["protocol"]["outer_lr"]) == (0.3, 6e-4)
    assert official["network"]["options"]["shortcuts"] == "fixed"
    assert (clean["options"]["inner_lr"], clean["network"]["options"]["shortcuts"]) == (
        0.3,
        "adapted",
    )
    assert (matched["options"]["inner_lr"], matched["protocol"]["outer_lr"]) == (0.5, 1e-3)
    assert official["protocol"]["optimizer_reset_every"] == 100
    assert resolved("official", "boil+cml")["options"]["inner_lr"] == 0.3
    assert resolved("official", "sharp_maml")["protocol"]["outer_lr"] == 1e-3, (
        "a method with a code of its own"
    )
