"""Sweeps in a configuration and on the command line: which settings are tried, and bad input."""

import json
import os

import pytest
import yaml

from cml_bench.__main__ import main
from cml_bench.commands_run import _assignments
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.spec import Protocol
from cml_bench.study import config, selection, watching
from cml_bench.study.plan import read_plan
from cml_bench.study.schema import Sweep
from cml_bench.study.sweeps import settings
from cml_bench.system import workflow
from tests.helpers.simulated import LEVEL, finish
from tests.helpers.swept import STEPS, content, finished, planned, tried_ids

FORTY = {  # five options of 40 values
    name: list(range(1, 41))
    for name in ("inner_lr", "inner_steps", *(f"protocol.{k}" for k in ("patience", "clamp")))
} | {"protocol.meta_batch": list(range(1, 41))}
LOG = {"low": 0.01, "high": 1, "log": True}


def sweep(**changes):
    return {"seeds": 2, "methods": {"maml": STEPS, "maml+cml": STEPS}, **changes}


def test_a_grid_has_every_combination_in_the_order_of_its_lists():
    asked = Sweep.model_validate({"methods": {"maml": {"inner_lr": [1, "1e-3"], "b": [True, "x"]}}})
    assert settings(asked, "maml") == [
        {"inner_lr": 1, "b": True},
        {"inner_lr": 1, "b": "x"},
        {"inner_lr": 0.001, "b": True},
        {"inner_lr": 0.001, "b": "x"},
    ]
    assert asked.seeds == (1000, 1001, 1002)


def test_random_settings_follow_from_the_seed_and_are_alike_for_methods_with_one_option():
    methods = {"maml": {"inner_lr": LOG}, "maml+cml": {"cml.gamma": [0.2, 1], "inner_lr": LOG}}
    asked = {"methods": methods, "draw": 8, "seed": 3}
    one, again = (settings(Sweep.model_validate(asked), "maml") for _ in range(2))
    assert one == again
    assert len({s["inner_lr"] for s in one}) == 8
    assert all(0.01 <= s["inner_lr"] <= 1 for s in one)
    below = sum(s["inner_lr"] < 0.1 for s in settings(Sweep(**{**asked, "draw": 400}), "maml"))
    assert 140 < below < 260, "half of the ratios"
    cml = settings(Sweep.model_validate(asked), "maml+cml")
    assert [s["inner_lr"] for s in cml] == [s["inner_lr"] for s in one]
    assert {s["cml.gamma"] for s in cml} == {0.2, 1}
    other = settings(Sweep.model_validate({**asked, "seed": 4}), "maml")
    assert other != one


def test_methods_are_drawn_the_same_values_of_a_shared_option_whatever_else_they_have():
    rates = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    asked = {
        "maml": {"inner_lr": rates, "first_order": [True, False]},
        "maml+cml": {"cml.gamma": [0.2, 1, 2], "inner_lr": rates, "protocol.outer_lr": LOG},
        "boil": {"first_order": [True, False], "inner_lr": rates},
    }
    for seed in range(5):
        drawn = Sweep.model_validate({"methods": asked, "draw": 11, "seed": seed})
        maml, cml, boil = (settings(drawn, method) for method in asked)
        assert [s["inner_lr"] for s in maml] == [s["inner_lr"] for s in cml]
        assert maml == boil
        assert len({*map(str, maml)}) == 11
        assert {s["inner_lr"] for s in maml[:6]} == {*rates}, "each once before any twice"
    whole = Sweep.model_validate({"methods": {"maml": STEPS, "boil": STEPS}, "draw": 6})
    assert len({*map(str, settings(whole, "maml"))}) == 6, "all that there are"


MEASURES = ["val_tasks", "val_every", "val_fresh", "selection", "save_last", "ensemble_top_k"]


@pytest.mark.parametrize("name", MEASURES)
def test_what_a_setting_is_scored_with_cannot_be_swept(name):
    default = Protocol.model_fields[name].default
    asked = content(sweep(methods={"maml": {f"protocol.{name}": [default]}}))
    with pytest.raises(UserError, match=rf"maml: protocol\.{name} is part of how settings"):
        planned(asked)


def test_every_option_of_validation_is_one_of_them():
    assert {name for name in Protocol.model_fields if name.startswith("val")} <= {*MEASURES}


def test_a_setting_is_set_wherever_its_option_belongs():
    options = {"cml.gamma": [0.3], "network.filters": [16], "protocol.outer_lr": [0.02]}
    plan = planned(content(sweep(methods={"maml+cml": options})))
    (run_id, _) = plan.sweeps[0].settings[0].tried
    spec = plan.specs[run_id]
    assert (spec.gamma, spec.network.options["filters"], spec.protocol.outer_lr) == (0.3, 16, 0.02)
    (published, *_) = (plan.specs[i] for i in plan.members["e"]["maml+cml"][1])
    assert (published.gamma, published.protocol.outer_lr) == (1.0, 0.001)


def test_a_study_with_a_sweep_keeps_the_ids_of_its_runs_and_its_plan_is_read_again(tmp_path):
    without = content()
    del without["experiments"]["e"]["sweep"]
    plan = planned(content())
    assert planned(without).specs.keys() <= plan.specs.keys()
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.json_values()))
    assert read_plan(path).json_values() == plan.json_values()


def test_a_job_never_trains_a_setting_beside_another():
    plan = planned(content(runs_per_job=50))
    owner = {
        run: (sweep.method, place)
        for sweep in plan.sweeps
        for place, setting in enumerate(sweep.settings)
        for run in setting.tuned
        if run not in plan.members["e"][sweep.method][1]
    }
    of_jobs = [{owner.get(run) for run in job.runs} for job in plan.jobs]
    assert max(map(len, of_jobs)) == 1
    assert len(of_jobs) == 1 + 1 + 2 * 5, "the published setting is one of the six"
    without = content(runs_per_job=50)
    del without["experiments"]["e"]["sweep"]
    assert {job.id for job in planned(without).jobs} <= {job.id for job in plan.jobs}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (sweep(methods={"boil": STEPS}), "sweep names the method 'boil'; the experiment has: maml"),
        (
            sweep(methods={"maml": {"inner_rate": [1]}}),
            "sweep of maml: unknown option 'inner_rate'. Did you mean 'inner_lr'",
        ),
        (
            sweep(methods={"maml": {"cml.gamma": [1]}}),
            "sweep of maml: unknown option 'cml.gamma'",
        ),
        (
            sweep(methods={"maml": {"protocol.outer": [1]}}),
            "sweep of maml: unknown option 'protocol.outer'. Did you mean 'protocol.outer_lr'",
        ),
        (
            sweep(methods={"maml": {"inner_lr": [0.5, -1]}}),
            "sweep of maml, setting inner_lr -1, method maml: inner_lr: .*greater than or equal to",
        ),
        (
            sweep(methods={"maml": {"protocol.outer_lr": [-1]}}),
            "sweep of maml, setting protocol.outer_lr -1, protocol_options: outer_lr: .*greater",
        ),
        (sweep(methods={"maml": {}}), "sweep of maml names no option"),
        (sweep(methods={}), r"sweep\.methods: .*at least 1"),
        (sweep(methods={"maml": {"inner_lr": []}}), "inner_lr needs distinct values"),
        (sweep(methods={"maml": {"inner_lr": [1, 1.0]}}), "inner_lr needs distinct values"),
        (sweep(methods={"maml": {"inner_lr": LOG}}), "inner_lr has a range, and a grid needs"),
        (
            sweep(methods={"maml": {"inner_lr": {"low": 2, "high": 1}}}, draw=2),
            "low must be below high",
        ),
        (
            sweep(methods={"maml": {"inner_lr": 0.5}}),
            r"maml\.inner_lr: Value error, needs a list of numbers and words, such .* \(got 0\.5\)",
        ),
        (
            sweep(methods={"maml": {"inner_lr": [[1]]}}),
            "inner_lr: Value error, needs a list .*an option that is itself a list cannot be swept",
        ),
        (
            sweep(methods={"maml": {"inner_lr": {"low": 1}}}, draw=2),
            r"methods\.maml\.inner_lr\.high: Field required",
        ),
        (sweep(draw=7), "sweep of maml has 6 different settings, and 7 are to be drawn"),
        (
            sweep(methods={"maml": {"first_order": [True]}}, draw=2),
            "sweep of maml has 1 different setting, and 2 are to be drawn",
        ),
        (
            sweep(methods={"maml": {"inner_lr": {"low": 1, "high": 1.01}}}, draw=3),
            "after 2 of 3 settings, none was drawn that is new for every method",
        ),
        (sweep(methods={"maml": FORTY}), "has 102,400,000 settings, and at most 200 can be tried"),
        (sweep(methods={"maml": FORTY}, draw=201), "has 201 settings, and at most 200 can be"),
        (sweep(seeds=[4, 9]), "the seed 4 is of the selection and of the report"),
        (sweep(seeds=0), r"sweep\.seeds: .*at least 1"),
        (sweep(draw="all"), r"sweep\.draw"),
        (sweep(budget=3), "unknown key 'experiments.e.sweep.budget'"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_sentence(asked, message):
    with pytest.raises(UserError, match=message) as caught:
        planned(content(asked))
    assert str(caught.value).startswith(("my.yaml", "unknown key"))
    assert "\n" not in str(caught.value)


def test_what_a_table_shows_must_be_tested_in_every_setting():
    asked = content(sweep(methods={"maml": {"inner_steps": [1, 2]}}))
    asked["experiments"]["e"]["evaluation"]["inner_steps"] = [1]
    with pytest.raises(UserError, match="row 'MAML, tuned' shows the results after 2 inner steps"):
        planned(asked)


def test_a_table_cannot_show_what_is_not_tested():
    asked = content()
    asked["tables"]["table1"]["rows"] = [{"label": "A", "run": "maml_tried_1"}]
    with pytest.raises(UserError, match="row 'A' shows test results, and 'maml_tried_1' of the ex"):
        planned(asked)


def test_class_splits_cannot_be_swept():
    asked = content(splits=["r0"], data="sbm", network="gcn", way=2, seeds=[0])
    with pytest.raises(UserError, match="selected over seeds, and this experiment has class split"):
        planned(asked)


def test_a_method_of_the_name_of_a_setting_is_refused():
    asked = content()
    asked["experiments"]["e"]["methods"]["maml_tuned"] = {"method": "boil"}
    with pytest.raises(UserError, match="has a method called 'maml_tuned' already; rename"):
        planned(asked)


# -- options that are set beside a configuration


def given(*words, **changes):
    asked = content()
    del asked["experiments"]["e"]["sweep"]
    return config.complete({**asked, "set": " ".join(words), **changes}, "my.yaml")


def test_one_value_takes_the_place_of_the_configurations():
    asked = given(
        "e.maml.inner_lr=0.3", "e.maml+cml.cml.norm=body", "e.maml.protocol.outer_lr=1e-2"
    )
    methods = asked["experiments"]["e"]["methods"]
    assert methods["maml"] == {
        "options": {"inner_lr": 0.3},
        "protocol_options": {"outer_lr": "1e-2"},
    }
    plan = planned(asked)
    spec = plan.specs[plan.members["e"]["maml+cml"][1][0]]
    assert (spec.options["inner_lr"], spec.protocol.outer_lr) == (0.3, 0.01), "as its baseline"
    assert spec.options["cml"]["norm"] == "body"
    assert not plan.sweeps


def test_several_values_are_a_sweep_and_join_the_one_that_is_there():
    asked = given("e.maml.inner_lr=0.1,0.5", "e.maml+cml.cml.gamma=0.2,0.5,1")
    plan = planned(asked)
    assert [(s.method, [x.values for x in s.settings]) for s in plan.sweeps] == [
        ("maml", [{"inner_lr": 0.1}, {"inner_lr": 0.5}]),
        ("maml+cml", [{"cml.gamma": 0.2}, {"cml.gamma": 0.5}, {"cml.gamma": 1}]),
    ]
    both = config.complete({**content(), "set": ["e.maml.inner_steps=1,5"]}, "my.yaml")
    assert both["experiments"]["e"]["sweep"]["methods"]["maml"] == {**STEPS, "inner_steps": [1, 5]}


@pytest.mark.parametrize(
    ("name", "word", "changed"),
    [
        ("omniglot_methods", "omniglot_five_steps.maml.inner_lr=0.2", {"maml"}),
        ("graphs", "citeseer.gmeta+cml.cml.gamma=0.5", {"gmeta+cml"}),
        ("omniglot_tuned", "omniglot.maml.inner_lr=0.1,0.3", {"maml"}),
    ],
)
def test_nothing_else_is_set_where_a_file_repeats_a_part_by_an_anchor(name, word, changed):
    path = f"configs/{name}.yaml"
    experiment = word.partition(".")[0]
    before, after = config.merged([path]), config.merged([path], [word])
    others = {key for key in before["experiments"] if key != experiment}
    assert others == {
        key for key in others if after["experiments"][key] == before["experiments"][key]
    }
    old, new = (side["experiments"][experiment] for side in (before, after))
    for part in (side for side in ("methods", "sweep") if side in old):
        a, b = (side[part].get("methods", side[part]) for side in (old, new))
        assert {key for key in a if a[key] != b[key]} <= changed
    assert old != new


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("e.maml.inner_lr", r"set e\.maml\.inner_lr is not EXPERIMENT\.METHOD\.OPTION=VALUE"),
        ("e.maml=3", "is not EXPERIMENT"),
        ("e.maml.inner_lr=1,,2", "is not EXPERIMENT"),
        ("f.maml.inner_lr=1,2", r"experiment 'f'\. .*Known: e"),
        ("e.boil.inner_lr=1,2", r"method of e 'boil'\..*Known: maml, maml\+cml"),
        ("e.maml.inner_lr={a},2", "is no number or word"),
        ("e.maml.rate=1,2", "^my.yaml, experiment 'e', sweep of maml: unknown option 'rate'"),
        ("e.maml.rate=1", "unknown key 'rate'"),
    ],
)
def test_an_assignment_that_cannot_be_is_refused_in_one_sentence(word, message):
    with pytest.raises(UserError, match=message) as caught:
        planned(given(word))
    assert "\n" not in str(caught.value)


def test_what_set_holds_must_be_words():
    with pytest.raises(UserError, match="set holds 3, which is no assignment"):
        given(set=[3])


def test_the_commands_hand_assignments_on(tmp_path):
    words = [
        "table1",
        "--set",
        "e.maml.inner_lr=0.1,0.5",
        "e.maml.first_order=true",
        "--cores",
        "2",
    ]
    rest, found = _assignments(words)
    assert (rest, found) == (["table1", "--cores", "2"], words[2:4])
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(content()))
    command = workflow.command(path, rest, found)
    place = command.index("--config")
    assert command[place + 1] == f"set={words[2]} {words[3]}"
    assert command[place + 2].startswith("--"), "it takes no target for one of its values"
    command = workflow.command(path, ["--config", "seeds=3"], found)
    assert command[-3:] == ["--config", f"set={words[2]} {words[3]}", "seeds=3"]
    merged = config.merged([path], ["e.maml.inner_steps=2"])
    assert merged["experiments"]["e"]["methods"]["maml"] == {"options": {"inner_steps": 2}}


def test_every_assignment_counts(tmp_path, monkeypatch, capsys):
    path, seen = tmp_path / "a.yaml", []
    given = [f"e.maml.{word}" for word in ("inner_lr=0.3", "inner_steps=2", "first_order=true")]
    by_snakemake = "e.maml.adapt_norm=true e.maml.inner_lr=0.4"
    path.write_text(yaml.safe_dump({**content(), "set": given[0]}))
    monkeypatch.setattr(os, "execv", lambda program, words: seen.extend(words))
    monkeypatch.setenv("CML_BENCH_COMMAND", "")  # and the command's own value goes with the test
    assert main(["run", str(path), f"--set={given[1]}", "table1", "--set", given[2]]) == 0
    assert f"set={' '.join(given)}" in seen
    assert not [word for word in seen if word.startswith("--set")]
    assert "table1" in seen
    assert main(["run", str(path), "--config", f"set={by_snakemake}", "--set", given[1]]) == 0
    assert seen[-2:] == ["--config", f"set={given[0]} {by_snakemake} {given[1]}"]
    plan = ["plan", "--config", str(path), "--json", "--set", given[1], "--set", given[2]]
    assert main(plan) == 0
    methods = json.loads(capsys.readouterr().out)["study"]["experiments"]["e"]["methods"]
    assert methods["maml"]["options"] == {"inner_lr": 0.3, "inner_steps": 2, "first_order": True}


# -- runs of the selection


def test_a_run_of_the_selection_is_trained_and_not_tested_until_a_study_asks(settings):
    small = {"steps": 2, "network_options": {"filters": 4}, "data_options": {"size": 16}}
    small |= {"protocol_options": {"val_every": 1, "val_tasks": 4}}
    plan = planned(content(**small))
    spec = plan.specs[plan.sweeps[1].settings[0].tried[0]]
    record = run(spec, settings)
    assert (record.results, record.evaluation.tasks, record.arrays) == ({}, 0, {})
    assert len(record.curves.validation.score("meta")) == 3
    assert Store(settings.results).usable(spec)[1] == ""
    assert record.lacks(spec.evaluation) == ""
    again = run(spec, settings)
    assert again.created == record.created, "it is finished"

    wanted = plan.specs[plan.members["e"]["maml+cml"][1][0]].evaluation
    asked = spec.model_copy(update={"evaluation": wanted})
    assert "100 are asked for" in record.lacks(wanted)
    tested = run(asked, settings)
    assert len(tested.arrays["meta@1"]) == 100
    assert tested.curves == record.curves
    assert run(spec, settings).results == tested.results, "and these stay"


def test_a_running_study_is_watched_beyond_its_selection(tmp_path):
    plan = planned({**content(), "results": str(tmp_path)})
    ids = tried_ids(plan)
    watch = watching.Watch(selection.narrowed(plan, Store(tmp_path)), tmp_path)
    watch.poll()
    assert len(watch.plan.runs) == len(ids) + 10
    finished(plan, tmp_path, {"maml": {"inner_lr": 1.0, "protocol.outer_lr": 0.01}})
    watch.poll()
    watch.poll()
    assert len(watch.plan.runs) == len(ids) + 10 + 10
    assert (watch.ended, watch.over) == (len(ids), False)
    narrow = selection.narrowed(plan, Store(tmp_path))
    finish(narrow, tmp_path, LEVEL, only=lambda spec: spec.id not in ids)
    watch.poll()
    assert watch.over
