"""What is measured: workloads, implementations, targets. Imports no torch."""

from dataclasses import dataclass, replace
from typing import Any

WAY = "learn2learn's way"  # what ratios are against
RATES = "convolutions alone"
PROFILED = (WAY, "engine, plain", "engine, fast")  # in workloads of images
_HERE, _OURS, _PEERS = "benchmarks.restated", "benchmarks.ours", "benchmarks.peers.steps"

# Name: (module, class, the package that it needs from the peers' environment).
IMPLEMENTATIONS: dict[str, tuple[str, str, str | None]] = {
    "official way": (_HERE, "Official", None),
    WAY: (_HERE, "LearnToLearn", None),
    "plain loop": (_HERE, "PlainLoop", None),
    "learn2learn": (_PEERS, "LearnToLearnPackage", "learn2learn"),
    "higher": (_PEERS, "Higher", "higher"),
    "torchopt": (_PEERS, "TorchOpt", "torchopt"),
    "engine, plain": (_OURS, "PlainEngine", None),
    "engine, fast": (_OURS, "Engine", None),
    "engine, fast, task by task": (_OURS, "TaskByTask", None),
    "engine, fast, four at once": (_OURS, "FourAtOnce", None),
    "engine, compiled": (_OURS, "CompiledEngine", None),
    "engine, many seeds": (_OURS, "SeedsEngine", None),
    "episodes": (_OURS, "Draws", None),
    "episodes with images": (_OURS, "Pixels", None),
    RATES: ("benchmarks.limit", "Rates", None),
}
PACKAGES = ("learn2learn", "higher", "torchopt")


@dataclass(frozen=True)
class Workload:
    """What is measured together. ``problem``: fields of :class:`benchmarks.problem.Problem`.

    A call of ``work`` does ``units`` times the ``unit``.
    """

    name: str
    problem: dict[str, Any]
    implementations: tuple[str, ...]
    work: str = "step"  # or evaluate, draw
    unit: str = "meta-step"
    units: int = 1
    block_seconds: float = 1.0  # a block is as many calls as take so long, at least one
    rounds: int = 1  # of each repeat: more where blocks are short
    limit: bool = False  # whether the FLOP limit is measured with it
    threads: int = 1

    def quick(self) -> "Workload":
        """The same at a size that only tries the harness."""
        small = {"size": 16, "filters": 4, "query": 2} if self.problem.get("size") else {}
        fewer = {"tasks": min(2, self.problem["tasks"])} if "tasks" in self.problem else {}
        left_out = {"engine, compiled", "engine, many seeds", "plain loop", "learn2learn", "higher"}
        kept = tuple(name for name in self.implementations if name not in left_out)
        return replace(
            self, problem=self.problem | small | fewer, implementations=kept, block_seconds=0.0
        )


_SINUSOID = {"seeds": 5, "tasks": 25, "way": 1, "shot": 10, "query": 10, "inner_lr": 0.01}
_MINI = {"size": 84, "tasks": 4}
_SHAPES = {  # the specification's (a), (b), (c)
    "5-shot, 1 step": {"shot": 5},
    "1-shot, 1 step": {"shot": 1},
    "1-shot, 5 steps": {"shot": 1, "inner_steps": 5},
}
_BASIC = ("official way", WAY, "engine, plain", "engine, fast")


def _images() -> list[Workload]:
    workloads = []
    for method, title in (("maml", "MAML"), ("maml+cml", "MAML+CML")):
        for shape, fields in _SHAPES.items():
            more = PACKAGES if method == "maml" and shape != "1-shot, 5 steps" else ()
            more += ("engine, fast, four at once",) if more else ()
            name = f"Conv4-64 84x84 {shape}, {title}"
            problem = _MINI | fields | {"method": method}
            workloads.append(
                Workload(name, problem, (*_BASIC, *more), limit=True, block_seconds=0.0)
            )
    return workloads


WORKLOADS = [
    Workload(
        "sinusoid, 25 tasks, MAML",
        _SINUSOID,
        (*_BASIC, *PACKAGES, "plain loop", "engine, compiled", "engine, many seeds"),
        rounds=3,
    ),
    *_images(),
    Workload(
        "Conv4-64 28x28 1-shot, MAML",
        {"size": 28, "channels": 1, "tasks": 4},
        ("plain loop", *_BASIC, "engine, fast, task by task", "engine, fast, four at once"),
        rounds=3,
        limit=True,
        block_seconds=2.0,
    ),
    Workload(
        "Conv4-64 28x28 1-shot, MAML+CML",
        {"size": 28, "channels": 1, "tasks": 4, "method": "maml+cml"},
        ("plain loop", *_BASIC),
        rounds=3,
        limit=True,
        block_seconds=2.0,
    ),
    Workload(
        "evaluation, Conv4-64 84x84 5-shot",
        _MINI | {"shot": 5},
        ("official way", WAY, "learn2learn", "higher", "engine, fast"),
        work="evaluate",
        unit="task",
        units=4,
    ),
    Workload(
        "episodes, 5-way 5-shot", {"shot": 5}, ("episodes",), work="draw", unit="episode", units=256
    ),
    Workload(
        "episodes with 28x28 images, 5-way 5-shot",
        {"shot": 5, "size": 28, "channels": 1, "tasks": 4},
        ("episodes with images",),
        work="draw",
        unit="episode",
        units=4,
    ),
    Workload(
        "episodes with 84x84 images, 5-way 5-shot",
        {"shot": 5, "size": 84, "tasks": 4},
        ("episodes with images",),
        work="draw",
        unit="episode",
        units=4,
    ),
]
QUICK = {
    WORKLOADS[0].name,
    "Conv4-64 28x28 1-shot, MAML+CML",
    *(w.name for w in WORKLOADS if w.work != "step"),
}


@dataclass(frozen=True)
class Target:
    """The ``key`` in the row of ``implementation`` must reach ``floor``, and should reach ``aim``.

    ``beside``: an implementation and the number that it had on the machine on which the target was
    set. What is measured is then scaled so that this implementation has this number.
    """

    title: str
    workloads: tuple[str, ...]
    key: str
    floor: float
    aim: float
    implementation: str = "engine, fast"
    beside: tuple[str, float] | None = None

    @property
    def more(self) -> bool:
        """Whether more is better."""
        return self.aim > self.floor

    def value(self, rows: list[dict[str, Any]]) -> float | None:
        """The worst value over the target's workloads; None if one of them is not measured."""
        values = {(row["workload"], row["implementation"]): row.get(self.key) for row in rows}
        reached = [values.get((workload, self.implementation)) for workload in self.workloads]
        units = [
            self.beside and values.get((workload, self.beside[0])) for workload in self.workloads
        ]
        if None in reached or (self.beside and None in units):
            return None
        if self.beside:
            reached = [
                value / unit * self.beside[1] for value, unit in zip(reached, units, strict=True)
            ]
        return (min if self.more else max)(reached)


def _mini(shape: str, *titles: str) -> tuple[str, ...]:
    return tuple(f"Conv4-64 84x84 {shape}, {title}" for title in titles)


_BOTH = ("MAML", "MAML+CML")
TARGETS = [
    *(
        Target(
            f"sinusoid, 25 tasks, {title}: times faster",
            ("sinusoid, 25 tasks, MAML",),
            "times_faster",
            *reach,
            name,
        )
        for title, reach, name in (
            ("operation by operation", (10, 13), "engine, fast"),
            ("compiled", (40, 50), "engine, compiled"),
            ("compiled, many seeds", (60, 100), "engine, many seeds"),
        )
    ),
    Target(
        "Conv4-64 84x84 5-shot: times faster",
        _mini("5-shot, 1 step", *_BOTH),
        "times_faster",
        1.6,
        2.5,
    ),
    Target(
        "Conv4-64 84x84 1-shot: times faster",
        (*_mini("1-shot, 1 step", *_BOTH), *_mini("1-shot, 5 steps", *_BOTH)),
        "times_faster",
        1.4,
        2.2,
    ),
    Target(
        "Conv4-64 84x84: multiple of the FLOP limit",
        tuple(name for shape in _SHAPES for name in _mini(shape, *_BOTH)),
        "limit_multiple",
        2.1,
        1.4,
    ),
    *(
        Target(
            f"Conv4-64 28x28 1-shot: core-seconds per meta-step{where}",
            ("Conv4-64 28x28 1-shot, MAML",),
            "processor",
            0.35,
            0.2,
            beside=beside,
        )
        for where, beside in (("", None), (", where a plain loop takes 0.54", ("plain loop", 0.54)))
    ),
    Target(
        "evaluation: times faster", ("evaluation, Conv4-64 84x84 5-shot",), "times_faster", 1.5, 2.5
    ),
    Target(
        "Conv4-64 84x84: peak memory, share of the official way's",
        tuple(name for shape in _SHAPES for name in _mini(shape, *_BOTH)),
        "memory_share",
        0.5,
        0.35,
    ),
    Target(
        "Conv4-64 28x28: peak memory, share of the official way's",
        ("Conv4-64 28x28 1-shot, MAML", "Conv4-64 28x28 1-shot, MAML+CML"),
        "memory_share",
        0.5,
        0.35,
    ),
    Target(
        "episodes drawn per second",
        ("episodes, 5-way 5-shot",),
        "per_second",
        5_000,
        20_000,
        "episodes",
    ),
]
