"""Several seeds as one program (engine/seeds.py): each run is as if it were trained alone.

Programs are interpreted here, operation by operation, unless a test says compiled; their batching
over seeds is the same.
"""

from dataclasses import replace

import numpy as np
import pytest

from cml_bench.engine import checkpoint, compiled, jobs, seeds
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.records import Store
from tests.helpers.runs import same, tensors
from tests.helpers.seeds import SEEDS, equal, killed, records, replace_by, seeded
from tests.helpers.specs import glyph_spec, sinusoid_spec

SCHEDULED = {
    "epoch_steps": 2,
    "msl_epochs": 3,
    "first_order_to_second_order_epoch": 1,
    "inner_steps": 2,
}
METHODS = {"maml": {"inner_steps": 2}, "maml+cml": {}}
MORE = {
    "maml+cml first order": {"first_order": True},
    "fomaml": {},
    "fomaml+cml": {},
    "more_maml": {},
    "more_maml+cml": {},
    "boil": {},
    "boil+cml": {},
    "cl": {},
    "anil": {"inner_steps": 2},
    "anil+cml": {},
    "metasgd": {"inner_steps": 2},
    "metasgd+cml": {},
    "reptile": {"inner_batch": 4},
    "cavia": {"inner_steps": 2, "context": 5},
    "cavia+cml": {"context": 5},
    "mamlpp": SCHEDULED,
    "mamlpp+cml": SCHEDULED,
}


def alone(settings: Settings) -> Settings:
    """The settings for the same runs alone, operation by operation, in another folder."""
    return replace(settings, results=settings.results / "alone", path="fast")


def close(a, b, limit):
    ours, theirs = (
        {
            (name, key): value
            for name in ("last", "model")
            for key, value in tensors(r, name).items()
        }
        for r in (a, b)
    )
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert (value - theirs[key]).abs().max() <= limit, key


@pytest.mark.parametrize(
    "name", [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_every_method_is_what_it_is_alone(name, together):
    """In float64, after 12 steps of Adam with learning rates, clamp and a reset of its averages."""
    protocol = {
        "optimizer_reset_every": 8,
        "clamp": 0.5,
        "outer_lr_min": 1e-5,
        "epoch_steps": 3,
        "weight_decay": 1e-3,
    }
    options = (METHODS | MORE)[name]
    specs = seeded(
        name.split()[0], method_options=options, precision="float64", protocol_options=protocol
    )
    run_all(specs, together)
    run_all(specs, alone(together))
    for ours, theirs in zip(records(specs, together), records(specs, alone(together)), strict=True):
        assert ours.content["engine"] == theirs.content["engine"] | {"path": "compiled", "seeds": 3}
        close(ours, theirs, 1e-8)
        for key, values in ours.arrays.items():
            assert np.allclose(values, theirs.arrays[key], atol=1e-8, rtol=1e-7), key
        for kind in ("train", "validation"):
            for key, values in ours.content["curves"][kind].items():
                assert values[1:] == pytest.approx(
                    theirs.content["curves"][kind][key][1:], rel=1e-7
                ), key


def test_gamma_zero_is_the_baseline_bit_for_bit(together):
    base, zero = seeded("maml"), seeded("maml+cml", method_options={"cml": {"gamma": 0.0}})
    run_all(base + zero, together)
    for a, b in zip(records(base, together), records(zero, together), strict=True):
        assert same(tensors(a, "model"), tensors(b, "model"))
        assert np.array_equal(a.arrays["meta@1"], b.arrays["meta@1"])


def test_each_run_has_its_own_log_and_result(together):
    specs = seeded()
    said = []
    run_all(specs, replace(together, report=said.append))
    assert any("3 seeds in one program" in line for line in said)
    for spec, record in zip(specs, records(specs, together), strict=True):
        log = (record.folder / "run.log").read_text()
        assert f"seed {spec.seed}" in log
        assert not any(f"seed {other}" in log for other in SEEDS if other != spec.seed)
        assert checkpoint.load(record.folder) is None
        assert not list(record.folder.glob("*.tmp*"))
    finals = [tensors(record, "last") for record in records(specs, together)]
    assert not same(finals[0], finals[1])


def test_a_program_that_cannot_be_made_fails_every_run_of_its_own_and_no_other(
    together, monkeypatch
):
    specs = seeded()

    def refused(graph, arguments):
        raise UserError("the outer step cannot be compiled here")

    monkeypatch.setattr(seeds, "compiled", refused)
    with pytest.raises(UserError) as caught:
        run_all([*specs, sinusoid_spec("sharp_maml", steps=2)], together)
    assert all(
        f"seed {seed}: the outer step cannot be compiled here" in str(caught.value)
        for seed in SEEDS
    )
    assert all((Store(together.results).folder(spec) / "error.log").exists() for spec in specs)
    assert Store(together.results).read(sinusoid_spec("sharp_maml", steps=2)) is not None


def test_a_run_that_another_process_holds_fails_alone(together):
    from cml_bench.system.locks import run_lock

    specs = seeded()
    with (
        run_lock(Store(together.results).folder(specs[1])),
        pytest.raises(UserError, match="seed 1"),
    ):
        run_all(specs, together)
    assert [record is not None for record in records(specs, together)] == [True, False, True]


@pytest.mark.slow
def test_a_program_with_something_of_one_seed_in_it_is_not_shared(together, monkeypatch):
    specs, single = (
        seeded(),
        replace(together, results=together.results / "single", seeds_at_once=1),
    )
    run_all(specs, single)
    monkeypatch.setattr(seeds, "constant_free", lambda graph: False)
    run_all(specs, together)
    for a, b in zip(records(specs, together), records(specs, single), strict=True):
        assert equal(a, b)


@pytest.mark.slow
def test_a_phase_whose_program_is_not_shared_goes_on_seed_by_seed(together, monkeypatch):
    """MAML++ changes its program on the way.

    From then on each seed has tensors of its own again.
    """
    specs = seeded("mamlpp", method_options=SCHEDULED, precision="float64")
    run_all(specs, alone(together))
    asked = []
    monkeypatch.setattr(
        seeds, "constant_free", lambda graph: asked.append(graph) or len(asked) != 2
    )
    run_all(specs, together)
    assert len(asked) > 2
    for a, b in zip(records(specs, together), records(specs, alone(together)), strict=True):
        close(a, b, 1e-8)


def batches(specs, settings):
    return [[(spec.method, spec.seed) for spec in part] for part in jobs._batches(specs, settings)]


def test_who_meets(together, monkeypatch):
    both = [spec for pair in zip(seeded("maml"), seeded("maml+cml"), strict=True) for spec in pair]
    base, cml = ([(method, seed) for seed in SEEDS] for method in ("maml", "maml+cml"))
    assert batches(both, together) == [base, cml]
    assert batches(both, replace(together, seeds_at_once=2)) == [
        base[:2],
        base[2:],
        cml[:2],
        cml[2:],
    ]
    singles = [[(spec.method, spec.seed)] for spec in both]
    for changes in (
        {"seeds_at_once": 1},
        {"path": "fast"},
        {"path": "plain"},
        {"path": "auto"},
        {"device": "cuda:0"},
    ):
        assert batches(both, replace(together, **changes)) == singles, changes
    assert batches(seeded("sharp_maml"), together) == [[("sharp_maml", seed)] for seed in SEEDS]
    noisy = seeded(protocol_options={"gradient_noise": 0.1})
    assert batches(noisy, together) == [[("maml+cml", seed)] for seed in SEEDS]
    other = [sinusoid_spec(shot=shot, seed=seed) for shot in (5, 10) for seed in (0, 1)]
    assert batches(other, together) == [[("maml", 0), ("maml", 1)]] * 2
    monkeypatch.setattr(compiled, "WORTHWHILE", 12)
    monkeypatch.setattr(compiled, "available", lambda: True)
    assert batches(both, replace(together, path="auto")) == [base, cml]
    glyphs = [glyph_spec(seed=seed) for seed in (0, 1)]
    assert batches(glyphs, replace(together, path="auto")) == [[("maml", 0)], [("maml", 1)]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options", "at_once"),
    [
        ("maml", {}, 1),
        ("maml", {}, 3),
        ("maml", {"first_order": True}, 3),
        ("mamlpp", {"inner_steps": 3}, 1),
        ("boil", {}, 3),
        ("more_maml", {}, 3),
    ],
)
def test_gamma_zero_is_the_baseline_in_compiled_programs_too(settings, method, options, at_once):
    """They are equal bit for bit, although they are two different programs."""
    if not compiled.available():
        pytest.skip("no C++ compiler: the compiled path is not offered")
    truly = replace(settings, path="compiled", checkpoint_seconds=1e9)
    base = seeded(method, method_options=options)
    zero = seeded(method + "+cml", method_options={**options, "cml": {"gamma": 0.0}})
    there = replace(truly, seeds_at_once=at_once)
    run_all(base + zero, there)
    for a, b in zip(records(base, there), records(zero, there), strict=True):
        assert a.content["engine"] == b.content["engine"]
        assert same(tensors(a, "model"), tensors(b, "model"))
        assert all(np.array_equal(values, b.arrays[key]) for key, values in a.arrays.items())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_compiled_program_of_several_seeds(precision, settings, tmp_path, monkeypatch):
    """The program is compiled, and a restart gives the same bits.

    The restart makes the program anew; one seed is finished, the others have checkpoints of
    different steps.
    """
    if not compiled.available():
        pytest.skip("no C++ compiler: the compiled path is not offered")
    truly = replace(settings, path="compiled", checkpoint_seconds=1e9)
    specs = seeded(precision=precision)
    killed(specs, truly, 7, saved=(1, 3, 5))
    twins = replace(truly, results=tmp_path / "twin")
    run_all(specs, twins)
    replace_by(records(specs, twins)[0].folder, Store(truly.results).folder(specs[0]))
    monkeypatch.setattr(compiled, "_programs", {})
    run_all(specs, truly)
    for a, b in zip(records(specs, truly), records(specs, twins), strict=True):
        assert equal(a, b)
    if precision == "float64":
        plain = replace(truly, results=tmp_path / "plain", path="plain")
        for spec, record in zip(specs, records(specs, twins), strict=True):
            close(record, run(spec, plain), 1e-8)
