"""Small graphs in float64, and G-Meta and AMM-GNN written plainly on them.

The reference works on dense matrices, one task and one node at a time, with torch's autograd
throughout. It shares only the tasks and the masks with the package.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from cml_bench import registry
from cml_bench.data.episodes import Episodes, Task
from cml_bench.data.graphs import GraphArrays, GraphSet
from cml_bench.engine.step import MetaStep, adam, leaves
from cml_bench.networks.gcn import GCN, GCNOptions
from tests.helpers.cases import CPU, random

METHODS = ("gmeta", "amm_gnn")


class Piece(GraphSet):
    """A data set made of a graph given as arrays."""

    name, subgraph, smallest_class = "piece", 10.0, 5

    def __init__(
        self, edges: np.ndarray, features: np.ndarray, labels: np.ndarray, dtype=torch.float64
    ):
        classes = len(np.unique(labels))
        self.split_sizes = (classes - 4, 2, 2)
        self.nodes, self.features, self.edges = len(labels), features.shape[1], edges.shape[1] // 2
        self.given = edges, features, labels
        self.smallest_class = int(np.bincount(labels).min())
        super().__init__(self.Options(split="r0"))
        self.attach(self.build({}), CPU, dtype)

    def graph(self, paths):
        return self.given


@cache
def small(dtype=torch.float64, classes=6) -> Piece:
    """A graph of 14 nodes in each class, some of them without a link.

    It has 20 real features, some of which are negative.
    """
    labels = np.repeat(np.arange(classes), 14)
    nodes = len(labels)
    chance = random(nodes, nodes, name="links").numpy()
    linked = np.triu(chance < np.where(labels[:, None] == labels, 0.12, 0.02), 1)
    linked[:, ::9] = linked[::9] = False
    words = random(nodes, 20, name="words").numpy()
    features = np.where(words < 0.3, words * 4 - 0.4, 0.0)
    return Piece(np.stack(np.nonzero(linked | linked.T)), features, labels, dtype)


class Case:
    """A method on the small graph with perturbed parameters."""

    def __init__(
        self,
        name="gmeta+cml",
        path="fast",
        data=None,
        way=2,
        gamma=0.7,
        network=None,
        seed=3,
        cml=None,
        dtype=torch.float64,
        **options,
    ):
        cls = registry.method(name)
        self.data, self.name, self.gamma = data or small(dtype), name, gamma
        given = GCNOptions.read({"hidden": 5, **cls.network_defaults, **(network or {})}, "gcn")
        self.network = GCN(given, self.data.input_shape, way, path)
        self.network.bind(self.data)
        extra = {"cml": {"gamma": gamma, **(cml or {})}} if "co" in cls.heads else {}
        self.options = cls.Options.read(
            {"inner_lr": 0.3, "inner_steps": 3, **options, **extra}, name
        )
        self.method = cls(self.options, self.network, "classification")
        self.method.seed = 11
        self.groups = leaves(self.method.init(seed), CPU, dtype)

    def task(self, first=0, count=1, way=2, shot=2, query=4) -> Task:
        return Episodes(self.data, "train", way, shot, query, seed=1).batch(first, count)

    def step(self, lr=1e-3, tasks_at_once=1) -> MetaStep:
        return MetaStep(self.method, self.groups, adam(self.groups, lr), tasks_at_once)

    def gradient(self, task: Task, tasks_at_once=1):
        scores = self.step(tasks_at_once=tasks_at_once).gradients(task)
        grads = {
            (g, n): torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for g, params in self.groups.items()
            for n, p in params.items()
        }
        return scores, grads

    def wanted(self, task: Task):
        return reference_gradient(self, task)


# -- the reference


def matrices(arrays: GraphArrays, width: int):
    """The dense matrices D^-1 (A + I) and X."""
    n = len(arrays.labels)
    a, x = torch.eye(n, dtype=torch.float64), torch.zeros(n, width, dtype=torch.float64)
    for i in range(n):
        for j in arrays.indices[arrays.indptr[i] : arrays.indptr[i + 1]]:
            a[i, j] += 1
        part = slice(arrays.feature_indptr[i], arrays.feature_indptr[i + 1])
        for j, value in zip(arrays.feature_indices[part], arrays.feature_values[part], strict=True):
            x[i, j] = float(value)
    return a / a.sum(1, keepdim=True), x


def two_hops(a: torch.Tensor, node: int) -> list[int]:
    return sorted(set(((a @ a)[node] > 0).nonzero().ravel().tolist()))


def layers(a, x, p, mask=None):
    hidden = torch.relu(a @ x @ p["gcn1.weight"] + p["gcn1.bias"])
    hidden = hidden if mask is None else hidden * mask
    return a @ hidden @ p["gcn2.weight"] + p["gcn2.bias"]


def embeddings(name, a, x, p, nodes, mask=None):
    """Embeddings (n, hidden) of the nodes.

    AMM-GNN's are rows of the whole graph. G-Meta's are means over subgraphs; the subgraphs' masks
    are stacked in ``mask``.
    """
    if name.startswith("amm_gnn"):
        return layers(a, x, p, mask)[nodes]
    means, first = [], 0
    for node in nodes:
        s = two_hops(a, node)
        part = None if mask is None else mask[first : first + len(s)]
        means.append(layers(a[s][:, s], x[s], p, part).mean(0))
        first += len(s)
    return torch.stack(means)


def linear(p, name, z):
    return F.linear(z, p[f"{name}.weight"], p[f"{name}.bias"])


def masks(case: Case, a, nodes, step: int):
    """The dropout factors of one support pass, as the package draws them."""
    from cml_bench import seeding
    from cml_bench.networks._sparse import Dropout

    if not case.options.dropout:
        return None
    rows = len(a) if case.name.startswith("amm") else sum(len(two_hops(a, node)) for node in nodes)
    key = seeding.key("dropout", case.method.seed, case.method._outer_step, step, nodes)
    return Dropout(case.options.dropout, (key,)).mask(
        0, rows, a[:, : case.network.feature_shape[0]]
    )


def one_task(case: Case, base, phi, support, query, labels_s, labels_q):
    """The outer loss of one task, a scalar."""
    name, o = case.name, case.options
    a, x = matrices(case.data.arrays, case.data.features)
    extra, scale = 0.0, torch.ones(x.shape[1], dtype=x.dtype)
    if name.startswith("amm_gnn"):
        v1, v2 = (x[list(s)] for s in case.method.sets(np.array(support + query)))
        a1, a2 = (v.T @ base["alpha.weight"] + base["alpha.bias"] for v in (v1, v2))
        b1, b2 = (v.T @ base["beta.weight"] + base["beta.bias"] for v in (v1, v2))
        cosine = lambda u, v: (u @ v) / (u.norm() * v.norm())  # noqa: E731
        extra = -o.regulariser * (cosine(a1, a2) + cosine(b1, b2))
        scale = 1 + o.scale * (a1 + a2) / 2
    w = {n: p for n, p in base.items() if not n.startswith(("alpha", "beta"))}
    for step in range(o.inner_steps):
        here = {n: p.detach().requires_grad_() for n, p in w.items()}
        z = embeddings(name, a, (x * scale).detach(), here, support, masks(case, a, support, step))
        grads = torch.autograd.grad(
            F.cross_entropy(linear(here, "head", z), labels_s), list(here.values())
        )
        w = {n: p - o.inner_lr * g for (n, p), g in zip(w.items(), grads, strict=True)}
    z = embeddings(name, a, x * scale, w, query)
    loss = F.cross_entropy(linear(w, "head", z), labels_q) + extra
    if phi:
        hidden = torch.relu(linear(phi, "hidden1", z))
        loss = loss + case.gamma * F.cross_entropy(linear(phi, "head", hidden), labels_q)
    return loss


def reference_gradient(case: Case, task: Task) -> dict:
    groups = {
        g: {n: p.detach().clone().requires_grad_() for n, p in ps.items()}
        for g, ps in case.groups.items()
    }
    losses = [
        one_task(
            case,
            groups["base"],
            groups.get("co"),
            *(e.x[t].tolist() for e in task),
            *(e.y[t] for e in task),
        )
        for t in range(len(task))
    ]
    names = [(g, n) for g, ps in groups.items() for n in ps]
    grads = torch.autograd.grad(
        sum(losses) / len(losses),
        [groups[g][n] for g, n in names],
        materialize_grads=True,
        allow_unused=True,
    )
    return dict(zip(names, grads, strict=True))


def largest(got: dict, want: dict) -> float:
    """The largest difference, each tensor's as a share of its largest entry."""
    return max(
        float((got[k] - want[k]).abs().max() / want[k].abs().max().clamp_min(1e-9)) for k in want
    )


BOTH = [*METHODS, *(f"{name}+cml" for name in METHODS)]
