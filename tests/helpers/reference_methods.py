"""The outer gradient of every method as one would first write it down.

It takes one task, one step and one tensor at a time. It follows the equations of the papers and the
released codes, and is independent of the package, as tests/helpers/reference.py is.
"""

import torch

from tests.helpers.reference import inner_loop, loss_of


def gradient(loss, tensors, create_graph=True):
    return torch.autograd.grad(
        loss, list(tensors.values()), create_graph=create_graph, materialize_grads=True
    )


def is_norm(name):
    return name.startswith("norm")


def is_head(name):
    return name.startswith("head")


# Each function returns one task's [(weight of the query loss, theta', phi')].


def maml(net, theta, phi, x, y, kind, o):
    keep = lambda n: o.adapt_norm or not is_norm(n)  # noqa: E731
    steps = (o.inner_steps, o.inner_lr, o.first_order)
    return [(1.0, inner_loop(net, theta, x, y, kind, *steps, keep, o.inner_momentum), phi)]


def boil(net, theta, phi, x, y, kind, o):
    keep = lambda n: not is_head(n)  # noqa: E731
    return [
        (
            1.0,
            inner_loop(net, theta, x, y, kind, o.inner_steps, o.inner_lr, o.first_order, keep),
            phi,
        )
    ]


def anil(net, theta, phi, x, y, kind, o):
    return [
        (
            1.0,
            inner_loop(net, theta, x, y, kind, o.inner_steps, o.inner_lr, o.first_order, is_head),
            phi,
        )
    ]


def sharp_maml(net, theta, phi, x, y, kind, o):
    """Sharp-MAML's lower level; the upper one is in :func:`outer_gradient`."""
    w = dict(theta)
    for _ in range(o.inner_steps):
        moving = {n: v for n, v in w.items() if o.adapt_norm or not is_norm(n)}
        second = not o.first_order
        g = gradient(loss_of(kind)(net.head(w, net.features(w, x)), y), moving, second)
        radius = 0.0 if o.level == "up" else o.rho_low
        norm = torch.sqrt(sum((v * v).sum() for v in g))
        there = {
            n: v + radius * gv / (norm + 1e-12)
            for (n, v), gv in zip(moving.items(), g, strict=True)
        }
        at = {**w, **there}
        g = gradient(loss_of(kind)(net.head(at, net.features(at, x)), y), there, second)
        w = {**w, **{n: v - o.inner_lr * gv for (n, v), gv in zip(moving.items(), g, strict=True)}}
    return [(1.0, w, phi)]


def mamlpp(net, theta, phi, x, y, kind, o, epoch=0):
    k, weighted = o.inner_steps, []
    if epoch < o.msl_epochs:
        v = [max(1 / k - epoch / (k * o.msl_epochs), 0.03 / k)] * (k - 1)
        v += [min(1 / k + epoch * (k - 1) / (k * o.msl_epochs), 1 - 0.03 * (k - 1) / k)]
    else:
        v = [0.0] * (k - 1) + [1.0]
    second = not o.first_order and epoch > o.first_order_to_second_order_epoch
    w = {n: p for n, p in theta.items() if not n.endswith("inner_lr") and not is_norm(n)}
    for j in range(k):
        rows = {n: p[j] for n, p in theta.items() if is_norm(n) and not n.endswith("inner_lr")}
        at = {**w, **rows}
        g = gradient(loss_of(kind)(net.head(at, net.features(at, x)), y), w, second)
        w = {n: p - theta[f"{n}.inner_lr"][j] * gv for (n, p), gv in zip(w.items(), g, strict=True)}
        weighted.append((v[j], {**w, **rows}, phi))
    return weighted


def metasgd(net, theta, phi, x, y, kind, o):
    w = {n: p for n, p in theta.items() if not n.endswith(".inner_lr")}
    for _ in range(o.inner_steps):
        moving = {n: p for n, p in w.items() if o.adapt_norm or not is_norm(n)}
        g = gradient(loss_of(kind)(net.head(w, net.features(w, x)), y), moving, not o.first_order)
        steps = {n: theta[f"{n}.inner_lr"] * gv for n, gv in zip(moving, g, strict=True)}
        w = {n: p - steps[n] if n in steps else p for n, p in w.items()}
    return [(1.0, w, phi)]


def cl(net, theta, phi, x, y, kind, o, depth=None):
    a, b = dict(theta), dict(phi)
    for _ in range(o.inner_steps):
        z = net.features(a, x)
        loss = loss_of(kind)(net.head(a, z), y) + o.inner_gamma * loss_of(kind)(
            net.co(b, z, depth), y
        )
        both = {("a", n): p for n, p in a.items()} | {("b", n): p for n, p in b.items()}
        g = dict(zip(both, gradient(loss, both, not o.first_order), strict=True))
        a = {n: p - o.inner_lr * g["a", n] for n, p in a.items()}
        b = {n: p - o.inner_lr * g["b", n] for n, p in b.items()}
    return [(1.0, a, b)]


def minibatches(y, size, kind):
    """Rows of each minibatch: the first example of each class, the second of each, and so on."""
    rows, met = list(range(len(y))), {}
    if kind == "classification":
        for i in rows:
            met.setdefault(int(y[i]), []).append(i)
        rows = [i for turn in zip(*met.values(), strict=True) for i in turn]
    count = -(-len(rows) // size) if size else 1
    less, more = divmod(len(rows), count)
    out = []
    for number in range(count):
        length = less + (number < more)
        out, rows = [*out, rows[:length]], rows[length:]
    return out


def reptile(net, theta, phi, x, y, kind, o):
    """Minibatches without end; Adam without a mean of gradients, or plain steps."""
    w, square = dict(theta), {}
    batches = minibatches(y, o.inner_batch, kind)
    for j in range(o.inner_steps):
        rows = batches[j % len(batches)]
        moving = {n: v for n, v in w.items() if o.adapt_norm or not is_norm(n)}
        g = gradient(loss_of(kind)(net.head(w, net.features(w, x[rows])), y[rows]), moving, False)
        for n, gv in zip(moving, g, strict=True):
            if o.inner_optimizer == "adam":
                square[n] = 0.999 * square.get(n, 0) + 0.001 * gv * gv
                gv = gv / (torch.sqrt(square[n] / (1 - 0.999 ** (j + 1))) + 1e-8)
            w[n] = w[n] - o.inner_lr * gv
    return [(1.0, w, phi)]


def modulated(theta, c):
    """Of a normalised network gamma * norm(x) + beta, the third norm; of another (x, c) as inputs.

    The third is that of Conv4's third block, and the last one of ResNet-12's first block.
    """
    out = theta["film.weight"] @ c
    third = next((n for n in ("norm3", "norm1c") if f"{n}.weight" in theta), None)
    if third is None:
        return {**theta, "hidden1.bias": theta["hidden1.bias"] + out}
    out = out + theta["film.bias"]
    gamma, beta = out[: len(out) // 2], out[len(out) // 2 :]
    scale, shift = theta[f"{third}.weight"] * gamma, theta[f"{third}.bias"] * gamma + beta
    return {**theta, f"{third}.weight": scale, f"{third}.bias": shift}


def cavia(net, theta, phi, x, y, kind, o):
    c = torch.zeros(o.context, dtype=x.dtype, requires_grad=True)
    for _ in range(o.inner_steps):
        w = modulated(theta, c)
        loss = loss_of(kind)(net.head(w, net.features(w, x)), y)
        (g,) = gradient(loss, {"c": c}, not o.first_order)
        c = c - o.inner_lr * g
    return [(1.0, modulated(theta, c), phi)]


STATES = {
    "maml": maml,
    "fomaml": maml,
    "more_maml": maml,
    "boil": boil,
    "anil": anil,
    "sharp_maml": sharp_maml,
    "mamlpp": mamlpp,
    "metasgd": metasgd,
    "cl": cl,
    "cavia": cavia,
    "reptile": reptile,
}


def outer_loss(name, net, theta, phi, task, kind, gamma, depth, o, **more):
    """The mean over tasks of the weighted query losses."""
    total, tasks = 0.0, task.support.x.shape[0]
    for t in range(tasks):
        x, y = task.support.x[t], task.support.y[t]
        extra = {"depth": depth} if name == "cl" else more
        for weight, a, b in STATES[name](net, theta, phi, x, y, kind, o, **extra):
            z = net.features(a, task.query.x[t])
            total = total + weight * loss_of(kind)(net.head(a, z), task.query.y[t]) / tasks
            if phi:
                total = (
                    total
                    + weight * gamma * loss_of(kind)(net.co(b, z, depth), task.query.y[t]) / tasks
                )
    return total


def outer_gradient(name, net, theta, phi, task, kind, gamma, depth, o, **more):
    """The gradient that Adam receives: {("base" or "co", name): gradient}."""
    name = name.removesuffix("+cml")
    if name == "reptile":
        return way_back(net, theta, task, kind, o)
    at = {("base", n): v for n, v in theta.items()} | {("co", n): v for n, v in (phi or {}).items()}

    def grads(values):
        values = {key: v.detach().clone().requires_grad_() for key, v in values.items()}
        split = (
            {n: v for (group, n), v in values.items() if group == want} for want in ("base", "co")
        )
        loss = outer_loss(name, net, *split, task, kind, gamma, depth, o, **more)
        return dict(zip(values, gradient(loss, values, False), strict=True))

    g = grads(at)
    if name != "sharp_maml" or o.level == "low":
        return g
    norm = torch.sqrt(sum((v * v).sum() for (group, _), v in g.items() if group == "base"))
    return grads(
        {k: v + o.rho_up * g[k] / (norm + 1e-12) if k[0] == "base" else v for k, v in at.items()}
    )


def way_back(net, theta, task, kind, o):
    """Reptile's outer gradient: the mean of theta - theta'."""
    total, tasks = dict.fromkeys(theta, 0.0), task.support.x.shape[0]
    for t in range(tasks):
        x, y = task.support.x[t], task.support.y[t]
        if o.trained_on == "both":
            x, y = torch.cat([x, task.query.x[t]]), torch.cat([y, task.query.y[t]])
        [(_, end, _)] = reptile(net, theta, {}, x, y, kind, o)
        total = {n: total[n] + (theta[n] - end[n]).detach() / tasks for n in theta}
    return {("base", n): value for n, value in total.items()}
