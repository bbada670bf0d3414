"""The engine on a GPU: paths equal the plain one on a CPU, no step waits, runs resume."""

from dataclasses import replace

import pytest
import torch

from cml_bench import registry
from cml_bench.engine.captured import CapturedStep
from cml_bench.engine.run import run
from cml_bench.engine.step import MetaStep, adam, leaves
from cml_bench.engine.train import Training
from cml_bench.spec import canonical
from tests.helpers.cases import Case, images, relative, values, waves
from tests.helpers.released import FILES, ten_steps, there
from tests.helpers.runs import interrupted, tensors
from tests.helpers.specs import IMAGE_METHODS, glyph_spec, sinusoid_spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; none is here"),
]
GPU = torch.device("cuda")


def small(name: str, **changes):
    """A small run of a method with its default options."""
    options = canonical(registry.method(name).Options())
    return glyph_spec("maml", **changes).model_copy(update={"method": name, "options": options})


def on_the_gpu(name: str, path: str, **options) -> tuple[Case, MetaStep]:
    case = Case(name, path=path.removeprefix("captured "), **options)
    case.groups = leaves(case.groups, GPU, torch.float64)
    step = CapturedStep if path.startswith("captured") else MetaStep
    return case, step(case.method, case.groups, adam(case.groups, 1e-3), 4)


RADII = {"rho_low": 0.03, "rho_up": 0.05}
OPTIONS = {
    "mamlpp": {"epoch_steps": 3},  # its phases follow each other
    "mamlpp+cml": {"epoch_steps": 3, "channels": 3, "network": {"inputs": "imagenet"}},
    "sharp_maml+cml": RADII,
}
MORE = {
    "maml+cml, first order": {"first_order": True, "inner_steps": 2},
    "mamlpp+cml, first order": {"first_order": True},
    "sharp_maml+cml, low": {"level": "low", **RADII},
    "sharp_maml, up": {"level": "up", **RADII},
    "maml+cml, mlp": {"net": "mlp"},
    "mamlpp+cml, mlp": {"net": "mlp", "epoch_steps": 3},
}


@pytest.mark.parametrize("path", ["plain", "fast", "captured fast", "captured plain"])
@pytest.mark.parametrize("name", [*IMAGE_METHODS, *MORE])
def test_ten_outer_steps_are_those_of_the_plain_path_on_a_cpu(name, path):
    """In float64.

    On a CPU, test_numerics.py and test_methods.py hold the plain path to the plain loop.
    """
    options, name = (OPTIONS | MORE).get(name, {}), name.partition(",")[0]
    here, (case, step) = Case(name, path="plain", **options), on_the_gpu(name, path, **options)
    at_home = here.step()
    for number in range(10):
        for one in (here.method, case.method):
            one.at_step(number)
        called = f"step {number}"
        task = (
            waves(name=called)
            if "net" in options
            else images(channels=options.get("channels", 1), name=called)
        )
        scores, results = at_home(task), step(there(task, GPU))
        if number == 0:
            want, got = (
                {
                    (g, n): p.grad.cpu()
                    for g, params in c.groups.items()
                    for n, p in params.items()
                    if p.grad is not None
                }
                for c in (here, case)
            )
            assert relative(got, want) < 1e-10
        for head, loss in scores.loss.items():
            assert torch.allclose(results.loss[head].cpu(), loss, rtol=1e-8)
    assert relative(values(case.groups), values(here.groups)) < 1e-8


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", FILES)
def test_ten_official_meta_steps_captured(name, path):
    ten_steps(name, path, 4, CapturedStep, "cuda")


@pytest.mark.parametrize("path", ["plain", "fast", "captured"])
@pytest.mark.parametrize("name", ["maml+cml", "mamlpp+cml", "sharp_maml+cml", "cl"])
def test_an_outer_step_waits_for_nothing(name, path, settings):
    """torch raises for calls that wait: in batches, gradients, optimiser, clamp and metrics."""
    spec = small(name, steps=200, protocol_options={"clamp": 1.0, "val_every": 200})
    source = registry.datasets.get("glyphs")
    source(source.Options.read(spec.data.options, "test")).prepare(settings.data_dir)
    made = Training(spec, replace(settings, device="cuda", path=path), settings.results, print)
    made.advance()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(70):  # goes on into the second block of episodes
            made.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(made.running).all()


def test_the_choice_of_the_path(settings):
    spec = glyph_spec("maml")
    assert run(spec, replace(settings, device="cuda")).content["engine"]["path"] == "captured"


@pytest.mark.parametrize("path", ["fast", "captured"])
def test_a_resumed_run_is_close_to_its_twin(path, settings):
    """The runs are only close, because some sums on a GPU have no fixed order.

    Biases in front of batch-norm move by rounding alone.
    """
    settings = replace(settings, device="cuda", path=path)
    changes = {"optimizer_reset_every": 7, "val_every": 4}
    spec = glyph_spec("maml+cml", protocol_options=changes, steps=12, precision="float64")
    interrupted(spec, settings, at_step=10)
    said = []
    resumed = run(spec, replace(settings, report=said.append))
    assert any("resumed at step 10" in line for line in said)
    twin = run(spec, replace(settings, results=settings.results / "twin"))
    for name in ("model", "colearner", "last"):
        a, b = tensors(resumed, name), tensors(twin, name)
        apart = {
            k: float((a[k] - b[k]).abs().max())
            for k in a
            if not (k.startswith("conv") and k.endswith("bias"))
        }
        assert max(apart.values()) < 1e-8


@pytest.mark.parametrize("path", ["plain", "fast", "captured fast"])
@pytest.mark.parametrize("name", ["maml", "boil", "more_maml"])
def test_with_gamma_0_cml_is_its_base(name, path):
    (base, step), (cml, with_co) = (
        on_the_gpu(name, path),
        on_the_gpu(f"{name}+cml", path, gamma=0.0),
    )
    for number in range(5):
        task = there(images(name=f"step {number}"), GPU)
        step(task)
        with_co(task)
    got, want = (
        {key: p.detach() for key, p in groups["base"].items()}
        for groups in (cml.groups, base.groups)
    )
    assert (
        relative(
            {("base", k): v for k, v in got.items()}, {("base", k): v for k, v in want.items()}
        )
        < 1e-9
    )


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_captured_is_fast_in_every_precision(precision, settings):
    spec = small("mamlpp+cml", steps=8, precision=precision)
    finished = [
        run(
            spec, replace(settings, device="cuda", path=path, results=settings.results / path)
        ).content["curves"]
        for path in ("fast", "captured")
    ]
    losses = [torch.tensor([v for v in c["train"]["loss_meta"] if v is not None]) for c in finished]
    assert torch.allclose(*losses, rtol=1e-4 if precision == "float32" else 2e-2), losses


def test_the_sinusoid_too(settings):
    spec = sinusoid_spec("maml+cml")
    cpu = run(spec, replace(settings, path="fast"))
    gpu = run(spec, replace(settings, device="cuda", results=settings.results / "gpu"))
    assert gpu.content["engine"]["path"] == "captured"
    losses = [torch.tensor(r.content["curves"]["validation"]["loss_meta"]) for r in (cpu, gpu)]
    assert torch.allclose(*losses, rtol=1e-3)
