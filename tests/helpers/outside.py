"""A user's own folder of plug-ins: a method with its helper, a data set and a network."""

import sys
from pathlib import Path

import pytest

from cml_bench import plugins, registry
from cml_bench.study import new
from cml_bench.system import sources

METHOD = """
from cml_bench.methods.maml import MAML, MAMLOptions
from cml_bench.registry import methods
from ._shared import is_head


class Options(MAMLOptions):
    pass


@methods.register("headonly")
class HeadOnly(MAML):
    Options = Options

    def adapts(self, name):
        return is_head(self, name)
"""
SHARED = "def is_head(method, name):\n    return name in method.network.head_names\n"


def forget(name: str) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No plug-ins at the start, and none left; the working folder is empty."""
    for known in (registry.methods, registry.datasets, registry.networks):
        known.names()  # scanned before it is copied
        monkeypatch.setattr(known, "_entries", dict(known._entries))
    monkeypatch.setattr(sources, "PLUGINS", {})
    monkeypatch.setattr(plugins, "_due", [])
    monkeypatch.chdir(tmp_path)
    yield
    forget("cml_bench_plugins")
    sources.loaded.cache_clear()


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder with a method, its helper, a data set and a network."""
    folder = tmp_path / "mine"
    new.write("data", "blobs", folder)
    new.write("network", "shallow", folder)
    (folder / "headonly.py").write_text(METHOD)
    (folder / "_shared.py").write_text(SHARED)
    return folder
