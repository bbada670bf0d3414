"""Fixtures that several test files use.

Every test process computes with one thread, so that results do not depend on the machine.
"""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from cml_bench import registry
from cml_bench.data import _download
from cml_bench.data._source import sha256_of
from cml_bench.data.omniglot import Omniglot
from cml_bench.data.prepared import LocalCopy
from cml_bench.engine.build import Settings
from tests.helpers import archives, seeds
from tests.helpers.awkward import made
from tests.helpers.checkouts import CONFIG, ROOT
from tests.helpers.omniglot import archive
from tests.helpers.servers import Server

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by CML_BENCH_TEST_DATA; without it, its tests are skipped."""
    folder = os.environ.get("CML_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("CML_BENCH_TEST_DATA is not set: no real data to check against")
    return Path(folder)


@pytest.fixture(scope="session")
def glyphs16(tmp_path_factory) -> Path:
    """Glyphs at 16 pixels, prepared once. Tests take copies: see ``data_dir``."""
    folder = tmp_path_factory.mktemp("glyphs")
    cls = registry.datasets.get("glyphs")
    cls(cls.Options(size=16)).prepare(folder)
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, glyphs16) -> Path:
    """A folder with prepared glyphs at 16 pixels."""
    return shutil.copytree(glyphs16, tmp_path_factory.mktemp("data"), dirs_exist_ok=True)


@pytest.fixture
def settings(tmp_path, data_dir):
    """Settings with an empty results folder and prepared glyphs, which report nothing."""
    return Settings(results=tmp_path / "results", data_dir=data_dir, report=lambda text: None)


@pytest.fixture
def together(settings, monkeypatch) -> Settings:
    """Settings with which the seeds of a job are trained in one program, which is interpreted."""
    seeds.interpret(monkeypatch)
    return seeds.met(settings)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with the workflow as a clone has it, without results."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("workflow", "profiles", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture
def miniature(tmp_path):
    """Omniglot with three characters in each split, and local copies of its two archives."""
    data = Omniglot(Omniglot.Options())
    data.characters = {split: characters[-3:] for split, characters in data.characters.items()}
    data.class_counts = {split: 3 for split in data.characters}
    everything = [c for characters in data.characters.values() for c in characters]
    copies = {}
    for name in ("images_background", "images_evaluation"):
        path = tmp_path / f"{name}.zip"
        archive(path, [c for c in everything if c[0] == name])
        copies[path.name] = LocalCopy(path=str(path), sha256=sha256_of(path))
    return data, copies


@pytest.fixture(scope="module")
def minis(tmp_path_factory) -> dict[str, list[Path]]:
    """Archives of each set of small images, and both editions of MiniImagenet."""
    folder = tmp_path_factory.mktemp("archives")
    cifar = archives.cifar100(folder)
    return {
        "miniimagenet": archives.miniimagenet(folder, each=6),
        "tar": archives.miniimagenet_tar(folder, each=6),
        "cifar_fs": cifar,
        "fc100": cifar,
        "vgg_flower": archives.flowers(folder, each=4),
    }


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """A study with awkward texts: its plan, the folder of its results, and its table."""
    return made(tmp_path_factory.mktemp("awkward"))


@pytest.fixture
def server(monkeypatch):
    """A server that can be told how to fail; the download code gives up on it soon."""
    monkeypatch.setattr(_download, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(_download, "STALL_SECONDS", 0.5)
    with Server() as running:
        yield running
