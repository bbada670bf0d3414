"""A study whose results are simulated and stand beside published numbers."""

import yaml

from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.simulated import ROWS, experiment

LEVEL = {"base": 50.0, "meta": 55.0, "co": 40.0}
PAPER = {
    "source": "A & B: 100 % of C_1",
    "tables": {
        "t9": {
            "title": "T",
            "plus_minus": "unknown",
            "steps": 100,
            "query": 5,
            "test_query": 5,
            "errata": ["one ± is printed as 0.61"],
            "settings": {
                "": {"data": "glyphs", "split": "v1", "size": 28, "backbone": "conv4", "way": 5}
            },
            "rows": [
                {
                    "label": "MAML",
                    "values": {"1-shot": [50.1, 0.2], "5-shot": 58.0},
                    "copied": "D (E et al.)",
                },
                {"label": "MAML + CML", "values": {"1-shot": 54.9, "5-shot": 63.0}},
                {
                    "label": "MAML + CML†",
                    "values": {"1-shot": 50.0, "5-shot": None},
                    "structure": {"cml.gamma": 0.5},
                },
            ],
        }
    },
}


def study(tmp_path, seeds=6, paper=PAPER, **changes):
    """A plan of official runs of MAML and +CML on glyphs, beside the numbers of PAPER."""
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump(paper))
    official = {
        "protocol": "official",
        "methods": {"maml": {}, "maml+cml": {"options": {"cml": {"gamma": 1.0}}}},
    }
    table = {"kind": "accuracy", "experiment": "e", "title": "Beside", "rows": ROWS, "paper": "t9"}
    config = {
        "study": "s",
        "seeds": seeds,
        "published": str(path),
        "experiments": {"e": experiment(4000, **official | changes)},
        "tables": {"beside": table},
    }
    return resolve(parse(config, "test"), "test")
