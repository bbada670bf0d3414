"""A small valid configuration, and how tests change it."""


def study(**changes) -> dict:
    """A small valid configuration."""
    experiment = {
        "data": "sinusoid",
        "network": "mlp",
        "way": 1,
        "shots": [5, 10],
        "query": "shot",
        "steps": 10,
        "methods": {
            "maml": {"options": {"inner_lr": 0.01}},
            "maml+cml": {"options": {"cml": {"gamma": 0.2}}},
        },
    }
    rows = [
        {"label": "MAML", "run": "maml"},
        {"label": "CML", "run": "maml+cml", "against": "maml"},
    ]
    table = {"kind": "regression", "experiment": "s", "title": "T", "rows": rows}
    return {
        "study": "small",
        "seeds": 2,
        "experiments": {"s": experiment},
        "tables": {"sinusoid": table},
        **changes,
    }


def changed(path: str, value) -> dict:
    """The small configuration with one key, given by its dotted path, set to ``value``."""
    content = study()
    *parents, last = path.split(".")
    node = content
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    node[last] = value
    return content


def plugged(**changes) -> dict:
    """An experiment of plug-ins alone: a method ``headonly``, data ``blobs``, network
    ``shallow``.
    """
    return {
        "data": "blobs",
        "network": "shallow",
        "way": 3,
        "shots": [1],
        "query": 3,
        "runs_per_job": 2,
        "methods": {"headonly": {}, "headonly+cml": {}},
        **changes,
    }
