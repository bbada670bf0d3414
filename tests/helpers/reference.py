"""MAML and CML as one would first write them down: one task at a time, nothing clever.

Independent of the package: plain dictionaries of weights, torch's own layers, explicit loops. Tests
compare every path of the engine with this in float64.
"""

import torch
import torch.nn.functional as F


def block(p, i, x, pool, slope=0.0):
    """Convolution with a bias, batch-norm by the batch, (leaky) ReLU, and max-pool if ``pool``."""
    z = F.conv2d(x, p[f"conv{i}.weight"], p[f"conv{i}.bias"], padding=1)
    z = F.leaky_relu(
        F.batch_norm(
            z, None, None, p[f"norm{i}.weight"], p[f"norm{i}.bias"], training=True, eps=1e-5
        ),
        slope,
    )
    return F.max_pool2d(z, 2) if pool else z


class Conv4:
    """Conv4 on images (n, C, H, W).

    ``late``: the numbers of blocks after the fourth, which have no pooling.
    """

    def __init__(self, late=(), slope=0.0):
        self.late, self.slope = late, slope

    def features(self, p, x):
        for i in (1, 2, 3):
            x = block(p, i, x, True, self.slope)
        for i in (4, *self.late):
            x = block(p, i, x, False, self.slope)
        return x

    def head(self, p, z):
        return F.linear(F.max_pool2d(z, 2).flatten(1), p["head.weight"], p["head.bias"])

    def co(self, p, z, depth=2):
        for i in range(1, depth + 1):
            z = block(p, i, z, i == depth, self.slope)
        if depth == 0:
            z = F.max_pool2d(z, 2)
        return F.linear(z.flatten(1), p["head.weight"], p["head.bias"])


class MLP:
    """A perceptron on vectors (n, d), with two hidden layers and the further ones of ``late``."""

    act = staticmethod(torch.relu)

    def __init__(self, late=()):
        self.late = late

    def features(self, p, x):
        for i in (1, 2, *self.late):
            x = self.act(F.linear(x, p[f"hidden{i}.weight"], p[f"hidden{i}.bias"]))
        return x

    def head(self, p, z):
        return F.linear(z, p["head.weight"], p["head.bias"])

    def co(self, p, z, depth=1):
        for i in range(1, depth + 1):
            z = self.act(F.linear(z, p[f"hidden{i}.weight"], p[f"hidden{i}.bias"]))
        return F.linear(z, p["head.weight"], p["head.bias"])


class SmoothMLP(MLP):
    """The perceptron with tanh, for finite differences."""

    act = staticmethod(torch.tanh)


def loss_of(kind):
    """The mean loss over examples."""
    return F.cross_entropy if kind == "classification" else F.mse_loss


def inner_loop(
    net, theta, x, y, kind, steps, lr, first_order=False, adapts=lambda name: True, momentum=0.0
):
    """The adapted parameters of one task."""
    adapted, speed = dict(theta), {}
    names = [name for name in theta if adapts(name)]
    for _ in range(steps):
        loss = loss_of(kind)(net.head(adapted, net.features(adapted, x)), y)
        grads = torch.autograd.grad(loss, [adapted[n] for n in names], create_graph=not first_order)
        for n, g in zip(names, grads, strict=True):
            speed[n] = momentum * speed.get(n, 0) + g
        adapted = {**adapted, **{n: adapted[n] - lr * speed[n] for n in names}}
    return adapted


def outer_losses(net, theta, phi, task, kind, gamma, depth, **inner):
    """The losses of the meta-learner and of the co-learner: a list of scalars each, by task."""
    meta, co = [], []
    for t in range(task.support.x.shape[0]):
        adapted = inner_loop(net, theta, task.support.x[t], task.support.y[t], kind, **inner)
        z = net.features(adapted, task.query.x[t])
        meta.append(loss_of(kind)(net.head(adapted, z), task.query.y[t]))
        if phi:
            co.append(loss_of(kind)(net.co(phi, z, depth), task.query.y[t]))
    return meta, co


def meta_gradient(net, theta, phi, task, kind, gamma=1.0, depth=None, **inner):
    """The mean loss over tasks, and its gradients with respect to theta (psi included) and phi."""
    theta, phi = (
        {n: v.detach().clone().requires_grad_() for n, v in p.items()} for p in (theta, phi or {})
    )
    meta, co = outer_losses(net, theta, phi, task, kind, gamma, depth, **inner)
    loss = sum(meta) / len(meta) + (gamma * sum(co) / len(co) if co else 0)
    both = {**{("base", n): v for n, v in theta.items()}, **{("co", n): v for n, v in phi.items()}}
    grads = torch.autograd.grad(loss, list(both.values()), materialize_grads=True)
    return loss.detach(), dict(zip(both, grads, strict=True))


class Adam:
    """Kingma and Ba's algorithm 1 with bias correction."""

    def __init__(self, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.lr, self.betas, self.eps, self.t, self.m, self.v = lr, betas, eps, 0, {}, {}

    def step(self, params, grads):
        """The parameters after one step."""
        self.t += 1
        b1, b2 = self.betas
        out = {}
        for name, g in grads.items():
            self.m[name] = b1 * self.m.get(name, 0) + (1 - b1) * g
            self.v[name] = b2 * self.v.get(name, 0) + (1 - b2) * g * g
            m, v = self.m[name] / (1 - b1**self.t), self.v[name] / (1 - b2**self.t)
            out[name] = params[name] - self.lr * m / (v.sqrt() + self.eps)
        return out
