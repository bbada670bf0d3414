"""A row and its baseline differ in the method's own keys and the co-learner's, or are not tested.

Also here: what an entry starts from, and readings that are at chance by construction.
"""

import pytest

from cml_bench.costs import estimate
from cml_bench.errors import UserError
from cml_bench.evidence.build import build
from cml_bench.report import forest, write
from cml_bench.spec import Component
from cml_bench.study import cost, likes
from cml_bench.study.config import parse, read
from cml_bench.study.plan import Plan, read_plan
from cml_bench.study.resolve import resolve
from tests.helpers.plans import dumped
from tests.helpers.simulated import LEVEL, ROWS, experiment, finish
from tests.helpers.specs import graph_spec, sinusoid_spec


def plan(methods: dict, rows: list[dict], **changes) -> Plan:
    """A study of these entries and rows on glyphs, five seeds."""
    config = {
        "study": "likes",
        "experiments": {"e": experiment(400, methods=methods, shots=[1], **changes)},
        "tables": {"t": {"kind": "accuracy", "experiment": "e", "title": "T", "rows": rows}},
    }
    return resolve(parse(config, "test"), "test")


def row(run: str, against: str | None = None, **more) -> dict:
    return {"label": run.upper(), "run": run, **({"against": against} if against else {}), **more}


def keys(resolved: Plan) -> list[str]:
    """Every key in which a row is unlike its baseline."""
    return sorted(
        {key for of in resolved.unlike.values() for found in of.values() for key in found}
    )


SHARED = [
    ({"options": {"inner_lr": 0.4}}, "inner_lr"),
    ({"options": {"first_order": True}}, "first_order"),
    ({"options": {"adapt_norm": False}}, "adapt_norm"),
    ({"network_options": {"filters": 8}}, "network.filters"),
    ({"protocol_options": {"outer_lr": 0.01}}, "protocol.outer_lr"),
    ({"protocol_options": {"gradient_noise": 1.0}}, "protocol.gradient_noise"),
    ({"steps": 50}, "steps"),
]


@pytest.mark.parametrize(("entry", "key"), SHARED, ids=[key for _, key in SHARED])
def test_any_other_key_is_named_below_the_table_and_in_plan_and_not_tested(entry, key, tmp_path):
    methods = {"maml": {}, "other": {"method": "maml+cml", "like": "like"}, "like": {**entry}}
    methods["like"]["method"] = "maml"
    resolved = plan(methods, [row("maml"), row("other", "maml")])
    assert keys(resolved) == [key]
    table = build(resolved, finish(resolved, tmp_path, LEVEL), "t")
    (difference,) = [d for _, _, d in table.differences()]
    assert (difference.testable, difference.outcome) == (False, f"unlike in {key}: not tested")
    assert difference.verdict == difference.outcome
    told = f"OTHER and MAML differ in more than the method and the co-learner: {key} ("
    assert sum(told in note for note in table.notes) == 1
    assert [line.startswith(f"t: {told}") for line in likes.told(resolved)] == [True]
    assert "*" not in write.text(resolved, tmp_path, ["t"]).split("Paired")[0]
    (chart,) = forest.panels(table).values()
    assert [line["outcome"] for line in chart["data"]["values"]] == ["not tested"]


def test_plan_prints_it():
    methods = {"maml": {}, "maml+cml": {"options": {"inner_lr": 0.4}}}
    resolved = plan(methods, [row("maml"), row("maml+cml", "maml")])
    assert likes.told(resolved)[0] in cost.summary(estimate.add(resolved)).split("\n")


def test_the_case_as_it_was_found_inherits_and_is_tested(tmp_path):
    """Kind 11: the entry under another key starts from the row that it is set against."""
    methods = {
        "maml": {"options": {"inner_lr": 0.4}, "network_options": {"filters": 8}, "steps": 50},
        "cml_g02": {"method": "maml+cml", "options": {"cml": {"gamma": 0.2}}},
    }
    resolved = plan(methods, [row("maml"), row("cml_g02", "maml")])
    spec = next(run.spec for run in resolved.runs if run.spec.method == "maml+cml")
    assert (spec.options["inner_lr"], spec.gamma, spec.steps) == (0.4, 0.2, 50)
    assert spec.network is not None
    assert spec.network.options["filters"] == 8
    assert not resolved.unlike
    table = build(resolved, finish(resolved, tmp_path, LEVEL), "t")
    assert [d.outcome for _, _, d in table.differences()] == ["gain"]


FIVE = {"options": {"inner_steps": 5, "inner_lr": 0.1, "adapt_norm": False}}
OWN = [
    ("boil", {}, "maml", {}),
    ("cl", {"options": {"inner_gamma": 0.5}}, "maml", {}),
    ("more_maml", {}, "maml", {}),
    ("fomaml", {}, "maml", {}),
    ("maml+cml", {"options": {"cml": {"gamma": 0.1, "depth": 0, "frozen": True}}}, "maml", {}),
    ("maml+cml", {}, "cl", {"options": {"cml": {"gamma": 0.3}}}),
    ("mamlpp", {}, "maml", FIVE),
    (
        "sharp_maml",
        {},
        "maml",
        {"options": {"inner_steps": 5, "inner_lr": 0.1, "adapt_norm": False}},
    ),
    ("maml", {}, "untrained", {"method": "maml", "steps": 0, "protocol_options": {"outer_lr": 1}}),
    ("maml", {}, "pixel_nn", {}),
]


@pytest.mark.parametrize(("run", "entry", "base", "other"), OWN)
def test_keys_of_the_method_and_the_colearner_may_differ(run, entry, base, other):
    assert plan({run: entry, base: other}, [row(base), row(run, base)]).unlike == {}


@pytest.mark.parametrize(
    ("key", "value"), [("query", 3), ("precision", "bf16"), ("way", 4), ("shot", 2), ("steps", 7)]
)
def test_every_part_of_a_run_is_compared_but_seed_and_class_split(key, value):
    base = sinusoid_spec(steps=9)
    assert list(likes.unlike(base.model_copy(update={key: value}), base)) == [key]
    assert likes.unlike(base.model_copy(update={"seed": 7}), base) == {}
    graph = graph_spec()
    other = graph.model_copy(update={"data": Component(name="sbm", options={"split": "r1"})})
    assert likes.unlike(other, graph) == {}


def test_a_methods_usual_inner_steps_are_named_where_the_baseline_has_others():
    resolved = plan({"maml": {}, "mamlpp": {}}, [row("maml"), row("mamlpp", "maml")])
    assert keys(resolved) == ["adapt_norm", "inner_lr", "inner_steps"]


def test_a_released_recipe_of_its_own_is_named():
    resolved = plan(
        {"maml": {}, "mamlpp": {}},
        [row("maml"), row("mamlpp", "maml")],
        protocol="official",
        steps=None,
        data="miniimagenet",
    )
    assert {"steps", "network.filters", "protocol.meta_batch"} <= set(keys(resolved))


def test_what_a_row_is_meant_to_vary_is_tested_and_still_named(tmp_path):
    methods = {"maml": {}, "fixed": {"method": "maml", "options": {"adapt_norm": False}}}
    resolved = plan(methods, [row("maml"), row("fixed", "maml", varies=["adapt_norm"])])
    table = build(resolved, finish(resolved, tmp_path, LEVEL), "t")
    (difference,) = [d for _, _, d in table.differences()]
    assert (difference.testable, difference.reason) == (True, "")
    assert "FIXED and MAML differ on purpose in adapt_norm (no and yes)." in table.notes


STRANGE = (
    "varies names 'outer_lr', in which five and maml do not differ: they differ in inner_steps."
)


@pytest.mark.parametrize(
    ("varies", "against", "said"),
    [
        (["outer_lr"], "maml", STRANGE),
        (["inner_steps"], None, "name one under `against`."),
    ],
)
def test_a_key_that_does_not_vary_is_refused(varies, against, said):
    methods = {"maml": {}, "five": {"method": "maml", "options": {"inner_steps": 5}}}
    with pytest.raises(UserError, match=r"test, t, row 'FIVE'") as error:
        plan(methods, [row("maml"), row("five", against, varies=varies)])
    assert str(error.value).endswith(said)


def test_like_names_what_an_entry_starts_from():
    methods = {
        "maml": {"options": {"inner_lr": 0.3}},
        "maml+cml": {"options": {"cml": {"gamma": 0.2, "depth": 1}}},
        "frozen": {"method": "maml+cml", "like": "maml+cml", "options": {"cml": {"frozen": True}}},
    }
    resolved = plan(methods, [row("maml"), row("frozen", "maml")])
    spec = resolved.specs[resolved.members["e"]["frozen"][1][0]]
    assert spec.options["cml"] == {"gamma": 0.2, "depth": 1, "frozen": True}
    assert spec.options["inner_lr"] == 0.3
    assert resolved.study.experiments["e"].methods["frozen"].options == {"cml": {"frozen": True}}
    assert all(run.gamma_named for run in resolved.runs)


LIKE = [
    (
        {"a": {"method": "maml", "like": "b"}, "b": {"method": "maml", "like": "a"}},
        "a is like b is",
    ),
    ({"a": {"method": "maml", "like": "mamll"}, "maml": {}}, "Did you mean 'maml'"),
    (
        {
            "a": {"method": "maml"},
            "b": {"method": "maml", "options": {"inner_lr": 0.1}},
            "c": {"method": "maml+cml"},
        },
        "method c: tables set it against a, b, which have different options: say from which it"
        " starts by `like`.",
    ),
]


@pytest.mark.parametrize(("methods", "said"), LIKE)
def test_an_entry_that_starts_from_nothing_clear_is_refused(methods, said):
    rows = [row("a"), row("c", "a"), row("c", "b", label="D")] if "c" in methods else [row("a")]
    with pytest.raises(UserError, match="test, experiment 'e'") as error:
        plan(methods, rows)
    assert said in str(error.value)


def test_a_plan_keeps_what_is_unlike_and_one_of_before_has_nothing(tmp_path):
    methods = {"maml": {}, "maml+cml": {"options": {"inner_lr": 0.4}}}
    resolved = plan(methods, [row("maml"), row("maml+cml", "maml")])
    path = tmp_path / "plan.json"
    path.write_text(dumped(resolved), encoding="utf-8")
    again = read_plan(path)
    assert likes.told(again) == likes.told(resolved) != []
    before = read_plan(path.parents[0] / "plan.json").model_copy(update={"unlike": {}})
    assert likes.told(before) == []


SHIPPED = [
    "ci",
    "demo",
    "graphs",
    "omniglot_methods",
    "omniglot_more_methods",
    "omniglot_normalisation",
    "omniglot_study",
    "paper",
    "sinusoid",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_table_has_an_unlike_pair(name):
    """What differs is meant: the row says so under ``varies``."""
    path = f"configs/{name}.yaml"
    said = likes.told(resolve(read(path), path))
    meant = {
        "omniglot_study": "omniglot: MAML + Gaussian noise and MAML differ on purpose in protocol.",
        "omniglot_more_methods": (
            "omniglot_more_methods: CAVIA and MAML differ on purpose in inner_lr (1.0 and 0.5),"
            " inner_steps (2 and 1)."
        ),
    }
    assert [line.startswith(meant.get(name, "nothing")) for line in said] == [True] * (
        name in meant
    )


# -- bold type


def bold(resolved: Plan, root) -> list[str]:
    """Labels of the rows that have a bold cell."""
    table = build(resolved, finish(resolved, root, LEVEL), "t")
    return [row.label for row, _, cell in table.cells() if cell.bold]


def test_bold_type_compares_rows_that_are_alike(tmp_path):
    """BOIL has other steps than both MAML rows: the best is bold among these two."""
    methods = {"maml": {}, "maml+cml": {}, "boil": {"steps": 50}}
    rows = [row("maml"), row("maml+cml", "maml"), row("boil")]
    assert bold(plan(methods, rows), tmp_path / "a") == ["MAML+CML"]
    twin = {**methods, "more": {"method": "boil", "steps": 50}}
    both = bold(plan(twin, [*rows, row("more")]), tmp_path / "b")
    assert both[0] == "MAML+CML"
    assert {*both[1:]} <= {"BOIL", "MORE"}, "two groups, each with its own best"


def test_a_row_whose_point_is_a_key_is_alike(tmp_path):
    methods = {"maml": {}, "noise": {"method": "maml", "protocol_options": {"gradient_noise": 1}}}
    varied = row("noise", "maml", varies=["protocol.gradient_noise"])
    resolved = plan(methods, [row("maml"), varied])
    runs = tuple(resolved.members["e"][key][1][0] for key in ("maml", "noise"))
    plain, other = resolved.tables["t"].rows
    assert likes.alike(resolved, (plain, other), runs)
    assert not likes.alike(resolved, (plain, other.model_copy(update={"varies": ()})), runs)


# -- readings at chance by construction


def test_a_reading_at_chance_by_construction_is_left_out_with_its_reason(tmp_path):
    rows = [row("anil"), row("anil+cml", "anil"), row("anil+cml", "anil", label="†", reading="co")]
    resolved = plan({"anil": {}, "anil+cml": {}}, rows)
    table = build(resolved, finish(resolved, tmp_path, {**LEVEL, "anil": 60.0}), "t")
    assert [r.label for r in table.rows] == ["ANIL", "ANIL+CML"]
    left = (
        "† is left out: at chance by construction, since the inner loop moves nothing that the"
        " co-learner reads."
    )
    assert left in table.notes
    assert f"t: {left}" in likes.told(resolved)


def test_a_figure_leaves_it_out_with_its_reason():
    lines = [row("anil+cml"), row("anil+cml", label="†", reading="co")]
    figure = {
        "kind": "accuracy",
        "experiment": "e",
        "title": "F",
        "caption": "Seen.",
        "runs": lines,
    }
    content = {
        "study": "likes",
        "experiments": {"e": experiment(400, methods={"anil": {}, "anil+cml": {}}, shots=[1])},
        "tables": {},
        "figures": {"f": figure},
    }
    drawn = resolve(parse(content, "test"), "test").figures["f"]
    assert [line.label for line in drawn.runs] == ["ANIL+CML"]
    assert "Seen. † is left out: at chance by construction, since" in drawn.caption
    figure["runs"] = lines[1:]
    with pytest.raises(UserError, match="test, f: no line is left: each is at chance by construct"):
        resolve(parse(content, "test"), "test")


@pytest.mark.parametrize("reading", ["co", "co_paired", "co_unpaired", "co_last", "co_eq9"])
def test_every_reading_of_the_colearner_is(reading):
    rows = [row("anil"), row("anil+cml", "anil", label="†", reading=reading)]
    resolved = plan({"anil": {}, "anil+cml": {}}, rows)
    assert [r.label for r in likes.shown(resolved, resolved.tables["t"])] == ["ANIL"]


def test_boil_whose_body_has_a_step_of_0_is_like_it():
    entries = {"boil+cml": {"options": {"inner_lr": 0.0, "head_lr": 0.5}}}
    resolved = plan(entries, [row("boil+cml", label="†", reading="co")])
    assert likes.shown(resolved, resolved.tables["t"]) == []


def test_methods_whose_body_adapts_keep_every_row():
    resolved = plan({"maml": {}, "maml+cml": {}}, ROWS)
    assert (resolved.chance, len(likes.shown(resolved, resolved.tables["t"]))) == ({}, 3)


def test_a_reading_that_says_by_its_name_that_nothing_adapts_stays_and_is_not_tested(tmp_path):
    rows = [row("maml"), row("cl", "maml", reading="co_unadapted")]
    resolved = plan({"maml": {}, "cl": {}}, rows)
    table = resolved.tables["t"]
    assert [r.label for r in likes.shown(resolved, table)] == ["MAML", "CL"]
    ids = resolved.members["e"]
    assert likes.reason(resolved, table.rows[1], ids["cl"][1], ids["maml"][1]) == (
        "at chance by construction: not tested"
    )
