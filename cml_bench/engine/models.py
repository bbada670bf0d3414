"""The models of a run as files: which are stored, and how they are read again."""

from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from cml_bench.engine.readings import Models
from cml_bench.errors import UserError
from cml_bench.methods.base import Groups
from cml_bench.spec import RunSpec
from cml_bench.system.files import write_bytes


def _flat(groups: Groups, prefix: str = "") -> dict[str, torch.Tensor]:
    return {
        f"{prefix}{group}/{name}": value.contiguous()
        for group, params in groups.items()
        for name, value in params.items()
    }


def write_models(folder: Path, models: Models, steps: dict[str, int], spec: RunSpec) -> None:
    """Write the models of a run into its folder.

    ``model`` and ``colearner`` are the selected ones; ``best_co``, ``last`` and ``ensemble`` serve
    further readings. ``steps``: the outer step of each model, stored beside it.
    """

    def save(name: str, tensors: dict[str, torch.Tensor], model: str) -> None:
        meta = {"run": spec.id, "step": str(steps[model])}
        write_bytes(folder / f"{name}.safetensors", safetensors_bytes(tensors, metadata=meta))

    save("model", {k: v.contiguous() for k, v in models["best_meta"]["base"].items()}, "best_meta")
    if "co" in models["best_meta"]:
        save(
            "colearner",
            {k: v.contiguous() for k, v in models["best_meta"]["co"].items()},
            "best_meta",
        )
        save("best_co", _flat(models["best_co"]), "best_co")
    save("last", _flat(models["last"]), "last")
    ensemble: dict[str, torch.Tensor] = {}
    for key, groups in models.items():
        if key.startswith("top_"):
            ensemble |= _flat(groups, f"{key}/")
    if ensemble:
        save("ensemble", ensemble, "top_meta.0")


def read_models(folder: Path) -> Models:
    """The stored models. Without ``colearner.safetensors`` the selected one has no phi.

    A UserError if there is no model, or if a file is damaged.
    """

    def grouped(tensors: dict[str, torch.Tensor]) -> Groups:
        groups: Groups = {}
        for key, value in tensors.items():
            group, param = key.split("/", 1)
            groups.setdefault(group, {})[param] = value
        return groups

    if not (folder / "model.safetensors").exists():
        raise UserError(
            f"{folder} holds a record without weights (committed results have none): train the run"
            " first."
        )
    models: Models = {"best_meta": {"base": _tensors(folder, "model")}}
    if last := _tensors(folder, "last"):
        models["last"] = grouped(last)
    if co := _tensors(folder, "colearner"):
        models["best_meta"]["co"] = co
    if co and (best := _tensors(folder, "best_co")):
        models["best_co"] = grouped(best)
    models |= {
        key: grouped(member) for key, member in grouped(_tensors(folder, "ensemble")).items()
    }
    return models


def _tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a model file; none if the file is missing."""
    path = folder / f"{name}.safetensors"
    try:
        return load_file(path) if path.exists() else {}
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Move the folder {folder} away and start again: the run"
            " is trained anew."
        ) from None
