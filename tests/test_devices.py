"""GPUs as far as they are known without one: devices of tensors, formats, memory, advice."""

import json

import numpy as np
import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Episodes
from cml_bench.engine import build
from cml_bench.engine import step as engine_step
from cml_bench.engine.build import Settings, choose_path
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.jobs import run_all
from cml_bench.engine.precision import computing, dtype_of, out_of_memory
from cml_bench.engine.run import run
from cml_bench.engine.step import MetaStep, adam, leaves
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.networks import _maps
from cml_bench.spec import Evaluation, canonical
from tests.helpers.cases import Case, images
from tests.helpers.specs import IMAGE_METHODS, glyph_spec, sinusoid_spec

META = torch.device("meta")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; none is here")


def everything(value):
    """All tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from everything(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from everything(item)


@pytest.mark.parametrize(
    ("name", "net", "path"),
    [(name, "conv4", "fast") for name in IMAGE_METHODS]
    + [("maml+cml", "conv4", "plain"), ("maml+cml", "mlp", "fast"), ("mamlpp+cml", "mlp", "fast")]
    + [("maml+cml", "resnet12", path) for path in ("plain", "fast")],
)
def test_the_device_reaches_every_tensor(name, net, path, settings):
    """On torch's device without storage, a tensor left on the CPU fails to combine with others."""
    spec, cls = (sinusoid_spec if net == "mlp" else glyph_spec)(), registry.method(name)
    source = registry.datasets.get(spec.data.name)
    data = source(source.Options.read(spec.data.options, "test"))
    data.prepare(settings.data_dir)
    data.open(settings.data_dir, META, torch.float32)
    chosen = registry.networks.get(net)
    options = {"resnet12": {"filters": 2}, "conv4": {"filters": 4}, "mlp": {"hidden": (8, 8)}}[net]
    given = {**options, **cls.network_defaults}
    network = chosen(
        chosen.Options.read(given, "test"), data.input_shape, data.outputs(spec.way), path
    )
    fewer = {"inner_steps": 2} if "inner_steps" in cls.Options.model_fields else {}
    method = cls(cls.Options.read(fewer, "test"), network, data.kind)
    groups = leaves(method.init(0), META, torch.float32)
    task = Episodes(data, "train", spec.way, spec.shot, spec.query, seed=0).batch(0, 3)
    assert {t.device for t in everything(task)} == {META}
    step = MetaStep(method, groups, torch.optim.Adam(list(everything(groups))), 2)
    scores = step(task)
    scored = score_all(method, [Asked([groups], method.heads)], task, (method.inner_steps,))[0]
    tensors = list(
        everything(
            [groups, scores, scored, [p.grad for p in everything(groups) if p.grad is not None]]
        )
    )
    assert sum(p.grad is not None for p in everything(groups)) > 4
    assert {t.device for t in tensors} == {META}


@pytest.mark.parametrize("name", ["maml+cml", "mamlpp+cml", "sharp_maml+cml", "cl"])
def test_a_training_lives_on_its_device(name, settings, monkeypatch):
    """With batches, optimiser, clamp, schedule and running sums of the training loop."""
    real = engine_step.Adam  # fused Adam cannot run on a device without storage
    monkeypatch.setattr(engine_step, "Adam", lambda groups, fused, **rest: real(groups, **rest))
    spec = glyph_spec(
        "maml",
        protocol_options={
            "val_every": 4,
            "clamp": 1.0,
            "outer_lr_min": 1e-5,
            "optimizer_reset_every": 1,
        },
    )
    cls = registry.method(name)
    spec = spec.model_copy(update={"method": name, "options": canonical(cls.Options())})
    source = registry.datasets.get("glyphs")
    source(source.Options.read(spec.data.options, "test")).prepare(settings.data_dir)
    made = Training(
        spec, Settings(**{**settings.__dict__, "device": "meta"}), settings.results, print
    )
    for _ in range(2):
        made.advance()
    tensors = list(everything([made.groups, made.running, made.optimizer.state_dict()["state"]]))
    assert {t.device for t in tensors if t.dim()} == {META}
    assert all(p.grad is None or p.grad.device == META for p in everything(made.groups))


def test_a_precision_is_another_run_and_float32_means_32_bits():
    base = glyph_spec()
    ids = {
        p: base.model_copy(update={"precision": p}).id
        for p in ("float32", "float64", "tf32", "bf16")
    }
    assert len(set(ids.values())) == 4
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    with computing("float32", "cpu"):
        assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
    assert [place.fp32_precision for place in places] == before
    with (
        pytest.raises(UserError, match="tf32 exists on CUDA devices, not on cpu"),
        computing("tf32", "cpu"),
    ):
        pass
    assert {p: dtype_of(p) for p in ids} == {
        "float32": torch.float32,
        "float64": torch.float64,
        "tf32": torch.float32,
        "bf16": torch.float32,
    }


@pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot take such numbers for zero"
)
def test_what_is_below_the_smallest_normal_number_counts_as_zero_while_a_run_computes(
    settings, monkeypatch
):
    def halved():
        return float(torch.full((1,), torch.finfo(torch.float32).tiny) / 2)

    assert halved() > 0
    with computing("float32", "cpu"), computing("float64", "cpu"):
        assert halved() == 0
    seen, advance = [], Training.advance
    monkeypatch.setattr(Training, "advance", lambda self: seen.append(halved()) or advance(self))
    run(glyph_spec(steps=4), settings)
    assert seen
    assert not any(seen)
    assert halved() > 0, "as it was before"


@pytest.mark.parametrize("method", ["maml+cml", "boil", "sharp_maml"])
def test_bf16_trains_and_is_close_to_float32(method, settings, monkeypatch):
    monkeypatch.setattr(_maps, "_CACHED", 1)  # one image at a time, as with large images
    few = {"val_every": 4, "val_tasks": 8}
    spec = glyph_spec(
        method, steps=4, protocol_options=few, evaluation=Evaluation(tasks=4, query=2)
    )
    exact, rough = (
        run(spec.model_copy(update={"precision": p}), settings) for p in ("float32", "bf16")
    )
    assert rough.status != "diverged"
    losses = [r.content["curves"]["validation"]["loss_meta"] for r in (exact, rough)]
    assert losses[0] != losses[1]
    assert np.allclose(*losses, rtol=0.1), losses


def test_recorded_steps_are_for_gpus(settings):
    with pytest.raises(
        UserError,
        match="--engine captured is for CUDA devices, not for cpu: use --engine auto or fast",
    ):
        run(glyph_spec(), Settings(**{**settings.__dict__, "path": "captured"}))
    spec, cpu, cuda = glyph_spec(), torch.device("cpu"), torch.device("cuda")
    conv4, gcn = (registry.networks.get(name) for name in ("conv4", "gcn"))
    assert choose_path("auto", spec, conv4, cuda) == "captured"
    assert choose_path("auto", spec, conv4, cpu) == "fast"
    assert choose_path("auto", spec, gcn, cuda) == "fast", (
        "what a step draws would be recorded with it"
    )
    for asked, network in (("captured", gcn), ("compiled", conv4), ("compiled", gcn)):
        with pytest.raises(UserError, match=f"conv4 cannot be {asked}"):
            choose_path(asked, spec, network, cuda)


def test_a_gpu_tests_more_tasks_at_once_than_it_trains(settings):
    training = Training(glyph_spec(), settings, settings.results, print)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [build.tested_at_once(settings, training.method, device) for device in (cpu, cuda)] == [
        4,
        16,
    ]
    asked = Settings(**{**settings.__dict__, "tasks_at_once": 2})
    assert build.tested_at_once(asked, training.method, cuda) == 2, (
        "who asks for few has little memory"
    )


def test_a_new_optimiser_keeps_what_was_recorded_for_the_step(settings):
    training = Training(glyph_spec(), settings, settings.results, print)
    step, old = training.meta_step, training.optimizer
    training._new_optimizer()
    assert training.meta_step is step
    assert step.optimizer is training.optimizer is not old


def test_gradients_of_what_the_optimiser_leaves_alone_do_not_add_up(settings):
    """BOIL's outer loop leaves the head alone here; the head's gradient is of one step only."""
    case, task = Case("boil", outer_fix=True), images()
    step = MetaStep(case.method, case.groups, adam(case.groups, 0.0, case.method.trains), 4)
    grads = []
    for _ in range(2):
        step(task)
        grads.append(
            {n: p.grad.clone() for n, p in case.groups["base"].items() if p.grad is not None}
        )
    assert all(torch.equal(grads[0][n], grads[1][n]) for n in grads[0])
    assert any(n.startswith("head") for n in grads[0])


def test_out_of_memory_ends_with_the_advice_that_helps(settings, monkeypatch):
    def full(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(Training, "advance", full)
    shared = Settings(**{**settings.__dict__, "runs_per_gpu": 3})
    with pytest.raises(UserError) as caught:
        run_all([glyph_spec()], shared)
    said = str(caught.value)
    assert (
        "maml on glyphs, 5-way 1-shot, seed 0: the memory of the device did not suffice (CUDA out"
        " of memory" in said
    )
    assert "runs_per_gpu is 3" in said
    assert "--config tasks_at_once=1" in said
    assert "\n" not in said
    assert out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    )
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_training_gets_its_share_of_a_gpus_memory(monkeypatch, settings):
    from cml_bench.engine import device

    given = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda share, where: given.append((share, where)),
    )
    for changes in (
        {"runs_per_gpu": 4},
        {"runs_per_gpu": 4, "memory_fraction": 0.5},
        {"device": "cuda:0"},
    ):
        asked = Settings(**{**settings.__dict__, "device": "auto", **changes})
        with device.placed(asked, glyph_spec()) as name:
            assert name == "cuda:0"
    assert given == [(0.25, 0), (0.5, 0), (1.0, torch.device("cuda:0"))]
    with device.placed(
        Settings(**{**settings.__dict__, "device": "auto"}), sinusoid_spec()
    ) as name:
        assert name == "cpu", "a network that gains nothing stays on the CPU and takes no place"
    assert len(given) == 3


def test_peak_memory_on_a_gpu_is_that_of_this_run(monkeypatch):
    """torch's peak is reset when a run begins, so that it is not the peak of an earlier run."""
    from cml_bench.engine import device

    peak = {"cuda:1": 5_000}
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda where: peak.update({where: 0})
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak.__getitem__)
    assert device.peak_memory("cuda:1") == {"peak": 5_000, "of": "device"}
    device.forget_peak_memory("cuda:1")
    assert device.peak_memory("cuda:1") == {"peak": 0, "of": "device"}
    before = device.peak_memory("cpu")
    device.forget_peak_memory("cpu")
    assert device.peak_memory("cpu")["peak"] >= before["peak"], "a process has one peak"


def test_fewer_tasks_at_once_give_the_same_results(settings):
    spec = glyph_spec("maml+cml", precision="float64")
    whole = run(spec, settings)
    single = run(
        spec,
        Settings(**{**settings.__dict__, "results": settings.results / "one", "tasks_at_once": 1}),
    )
    assert (whole.content["tasks_at_once"], single.content["tasks_at_once"]) == (4, 1)
    assert json.dumps(whole.content["results"]) == json.dumps(single.content["results"])


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_run_on_a_gpu_is_that_of_the_cpu(precision, settings):
    spec = glyph_spec("maml+cml", steps=8)
    cpu = run(spec, settings)
    there = Settings(
        **{**settings.__dict__, "device": "cuda", "results": settings.results / precision}
    )
    device = run(spec.model_copy(update={"precision": precision}), there)
    assert device.content["engine"]["device"].startswith("cuda")
    assert device.content["memory"]["of"] == "device"
    assert 0 < device.content["memory"]["peak"] < cpu.content["memory"]["peak"], "tensors alone"
    losses = [r.content["curves"]["validation"]["loss_meta"] for r in (cpu, device)]
    assert np.allclose(*losses, rtol=1e-3 if precision == "float32" else 0.1)
