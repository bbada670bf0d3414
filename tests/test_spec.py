"""Ids of runs: what they depend on, and that they never move unnoticed."""

import json
from pathlib import Path

import pytest
from pydantic import Field

from cml_bench.errors import UserError
from cml_bench.spec import Evaluation, Options, RunSpec, added, canonical
from tests.helpers.specs import glyph_spec, sinusoid_spec

GOLDEN = Path(__file__).parent / "golden" / "spec_ids.json"


def test_golden_ids():
    """Stored specifications keep their ids; a failure names the key that moved."""
    for name, stored in json.loads(GOLDEN.read_text()).items():
        fresh = canonical(
            {"sinusoid": sinusoid_spec, "glyphs": glyph_spec}[name.split()[0]](name.split()[1])
        )
        moved = {
            key: (stored["spec"].get(key), fresh.get(key))
            for key in {*fresh, *stored["spec"]}
            if json.loads(json.dumps(fresh.get(key))) != stored["spec"].get(key)
        }
        assert not moved, f"{name}: (stored, now) = {moved}"
        assert RunSpec.model_validate(stored["spec"]).id == stored["id"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"steps": 31},
        {"shot": 2},
        {"query": 6},
        {"precision": "float64"},
        {"data_id": "other"},
        {"method_options": {"inner_lr": 0.011}},
        {"protocol_options": {"outer_lr": 0.002}},
        {"method": "maml+cml"},
    ],
)
def test_everything_that_changes_a_result_changes_the_id(change):
    assert sinusoid_spec(**change).id != sinusoid_spec().id


def test_evaluation_is_not_in_the_id():
    assert sinusoid_spec(evaluation=Evaluation(tasks=9, query=2)).id == sinusoid_spec().id


def test_an_option_added_later_keeps_old_ids_while_it_has_its_old_value():
    class Before(Options):
        rate: float = 0.1

    class After(Options):
        rate: float = 0.1
        trick: bool = added(False)

    class Changed(Options):
        rate: float = 0.1
        trick: bool = Field(False)

    assert canonical(After()) == canonical(Before())
    assert canonical(After(trick=True)) == {"rate": 0.1, "trick": True}
    assert canonical(Changed()) != canonical(Before())


def test_unknown_and_wrong_options_are_named():
    class Known(Options):
        rate: float = 0.1

    with pytest.raises(UserError, match=r"somewhere: unknown key 'ratte'; known keys: rate"):
        Known.read({"ratte": 1}, "somewhere")
    with pytest.raises(UserError, match=r"rate: .*valid number.*'fast'"):
        Known.read({"rate": "fast"}, "somewhere")


def test_yaml_numbers_written_as_text_are_numbers():
    class Known(Options):
        rate: float = 0.1

    assert Known.read({"rate": "1e-3"}, "somewhere").rate == 0.001


def test_a_spec_survives_json():
    spec = glyph_spec("maml+cml")
    again = RunSpec.model_validate(json.loads(json.dumps(canonical(spec))))
    assert again.id == spec.id
    assert spec.folder == f"maml+cml-glyphs-5w1s-s0-{spec.id[:8]}"


def test_what_an_evaluation_covers():
    done = Evaluation(tasks=100, query=15, inner_steps=(0, 1))
    assert done.covers(Evaluation(tasks=50, query=15, inner_steps=(1,)))
    assert not done.covers(Evaluation(tasks=101, query=15))
    assert not done.covers(Evaluation(tasks=50, query=5))
    assert not done.covers(Evaluation(tasks=50, query=15, inner_steps=(2,)))
