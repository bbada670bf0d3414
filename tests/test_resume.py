"""Interrupted runs go on where they stopped; finished ones are not trained again."""

import subprocess
import sys
from dataclasses import replace

import pytest

from cml_bench.engine import checkpoint, compiled
from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.networks.resnet12 import ResNet12Options
from cml_bench.records import Store
from cml_bench.spec import Component, canonical
from cml_bench.system.locks import run_lock
from tests.helpers.runs import interrupted, same, tensors
from tests.helpers.specs import glyph_spec, sinusoid_spec


def resnet12_spec(method, **changes):
    network = Component(name="resnet12", options=canonical(ResNet12Options(filters=2)))
    return glyph_spec(method, **changes).model_copy(update={"network": network})


SCHEDULED = {
    "epoch_steps": 4,
    "msl_epochs": 1,
    "first_order_to_second_order_epoch": 0,
    "inner_steps": 2,
}


@pytest.mark.parametrize(
    ("method", "make", "path", "reset", "options"),
    [
        *(
            ("maml+cml", make, "auto", reset, {})
            for make in (sinusoid_spec, glyph_spec)
            for reset in (0, 7)
        ),
        ("maml+cml", glyph_spec, "plain", 7, {}),
        ("mamlpp+cml", sinusoid_spec, "fast", 7, SCHEDULED),
        *(
            pytest.param(*more, marks=pytest.mark.slow)
            for more in (
                ("maml+cml", sinusoid_spec, "compiled", 7, {}),
                ("mamlpp+cml", sinusoid_spec, "compiled", 7, SCHEDULED),
                ("mamlpp+cml", glyph_spec, "fast", 7, SCHEDULED),
                ("sharp_maml+cml", glyph_spec, "fast", 7, {"level": "both"}),
                ("maml+cml", resnet12_spec, "plain", 7, {}),
                ("maml+cml", resnet12_spec, "fast", 7, {}),
            )
        ),
    ],
)
def test_a_resumed_run_equals_its_uninterrupted_twin(method, make, path, reset, options, settings):
    if path == "compiled" and not compiled.available():
        pytest.skip("no C++ compiler: the compiled path is not offered")
    settings = replace(settings, path=path)
    protocol = {"optimizer_reset_every": reset, "val_every": 4}
    spec = make(method, protocol_options=protocol, method_options=options, steps=12)
    folder = interrupted(spec, settings, at_step=10)
    assert checkpoint.load(folder)["step"] == 10, "between two validations too"
    said = []
    resumed = run(spec, Settings(**{**settings.__dict__, "report": said.append}))
    assert any("resumed at step 10" in line for line in said)
    twin = run(spec, Settings(**{**settings.__dict__, "results": settings.results / "twin"}))
    for name in ("model", "colearner", "best_co", "last"):
        assert same(tensors(resumed, name), tensors(twin, name))
    assert resumed.content["curves"] == twin.content["curves"]
    assert {k: v.tolist() for k, v in resumed.arrays.items()} == {
        k: v.tolist() for k, v in twin.arrays.items()
    }
    assert checkpoint.load(folder) is None


@pytest.mark.parametrize("other", [{"tasks_at_once": 1}, {"path": "plain"}])
def test_a_run_that_goes_on_in_another_way_says_so(other, settings):
    spec, said = glyph_spec(steps=6), []
    interrupted(spec, settings, at_step=4)
    run(spec, replace(settings, report=said.append, **other))
    assert [line for line in said if "was begun with" in line and "not bit for bit" in line]


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:200] + b"x" + b[201:], lambda b: b""]
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, settings):
    spec = sinusoid_spec()
    folder = interrupted(spec, settings, at_step=25)
    newest = max(folder.glob("checkpoint-*.pt"), key=lambda path: path.stat().st_mtime_ns)
    assert checkpoint.load(folder)["step"] == 25
    newest.write_bytes(damage(newest.read_bytes()))
    assert checkpoint.load(folder)["step"] == 24
    twin = run(spec, Settings(**{**settings.__dict__, "results": settings.results / "twin"}))
    assert same(tensors(run(spec, settings), "last"), tensors(twin, "last"))


def test_a_finished_run_is_never_trained_again(settings):
    spec = sinusoid_spec()
    first = run(spec, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "__init__", lambda *args: pytest.fail("trained again"))
        assert run(spec, settings).content == first.content


def test_two_processes_never_write_one_run(settings):
    spec = sinusoid_spec()
    folder = Store(settings.results).folder(spec)
    code = f"""
from pathlib import Path
from cml_bench.system.locks import run_lock
with run_lock(Path({str(folder)!r})):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"is being written by process {holder.pid}"):
        run(spec, settings)
    holder.communicate("\n")
    with run_lock(folder):
        pass
