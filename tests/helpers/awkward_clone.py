"""A checkout in an awkward place, and a watch over the files around it.

Used by test_awkward_names.py.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import yaml

from tests.helpers.checkouts import CONFIG, ROOT

PLACE = "my drive/$x & o'neil/-n"  # the clone's folder, with its .venv
# Files stand beside these folders, called like the words of the paths: a path that a shell splits
# would hit one of them.
RESULTS = "precious data/R&D/o'neil/copy (1)/größe ü/-n/#h;a,b [c] *? ~ `d` !e \\f/results"
DATA_DIR = "-n data/R&D (2)'s"
STUDY = "my study's $x.yaml"
STANDING = ("precious", "data/R", "-n", "copy", "größe")


def study(**changes) -> dict:
    """A study of one job on prepared images, with a table and a figure.

    ``changes`` replace top-level keys.
    """
    config = json.loads(json.dumps(CONFIG))
    glyphs = config["experiments"]["glyphs"]
    glyphs |= {
        "runs_per_job": 2,
        "steps": 1,
        "methods": {"maml": {"options": {"inner_lr": 0.4}}, "pixel_nn": {}},
    }
    table = config["tables"]["table1"]
    table["rows"] = [row for row in table["rows"] if row["run"] in glyphs["methods"]]
    line = {"label": "MAML", "run": "maml"}
    figure = {"kind": "accuracy", "experiment": "glyphs", "title": "Accuracy", "runs": [line]}
    return {
        **config,
        "study": "awkward",
        "seeds": 1,
        "results": RESULTS,
        "data_dir": DATA_DIR,
        "experiments": {"glyphs": glyphs},
        "tables": {"table1": table},
        "figures": {"figure3a": figure},
        **changes,
    }


def clone(folder: Path) -> Path:
    """A checkout under :data:`PLACE`, whose .venv has this environment's packages.

    The files whose names are parts of the path stand beside the folders.
    """
    home = folder / PLACE
    for name in ("workflow", "profiles", "configs"):
        shutil.copytree(ROOT / name, home / name)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, home / name)
    venv.create(home / ".venv", symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = f"{ROOT}\n{sysconfig.get_path('purelib')}\n"
    (home / ".venv" / "lib" / version / "site-packages" / "shared.pth").write_text(
        paths, encoding="utf-8"
    )
    for name in STANDING:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("a year's work\n", encoding="utf-8")
    return home


def snakemake(home: Path, config: dict, *args: str) -> subprocess.CompletedProcess:
    """Run Snakemake with the clone's own Python."""
    (home / STUDY).write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    command = [
        home / ".venv/bin/python",
        "-m",
        "snakemake",
        "--cores",
        "2",
        "--configfile",
        STUDY,
        *args,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "x": "expanded"}
    return subprocess.run(
        command, cwd=home, capture_output=True, text=True, encoding="utf-8", env=environment
    )


def around(folder: Path, home: Path, config: dict) -> dict[str, str]:
    """Path -> digest and time of every file below ``folder`` ("" for a folder).

    Files that the study and Snakemake write are left out.
    """
    own = {
        home / name
        for name in (config["results"], config["data_dir"], ".snakemake", ".venv", STUDY)
    }
    digests = {}
    for path in sorted(folder.rglob("*")):
        if own & {path, *path.parents} or any(path in place.parents for place in own):
            continue
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        digests[str(path.relative_to(folder))] = (
            f"{content} {path.lstat().st_mtime_ns}" if content else ""
        )
    return digests
