"""Several seeds in one program when one of them stops, fails, diverges or is finished.

All runs equal the undisturbed ones bit for bit. Programs are interpreted, operation by operation.
"""

from dataclasses import replace

import pytest
import torch

from cml_bench.engine import checkpoint, seeds
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.records import Store
from tests.helpers.seeds import SEEDS, equal, interpret, killed, met, records, replace_by, seeded


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """The records of seeded(), trained without any disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    there = met(Settings(results=folder, data_dir=data_dir, report=lambda text: None))
    with pytest.MonkeyPatch.context() as patch:
        interpret(patch)
        run_all(seeded(), there)
    return records(seeded(), there)


@pytest.mark.parametrize("at_step", [pytest.param(3, marks=pytest.mark.slow), 8])
def test_resumed_runs_equal_their_uninterrupted_twins(at_step, together, undisturbed):
    specs = seeded()
    killed(specs, together, at_step)
    assert [checkpoint.load(Store(together.results).folder(spec))["step"] for spec in specs] == [
        at_step
    ] * 3
    said = []
    run_all(specs, replace(together, report=said.append))
    assert sum(f"resumed at step {at_step}" in line for line in said) == 3
    assert not any("bit for bit" in line for line in said)
    assert all(equal(a, b) for a, b in zip(records(specs, together), undisturbed, strict=True))


def watch_places(patch, seen):
    """Note which seeds are due at each step, and check the places of all seeds.

    Each training that is due stands at its place; the first one fills all other places.
    """
    due, advanced = {}, seeds.Together._advanced

    def noted(self, trainings):
        due.clear()
        due.update(trainings)
        seen.append(list(due))
        return advanced(self, trainings)

    def watched(graph, arguments):
        def play(*given):
            weight = given[0]  # the first parameter, stacked over seeds
            lead = next(iter(due))
            assert len(weight) == len(SEEDS)
            for place in range(len(SEEDS)):
                training = due.get(place, due[lead])
                assert torch.equal(weight[place], next(iter(training.groups["base"].values())))
            return graph(*given)

        return play

    patch.setattr(seeds.Together, "_advanced", noted)
    patch.setattr(seeds, "compiled", watched)


def test_checkpoints_of_different_steps_change_nothing(together, undisturbed, monkeypatch):
    """Each run saves by its own clock; runs that are behind catch up in the shared program."""
    specs, said, seen = seeded(), [], []
    killed(specs, together, 9, saved=(2, 9, 5))
    watch_places(monkeypatch, seen)
    run_all(specs, replace(together, report=said.append))
    assert seen == 3 * [[2]] + [[0, 2]] + 3 * [[0, 1, 2]]
    for step in (8, 9, 5):
        assert sum(f"resumed at step {step}" in line for line in said) == 1
    assert not any("bit for bit" in line for line in said)
    assert all(equal(a, b) for a, b in zip(records(specs, together), undisturbed, strict=True))


def test_what_was_finished_before_changes_nothing_of_the_others(together, undisturbed, monkeypatch):
    """This happens when a process dies between two tests: the program keeps its number of seeds."""
    specs, numbers = seeded(), []
    monkeypatch.setattr(
        seeds, "compiled", lambda graph, arguments: numbers.append(len(arguments[0])) or graph
    )
    killed(specs, together, 9)
    replace_by(undisturbed[0].folder, Store(together.results).folder(specs[0]))
    run_all(specs, together)
    for a, b in zip(undisturbed, records(specs, together), strict=True):
        assert equal(a, b)
        assert b.content["engine"]["seeds"] == 3
    assert set(numbers) == {3}


def test_a_seed_that_diverges_leaves_the_others_alone(together, undisturbed):
    specs = seeded()
    original = Training.begin_step

    def begin_step(self):
        batch = original(self)
        if self.spec.seed == 1 and self.step == 7:
            batch.query.y.fill_(float("nan"))
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "begin_step", begin_step)
        with pytest.raises(UserError, match=r"seed 1: diverged, its loss is not finite at step 8"):
            run_all(specs, together)
    good, bad, last = records(specs, together)
    assert bad.status == "diverged"
    assert (good.status, last.status) == ("finished", "finished")
    assert equal(good, undisturbed[0])
    assert equal(last, undisturbed[2])


@pytest.mark.parametrize("victim", [0, 1])  # seed 0 is the one whose step moves the others
def test_a_seed_that_fails_leaves_the_others_alone(victim, together, undisturbed):
    specs, stamp = seeded(), together.results / "stamp.json"
    original = Training._pause

    def pause(self):
        if self.spec.seed == victim and self.step == 8:
            raise OSError("no space left on device")
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_pause", pause)
        with pytest.raises(UserError, match=rf"seed {victim}: OSError: no space left") as caught:
            run_all(specs, together, stamp)
    assert sum(f"seed {seed}" in str(caught.value) for seed in SEEDS) == 1
    assert not stamp.exists()
    folder = Store(together.results).folder(specs[victim])
    assert "no space left" in (folder / "error.log").read_text()
    for spec, good, kept in zip(specs, undisturbed, records(specs, together), strict=True):
        assert kept is None if spec.seed == victim else equal(good, kept)
    run_all(specs, together, stamp)
    assert equal(undisturbed[victim], records(specs, together)[victim])
