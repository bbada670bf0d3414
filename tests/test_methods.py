"""Every method and its +CML version against the obvious loop, and laws of every method. float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine import compiled, seeds
from cml_bench.engine.compiled import CompiledStep
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import MetaStep, expand, leaves
from tests.helpers import reference
from tests.helpers.cases import CPU, Case, follow, images, random, relative, values, waves
from tests.helpers.reference_methods import STATES

# Methods for one kind of data, such as those on graphs, have test files of their own.
NAMES = [
    n
    for n in registry.method_names()
    if registry.method(n).learns and registry.method(n).needs is None
]
BASES = [name for name in NAMES if f"{name}+cml" in NAMES]
# Large radii: at the released 5e-4 a mistake would look like rounding.
SHARP = [{"level": level, "rho_low": 0.03, "rho_up": 0.05} for level in ("low", "up", "both")]
# A new method has no reference here until someone writes it.
WITH_REFERENCE = [name for name in NAMES if name.removesuffix("+cml") in STATES]
EXACT = [
    name
    for name in NAMES
    if registry.method(name).gradient_is_exact and not registry.method(name).needs_classes
]
REPTILE = [
    {"inner_batch": 4},
    {"inner_batch": 4, "inner_optimizer": "adam", "inner_lr": 0.01},
    {"trained_on": "support"},
]
VARIANTS = [(name, {}) for name in WITH_REFERENCE if not name.startswith("sharp")] + [
    (name, options) for name in WITH_REFERENCE if name.startswith("sharp") for options in SHARP
]
VARIANTS += [("maml+cml", {"inner_momentum": 0.8}), *(("reptile", o) for o in REPTILE)]
# With first derivatives alone, and with all; FOMAML has first derivatives only.
ORDERS = [
    (name, options, first_order)
    for name, options in VARIANTS
    for first_order in (False, True)
    if first_order or not name.startswith("fomaml")
]
NETS = [("conv4", "plain"), ("conv4", "fast"), ("mlp", "fast")]


def shown(value) -> str | None:
    """A part of a case's name."""
    return value.get("level", "") if isinstance(value, dict) else None


def task_for(net: str, **kwargs) -> Task:
    return images(**kwargs) if net == "conv4" else waves(**kwargs)


def test_the_papers_methods_are_there_and_have_a_reference():
    want = {"maml", "fomaml", "mamlpp", "boil", "sharp_maml", "more_maml"}
    assert want | {f"{name}+cml" for name in want} | {"cl"} <= set(WITH_REFERENCE)
    assert "cl+cml" not in NAMES


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(("net", "path"), NETS)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=shown)
def test_the_engines_outer_gradient_is_the_obvious_loops(name, options, net, path, steps):
    case = Case(name, net, path, inner_steps=steps, **options)
    task = task_for(net)
    assert relative(case.received(task), case.wanted(task)) < 1e-10


@pytest.mark.parametrize(("net", "path"), NETS)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=shown)
def test_in_first_order_too(name, options, net, path):
    case, task = Case(name, net, path, inner_steps=2, first_order=True, **options), task_for(net)
    assert relative(case.received(task), case.wanted(task)) < 1e-10


# What each method's gradient is when compiled has a test below; that several steps follow each
# other is the engine's work. MAML++ has a program for each phase, Sharp-MAML an outer step of its
# own.
STEPPED = [
    (*order, net, path)
    for order in ORDERS
    for net, path in [*NETS, ("mlp", "compiled")]
    if path != "compiled" or order[0] in ("maml+cml", "mamlpp+cml", "sharp_maml+cml")
]


@pytest.mark.parametrize(
    ("name", "options", "first_order", "net", "path"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[-1] == "compiled" else ())
        for case in STEPPED
    ],
    ids=shown,
)
def test_adam_steps_are_the_obvious_loops(name, options, net, path, first_order, monkeypatch):
    """The loop has its own parameters, gradients and Adam; MAML++ goes through its schedules.

    A compiled step is traced and interpreted.
    """
    monkeypatch.setattr(compiled, "compiled", lambda graph, arguments: graph)
    made = CompiledStep if path == "compiled" else MetaStep
    if mamlpp := name.startswith("mamlpp"):
        options = {"epoch_steps": 2, "msl_epochs": 3, "first_order_to_second_order_epoch": 1}
    path = path.replace("compiled", "fast")
    ours, theirs = (
        Case(name, net, path, inner_steps=2, first_order=first_order, **options) for _ in range(2)
    )
    step, by_hand = ours.step(made=made), reference.Adam()
    for number in range(8 if mamlpp else 3):
        task = task_for(net, name=f"step {number}")
        ours.method.at_step(number)
        step(task)
        follow(
            theirs.groups,
            by_hand,
            theirs.wanted(task, **({"epoch": number // 2} if mamlpp else {})),
        )
    assert relative(values(ours.groups), values(theirs.groups)) < 1e-8


@pytest.mark.parametrize("options", [{"adapt_norm": True}])
@pytest.mark.parametrize("level", SHARP, ids=lambda v: v["level"])
def test_sharp_maml_with_adapted_norm(level, options):
    case, task = Case("sharp_maml+cml", inner_steps=2, **level, **options), images()
    assert relative(case.received(task), case.wanted(task)) < 1e-10


@pytest.mark.parametrize(("name", "options", "first_order"), ORDERS, ids=shown)
def test_what_is_compiled_is_the_obvious_loop(name, options, first_order, monkeypatch):
    """The traced computation is interpreted; compiled programs are tested in test_compiled.py."""
    monkeypatch.setattr(compiled, "compiled", lambda graph, arguments: graph)
    case, task = Case(name, "mlp", inner_steps=2, first_order=first_order, **options), waves()
    assert relative(case.received(task, made=compiled.CompiledStep), case.wanted(task)) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first_order"), [(name, first) for name, _, first in ORDERS if "sharp" not in name]
)
def test_what_is_made_of_seeds_is_each_ones_obvious_loop(name, first_order, monkeypatch):
    """The graph over seeds is interpreted: each seed has its own parameters and tasks."""
    monkeypatch.setattr(seeds, "compiled", lambda graph, arguments: graph)
    cases = [Case(name, "mlp", inner_steps=2, first_order=first_order) for _ in range(2)]
    tasks = [waves(name=f"wave {seed}") for seed in range(2)]
    with torch.no_grad():
        for params in cases[1].groups.values():
            for p in params.values():
                p.mul_(0.9)
    each = [
        [
            *(p.detach() for ps in case.groups.values() for p in ps.values()),
            *task.support,
            *task.query,
        ]
        for case, task in zip(cases, tasks, strict=True)
    ]
    with torch.no_grad():
        arguments = [torch.stack(parts) for parts in zip(*each, strict=True)]
        graph = cases[0].step(made=CompiledStep).traced(each[0])
        grads = seeds._over_seeds(graph, arguments)(*arguments)
    for seed, (case, task) in enumerate(zip(cases, tasks, strict=True)):
        names = [(group, key) for group, params in case.groups.items() for key in params]
        got = {key: grad[seed] for key, grad in zip(names, grads, strict=False)}
        assert relative(got, case.wanted(task)) < 1e-10


@pytest.mark.parametrize(
    "options", [{}, {"first_order": True}, {"first_order_to_second_order_epoch": 7}]
)
@pytest.mark.parametrize("epoch", [0, 7, 8, 14, 15, 20])
def test_mamlpp_in_every_phase_of_its_schedules(epoch, options):
    case, task = Case("mamlpp+cml", inner_steps=3, epoch_steps=10, **options), images()
    case.method.at_step(10 * epoch + 3)
    assert relative(case.received(task), case.wanted(task, epoch=epoch)) < 1e-10


@settings(max_examples=12, derandomize=True, deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    way=st.integers(2, 4),
    shot=st.integers(1, 2),
    query=st.integers(1, 3),
    tasks=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([16, 21]),
    at_once=st.integers(1, 4),
    path=st.sampled_from(["plain", "fast"]),
    slope=st.sampled_from([0.0, 0.01]),
)
def test_and_for_any_shape(variant, way, shot, query, tasks, channels, size, at_once, path, slope):
    name, options = variant
    case = Case(
        name,
        path=path,
        way=way,
        channels=channels,
        size=size,
        filters=3,
        network={"slope": slope},
        inner_steps=2,
        **options,
    )
    task = images(tasks, way, shot, query, channels, size)
    # 1e-8: a radius divided by a small gradient's norm magnifies rounding.
    assert relative(case.received(task, at_once), case.wanted(task)) < (1e-8 if options else 1e-10)


@pytest.mark.parametrize("name", [n for n in EXACT if not n.startswith("fomaml")])
def test_finite_differences_on_a_smooth_network(name):
    """It is the outer loss that is tested; Sharp-MAML's outer level has tests of its own."""
    case, task = Case(name, "mlp", activation="tanh", inner_steps=2), waves()
    _, grads = case.engine_gradient(task)
    direction = {key: random(*g.shape, name=str(key)) - 0.5 for key, g in grads.items()}

    def loss_at(h: float) -> float:
        there = {
            g: {n: p.detach() + h * direction[g, n] for n, p in ps.items()}
            for g, ps in case.groups.items()
        }
        there = leaves(there, CPU, torch.float64)
        return case.method.outer_loss(expand(there, 3), task)[0].mean().item()

    h = 1e-5
    slope, want = (
        (loss_at(h) - loss_at(-h)) / (2 * h),
        sum(float((grads[k] * d).sum()) for k, d in direction.items()),
    )
    assert abs(slope - want) < 1e-7 * max(1, abs(want))


@pytest.mark.parametrize(("net", "path"), NETS)
@pytest.mark.parametrize("name", BASES)
def test_gamma_zero_leaves_the_baselines_trajectory_bit_for_bit(name, net, path):
    """In float32, as runs are trained: every method x against x+cml."""
    runs = []
    for method in (name, f"{name}+cml"):
        case = Case(method, net, path, gamma=0.0, inner_steps=2)
        case.groups = leaves(case.method.init(5), CPU, torch.float32)
        step = case.step()
        for number in range(5):
            task = task_for(net, name=f"s{number}")
            step(
                Task(*(Examples(e.x.float(), e.y if net == "conv4" else e.y.float()) for e in task))
            )
        runs.append(case.groups["base"])
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])


@pytest.mark.parametrize("name", BASES)
def test_the_outer_gradient_is_affine_in_gamma(name):
    """The gradient is taken at equal points; Sharp-MAML's outer level evaluates it twice."""
    grads = [
        Case(f"{name}+cml", gamma=g, inner_steps=2).engine_gradient(images())[1]
        for g in (0.0, 0.5, 1.0)
    ]
    middle = {key: (grads[0][key] + grads[2][key]) / 2 for key in grads[0]}
    assert relative(grads[1], {k: v for k, v in middle.items() if float(v.abs().max()) > 0}) < 1e-9


@pytest.mark.parametrize("name", BASES)
def test_phi_never_adapts_never_sees_support_and_can_be_deleted(name):
    case, task = Case(f"{name}+cml", inner_steps=2), images()
    *_, adapted = case.method.trajectory(expand(case.groups, 3), task.support, 2)
    whole = score_all(case.method, [Asked([case.groups], ("meta",))], task, (2,))[0]
    kept = {"base": case.groups["base"]}
    alone = score_all(case.method, [Asked([kept], ("meta",))], task, (2,))[0]
    assert torch.equal(whole["meta", 2].loss, alone["meta", 2].loss)
    with torch.no_grad():
        for value in case.groups["co"].values():
            value += 1.0
    *_, again = case.method.trajectory(expand(case.groups, 3), task.support, 2)
    assert all(torch.equal(adapted[n], again[n]) for n in adapted)


@pytest.mark.parametrize("name", NAMES)
def test_tasks_do_not_meet(name):
    """Several tasks in one program adapt as each alone."""
    case, task = Case(name, inner_steps=2), images()
    *_, together = case.method.trajectory(expand(case.groups, 3), task.support, 2)
    for t in range(3):
        *_, single = case.method.trajectory(expand(case.groups, 1), task.part(t, t + 1).support, 2)
        for key in single:
            assert torch.allclose(together[key][t], single[key][0], atol=1e-12, rtol=1e-9), key


@pytest.mark.parametrize("name", [*(f"{name}+cml" for name in BASES), "cl"])
def test_what_adapts_alike_adapts_once_and_nothing_else_does(name, monkeypatch):
    """Asked are a second co-learner on the same body (co_unpaired), another body, and another loss.

    The other loss is equation 9, or CL's own.
    """
    case, other, task = Case(name, inner_steps=2), Case(name, inner_steps=2), images()
    with torch.no_grad():
        for params in other.groups.values():
            for p in params.values():
                p.add_(
                    0.1
                    * torch.randn(
                        p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype
                    )
                )
    mixed = {"base": case.groups["base"], "co": other.groups["co"]}
    last = "none" if name == "cl" else "co"
    asked = [
        Asked([case.groups], ("meta", "co")),
        Asked([mixed], ("co",)),
        Asked([other.groups], ("meta", "co")),
        Asked([other.groups], ("co",), last),
        Asked([case.groups, other.groups], ("meta", "co")),
    ]
    alone = [score_all(case.method, [one], task, (1, 2))[0] for one in asked]
    calls, original = [], case.method.trajectory
    monkeypatch.setattr(
        case.method, "trajectory", lambda *args, **more: calls.append(1) or original(*args, **more)
    )
    together = score_all(case.method, asked, task, (1, 2))
    assert len(calls) == (4 if name == "cl" else 3)
    for one, two in zip(alone, together, strict=True):
        assert one.keys() == two.keys()
        assert all(
            torch.equal(a, b) for key in one for a, b in zip(one[key], two[key], strict=True)
        )
    assert not torch.equal(together[0]["co", 2].loss, together[1]["co", 2].loss)
