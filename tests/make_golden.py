"""Golden values of specifications and episodes: ``python -m tests.make_golden`` writes them anew.

They change only if earlier runs can no longer be compared with later ones: then raise a version.
"""

import json
from pathlib import Path

import numpy as np
import torch

from cml_bench import seeding
from cml_bench.data.episodes import Episodes, draw_picks
from cml_bench.data.sinusoid import Sinusoid
from cml_bench.spec import Options, canonical
from tests.helpers.specs import glyph_spec, sinusoid_spec

FOLDER = Path(__file__).parent / "golden"


def first_episodes() -> dict:
    """The first three episodes of each kind of data."""
    data = Sinusoid(Options()).open(None, torch.device("cpu"), torch.float64)
    episodes = {}
    for split, seed in (("train", 0), ("train", 1), ("validation", None), ("test", None)):
        task = Episodes(data, split, 1, 2, 1, seed=seed).batch(0, 3)
        name = split if seed is None else f"{split}, seed {seed}"
        episodes[f"sinusoid {name}"] = np.round(
            torch.cat((task.support.y, task.query.y), 1).squeeze(2).numpy(), 9
        ).tolist()
        parts = ("episodes", "golden", split, 5, 1, 2, *(() if seed is None else ("seed", seed)))
        for group in (1, 2):
            picks = draw_picks(seeding.key(*parts), 0, 3, 5, 1, 2, np.full(20, 8), group)
            episodes[f"images in groups of {group}, {name}"] = [array.tolist() for array in picks]
    return episodes


def spec_ids() -> dict:
    """Small specifications with their ids."""
    specs = {
        f"{data} {m}": make(m)
        for data, make in (("sinusoid", sinusoid_spec), ("glyphs", glyph_spec))
        for m in ("maml", "maml+cml")
    }
    return {name: {"id": spec.id, "spec": canonical(spec)} for name, spec in specs.items()}


if __name__ == "__main__":
    for name, content in (("episodes", first_episodes()), ("spec_ids", spec_ids())):
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
