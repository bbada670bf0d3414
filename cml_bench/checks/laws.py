"""The laws. Each is a function that raises :class:`Broken`, with a sentence, where it fails."""

import math
from collections.abc import Callable
from pathlib import Path

import torch

from cml_bench import seeding
from cml_bench.checks.subject import CPU, Gradients, Subject
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import SPLITS, Task
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import expand, leaves
from cml_bench.registry import CML

Make = Callable[..., Subject]  # Subject of a method's name, with further arguments
_EQUAL = 1e-8  # of float64: far above rounding, far below any mistake
_SLOPE, _WIDTHS = 1e-5, (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)  # of finite differences


class Broken(Exception):
    """A law does not hold; the text says where."""


def _must(holds: bool, said: str) -> None:
    if not holds:
        raise Broken(said)


def furthest(got: Gradients, want: Gradients) -> tuple[float, str]:
    """The largest difference as a share of the largest entry of its tensor, and where it is.

    A tensor is measured against at least a ten-thousandth of the largest entry of all, since
    gradients that are zero in exact arithmetic are rounding noise.
    """
    most = max(float(value.abs().max()) for value in want.values())
    least = max(1e-12, 1e-4 * most)
    shares = [
        (float((got[key] - value).abs().max()) / max(float(value.abs().max()), least), key[1])
        for key, value in want.items()
    ]
    return max(shares)


# -- laws of a method on a network


def tasks_do_not_meet(make: Make, name: str) -> None:
    """Tasks in one program have the gradient and the losses that each has alone."""
    subject = make(name)
    task = subject.tasks()
    together, one = subject.gradients(task), subject.gradients(task, tasks_at_once=1)
    share, where = furthest(together[1], one[1])
    _must(share < _EQUAL, f"three tasks at once have another gradient of {where} than one by one")
    for head, losses in together[0].loss.items():
        alike = torch.allclose(losses, one[0].loss[head], rtol=_EQUAL)
        _must(alike, f"three tasks at once have other losses of the head {head} than one by one")


def paths_are_equal(make: Make, name: str) -> None:
    """The fast path computes what the plain one does."""
    plain, fast = make(name), make(name, path="fast")
    task = plain.tasks()
    share, where = furthest(fast.gradients(task)[1], plain.gradients(task)[1])
    _must(share < _EQUAL, f"the paths fast and plain have unlike gradients of {where}")


def gradient_is_exact(make: Make, name: str) -> None:
    """The outer gradient is the slope of the outer loss, second derivatives included."""
    subject = make(name)
    task = subject.tasks()
    _, grads = subject.gradients(task)
    generator = torch.Generator().manual_seed(1)
    direction = {
        key: torch.rand(g.shape, generator=generator, dtype=g.dtype) - 0.5
        for key, g in grads.items()
    }
    want = sum(float((grads[key] * d).sum()) for key, d in direction.items())

    def loss_at(h: float) -> float:
        moved = {
            group: {n: p.detach() + h * direction[group, n] for n, p in params.items()}
            for group, params in subject.groups.items()
        }
        there = expand(leaves(moved, CPU, torch.float64), len(task))
        return subject.method.outer_loss(there, task)[0].mean().item()

    # Several widths: a wide one may step over the kink of a ReLU, and in a deep network it does.
    slopes = []
    for h in _WIDTHS:
        slopes.append((loss_at(h) - loss_at(-h)) / (2 * h))
        if abs(slopes[-1] - want) < _SLOPE * max(1.0, abs(want)):
            return
    slope = min(slopes, key=lambda one: abs(one - want))
    raise Broken(
        f"the outer loss has the slope {slope:.6g} and its gradient says {want:.6g}; if that is"
        " meant, set gradient_is_exact = False in the method's class",
    )


def equals_its_reference(make: Make, name: str) -> None:
    """The mean outer loss and its gradient are those of the method's own plain ``reference``."""
    subject = make(name)
    task, reference = subject.tasks(), subject.method.reference
    assert reference is not None, "it is tried where there is one"
    _, grads = subject.gradients(task)
    losses, _ = subject.method.outer_loss(expand(subject.groups, len(task)), task)
    mean, own_mean = losses.mean().item(), 0.0
    own = {key: torch.zeros_like(value) for key, value in grads.items()}
    names = [(group, name) for group, params in subject.groups.items() for name in params]
    for number in range(len(task)):
        groups = expand(subject.groups, 1)
        loss = reference(groups, task.part(number, number + 1))
        _must(loss.shape == (), f"its reference gives {tuple(loss.shape)} and not one number")
        own_mean += loss.item() / len(task)
        parts = torch.autograd.grad(
            loss, [subject.groups[g][n] for g, n in names], materialize_grads=True
        )
        for key, part in zip(names, parts, strict=True):
            own[key] += part / len(task)
    _must(
        math.isclose(mean, own_mean, rel_tol=_EQUAL, abs_tol=_EQUAL),
        f"its mean outer loss is {mean:.10g} and that of its reference is {own_mean:.10g}",
    )
    share, where = furthest(grads, own)
    _must(share < _EQUAL, f"its outer gradient of {where} is not that of its reference")


def gamma_zero_is_the_baseline(make: Make, name: str) -> None:
    """With gamma 0, x+cml and x have the same parameters after three outer steps, bit for bit."""
    ends = []
    for subject in (make(name), make(name + CML, cml={"gamma": 0.0})):
        subject.groups = leaves(subject.method.init(5), CPU, torch.float64)
        step = subject.step(lr=1e-2)
        for number in range(3):
            subject.method.at_step(number)
            step(subject.tasks(first=3 * number))
        ends.append(subject.groups["base"])
    unlike = [n for n, value in ends[0].items() if not torch.equal(value, ends[1][n])]
    _must(not unlike, f"at gamma 0 the co-learner changes {', '.join(unlike[:3])}")


def phi_stays_apart(make: Make, name: str) -> None:
    """The co-learner takes no part in the adaptation, and can be deleted at test."""
    subject = make(name + CML)
    task, steps = subject.tasks(), subject.method.inner_steps
    groups = expand(subject.groups, len(task))
    method = subject.method
    *_, before = method.trajectory(method.meet(groups, task), task.support, steps)
    whole = score_all(method, [Asked([subject.groups], ("meta",))], task, (steps,))[0]
    alone = {"base": subject.groups["base"]}
    without = score_all(method, [Asked([alone], ("meta",))], task, (steps,))[0]
    same = torch.equal(whole["meta", steps].loss, without["meta", steps].loss)
    _must(same, "its predictions are others when the co-learner is deleted")
    with torch.no_grad():
        for value in subject.groups["co"].values():
            value += 1.0
    groups = expand(subject.groups, len(task))
    *_, after = method.trajectory(method.meet(groups, task), task.support, steps)
    unlike = [n for n, value in before.items() if not torch.equal(value, after[n])]
    _must(not unlike, f"the adapted {', '.join(unlike[:3])} depend on the co-learner")


# -- laws of a network


def shapes_are_told(make: Make, name: str) -> None:
    """Features and outputs have the shapes that the network names, and theta is the head's."""
    subject = make(name)
    net, task = subject.method.network, subject.tasks()
    names = {*net.params}
    _must(names > net.head_names > set(), "head_names must be some of its params, not all or none")
    strange = (net.norm_names | net.fixed_names) - names
    _must(not strange, f"norm_names or fixed_names has {min(strange, default='')}, no parameter")
    method = subject.method
    groups = method.meet(expand(subject.groups, len(task)), task)
    features = method.features(groups, groups["base"], task.query.x)
    wanted = (*task.query.x.shape[:2], *net.feature_shape)
    _must(tuple(features.shape) == wanted, f"features are {tuple(features.shape)}, not {wanted}")
    outputs = tuple(net.head(groups["base"], features).shape)
    wanted = (*task.query.x.shape[:2], net.outputs)
    _must(outputs == wanted, f"outputs of the head are {outputs}, not {wanted}")


def colearner_has_any_depth(make: Make, name: str) -> None:
    """A co-learner of depth 0, 1 and the network's own has outputs, and all of it learns."""
    for depth in sorted({0, 1, make(name).method.network.colearner_depth}):
        subject = make(name, cml={"gamma": 1.0, "depth": depth})
        scores, grads = subject.gradients(subject.tasks())
        _must(bool(scores.loss["co"].isfinite().all()), f"at depth {depth} the co-learner fails")
        still = [key[1] for key, g in grads.items() if key[0] == "co" and not (g != 0).any()]
        # What stands in front of a normalisation may have no gradient, as a bias does.
        still = [n for n in still if not n.endswith("bias")]
        _must(not still, f"at depth {depth} the co-learner's {', '.join(still[:3])} never learns")


# -- laws of a data set


def episodes_follow_from_their_number(data: DataSet, way: int) -> None:
    """Task i is the same whatever is drawn beside it, and other tasks are others."""
    for split in SPLITS:
        many, one, other = (_drawn(data, split, way, *which) for which in ((0, 4), (2, 1), (3, 1)))
        pairs = list(zip(one, many.part(2, 3), strict=True))
        same = all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in pairs)
        _must(same, f"task 2 of {split} depends on what is drawn beside it, or before it")
        _must(not torch.equal(one.query.x, other.query.x), f"tasks 2 and 3 of {split} are the same")


def _drawn(data: DataSet, split: str, way: int, first: int, count: int) -> Task:
    data.check(split, way, 1, 2)
    drawn = data.draw(seeding.key("check", split), split, first, count, way, 1, 2)
    return data.tasks(drawn, slice(0, count))


def examples_have_their_shape(data: DataSet, way: int) -> None:
    """Inputs are finite and of ``input_shape``, pixels within [0, 1], each class as often."""
    for split in SPLITS:
        for (x, y), each in zip(_drawn(data, split, way, 0, 2), (1, 2), strict=True):
            if data.gives is None:
                shape = tuple(x.shape[2:])
                _must(shape == tuple(data.input_shape), f"inputs of {split} are {shape}")
                _must(bool(x.isfinite().all()), f"inputs of {split} are not finite")
            if x.dim() == 5:
                low, high = float(x.min()), float(x.max())
                _must(0 <= low <= high <= 1, f"pixels of {split} go from {low:g} to {high:g}")
            if data.kind == "classification":
                labels = torch.arange(way).repeat_interleave(each).expand(2, -1)
                _must(torch.equal(y, labels), f"labels of {split} are not 0, 1, ... class by class")


def preparing_twice_is_the_same(data: DataSet, folder: Path) -> None:
    """Generated data has the same digest each time it is made."""
    again = type(data)(data.options)
    again.prepare(folder)
    digest = again.open(folder, CPU, torch.float64).sha256
    _must(digest == data.sha256, "prepared twice, its digests differ: draw from cml_bench.seeding")
