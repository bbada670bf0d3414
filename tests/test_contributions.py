"""What a contribution must pass beside the laws: its reference, its golden trace, a tiny study."""
# ruff: noqa: F811 (fixtures are imported)

import functools
import re
from pathlib import Path

import pytest

from cml_bench import plugins, registry
from cml_bench.checks import check, laws, tiny
from cml_bench.checks.subject import Subject, opened
from cml_bench.study import config, work
from cml_bench.system import sources
from tests.helpers.checkouts import ROOT
from tests.helpers.outside import METHOD, alone, mine  # noqa: F401
from tests.helpers.specs import sinusoid_spec

REFERENCE = """
    def reference(self, groups, task):
        from torch.nn.functional import cross_entropy
        import torch
        theta = dict(groups["base"])
        head = {n: theta[n] for n in self.network.head_names}
        def outputs(x, w):
            return self.network.head(w, self.network.features(w, x))[0]
        for _ in range(self.options.inner_steps):
            loss = cross_entropy(outputs(task.support.x, {**theta, **head}), task.support.y[0])
            grads = torch.autograd.grad(loss, list(head.values()), create_graph=True)
            head = {n: v - RATE * g for (n, v), g in zip(head.items(), grads)}
        meta = cross_entropy(outputs(task.query.x, {**theta, **head}), task.query.y[0])
        return meta
"""


def test_a_method_is_compared_with_its_own_reference(mine, tmp_path):
    (mine / "headonly.py").write_text(METHOD + REFERENCE.replace("RATE", "self.options.inner_lr"))
    plugins.use(["mine"], "the test")
    cls = registry.methods.get("headonly")
    data = opened("glyphs", tmp_path, {"size": 16})
    make = functools.partial(Subject, network="shallow", data=data)
    laws.equals_its_reference(make, "headonly")
    right = cls.reference
    cls.reference = lambda self, groups, task: 1.01 * right(self, groups, task)
    with pytest.raises(laws.Broken, match=r"its mean outer loss is .* of its reference is"):
        laws.equals_its_reference(make, "headonly")
    cls.reference = lambda self, groups, task: right(self, groups, task) + 0.1
    with pytest.raises(laws.Broken, match=r"its mean outer loss is .* of its reference is"):
        laws.equals_its_reference(make, "headonly")
    # The loss is right, and its gradient is not.
    cls.reference = lambda self, groups, task: (
        2 * right(self, groups, task) - right(self, groups, task).detach()
    )
    with pytest.raises(laws.Broken, match=r"its outer gradient of .* is not that of its reference"):
        laws.equals_its_reference(make, "headonly")


@pytest.mark.parametrize(
    ("kind", "name"), [("methods", "headonly"), ("networks", "shallow"), ("data", "blobs")]
)
def test_a_golden_trace_is_kept_beside_the_plug_in(kind, name, mine, tmp_path):
    def golden(accept=False, failed=False):
        return check._golden(kind, name, tmp_path / "tmp", tmp_path, accept, failed)

    plugins.use(["mine"], "the test")
    path = mine / f"{name}.trace.json"
    missing = golden()
    assert missing.left_out
    assert f"there is none: --accept keeps it in {path}" in missing.said
    failing = golden(accept=True, failed=True)
    assert failing.left_out
    assert failing.said == "it is not kept, since other checks fail"
    assert not path.exists()
    assert golden(accept=True) == check.Outcome("golden trace is kept")
    assert golden() == check.Outcome("golden trace")
    # A number that moved, and a file that is none.
    text = path.read_text()
    place = re.search(r"[0-9a-f]{4}", text).start() + 3
    path.write_text(text[:place] + ("7" if text[place] != "7" else "3") + text[place + 1 :])
    assert "raise its version" in golden().said
    path.write_text("{")
    assert "cannot be read" in golden().said


@pytest.mark.slow
def test_the_tiny_study_of_the_command_goes_through_snakemake(mine, tmp_path):
    plugins.use(["mine"], "the test")
    place = ("shallow", {}, "blobs", {})
    tiny.by_workflow("headonly", place, tmp_path / "one")
    assert (tmp_path / "one" / "results" / "check" / "report.html").is_file()
    nowhere = ("shalow", {}, "blobs", {})
    with pytest.raises(laws.Broken, match=r"snakemake ended with 1: .*unknown network 'shalow'"):
        tiny.by_workflow("headonly", nowhere, tmp_path / "two")


def test_counts_are_made_anew_when_a_plug_in_comes_into_use(mine):
    spec = sinusoid_spec("maml", steps=2)
    before = work.kind(spec)
    plugins.use(["mine"], "the test")
    assert work.kind(spec) != before
    sources.PLUGINS.clear()
    assert work.kind(spec) == before


def test_shipped_files_are_found_from_every_folder(tmp_path):
    assert not Path("configs").exists()
    content = {"study": "mine", "seeds": 1, "include": ["configs/images/aircraft.yaml"]}
    study = config.parse(config.included(content, "my.yaml"), "my.yaml")
    assert study.plugins == (str(ROOT / "configs" / "images" / "aircraft.py"),)
    assert "aircraft" in study.tables
    one = config.read(ROOT / "configs" / "tables" / "table1.yaml")
    assert one.published == str(ROOT / "configs" / "reference" / "paper.yaml")
    # A file of this name in the working folder comes first.
    Path("configs/images").mkdir(parents=True)
    Path("configs/images/aircraft.yaml").write_text("tables: {mine: {}}")
    assert list(config.included(content, "my.yaml")["tables"]) == ["mine"]
