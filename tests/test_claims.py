"""The rules by which a claim of the paper is decided, on simulated studies."""

import re
from pathlib import Path

import numpy as np
import pytest

from cml_bench.errors import UserError
from cml_bench.evidence import claims as evidence
from cml_bench.evidence import stats
from cml_bench.evidence.claims import DOES_NOT_HOLD, HOLDS
from cml_bench.evidence.deciding import CONTRARY, NOT_RUN, Cell
from cml_bench.evidence.verdict import CANNOT_TELL, UNDECIDED
from cml_bench.figures import make
from cml_bench.records import read_arrays, write_arrays
from cml_bench.report import claims
from cml_bench.study import selection
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers import swept
from tests.helpers.claims import FIGURE, GAIN, GOOD, a_claim, drawn, found, rewritten
from tests.helpers.plans import edited
from tests.helpers.simulated import ROWS, experiment, finish, study


@pytest.mark.parametrize(
    ("meta", "verdict", "outcomes"),
    [
        (63, HOLDS, "2: 2 as claimed"),
        (57, DOES_NOT_HOLD, "2: 2 the contrary"),
        (60, CANNOT_TELL, "2: 2 undecided"),
    ],
)
def test_all_cells_as_claimed_hold_one_of_the_contrary_does_not(meta, verdict, outcomes, tmp_path):
    plan = study(seeds=6)
    finish(plan, tmp_path, {**GOOD, "meta": meta})
    finding = found(plan, tmp_path, GAIN)
    assert (finding.verdict, claims._counts(finding)) == (verdict, outcomes)
    assert finding.size == evidence.PAPER_SIZE


def test_what_is_missing_is_never_evidence_against_a_claim(tmp_path):
    plan = study(seeds=6)
    finding = found(plan, tmp_path, GAIN)
    assert (finding.verdict, finding.size, finding.weakest) == (NOT_RUN, "", None)
    finish(plan, tmp_path / "half", GOOD, only=lambda spec: spec.shot == 1)
    half = found(plan, tmp_path / "half", GAIN)
    assert (half.verdict, claims._counts(half)) == (CANNOT_TELL, "2: 1 as claimed, 1 not run")
    few = study(seeds=3)
    finish(few, tmp_path / "few", {**GOOD, "meta": 40})
    finding = found(few, tmp_path / "few", GAIN)
    assert finding.verdict == CANNOT_TELL
    assert "n = 3: shown, not tested" in claims._weakest(finding)

    def status(spec):
        return "collapsed" if spec.seed == 0 and spec.method == "maml+cml" else "finished"

    finish(plan, tmp_path / "lost", {**GOOD, "meta": 40}, status=status)
    assert found(plan, tmp_path / "lost", GAIN).verdict == CANNOT_TELL


def test_the_weakest_cell_is_one_of_the_contrary_where_there_are_any():
    """A family of its own may leave a larger difference undecided."""
    pair = stats.Paired(-1.0, 0.5, 0.001, 6)
    cells = (
        Cell("far", UNDECIDED, pair._replace(diff=-9.0)),
        Cell("contrary", CONTRARY, pair),
        Cell("none", NOT_RUN),
    )
    claim = evidence.Claims.read(a_claim(GAIN), "test").claims["gains"]
    finding = evidence.Finding(claim, evidence.judge(cells), "", {"simulated": cells})
    assert finding.verdict == DOES_NOT_HOLD
    assert finding.weakest == ("simulated", cells[1])
    open_cells = evidence.Finding(claim, CANNOT_TELL, "", {"simulated": cells[::2]})
    assert open_cells.weakest == ("simulated", cells[0])


def moved(plan, results: Path, points: int, seeds: int) -> None:
    """Move the 1-shot results of the first seeds of MAML + CML."""
    for spec in plan.specs.values():
        if spec.method == "maml+cml" and spec.shot == 1 and spec.seed < seeds:
            path = results / "runs" / spec.folder / "episodes.npz"
            arrays = read_arrays(path, "")
            write_arrays(
                path, {k: (v.astype(int) + points).astype(np.uint16) for k, v in arrays.items()}
            )


def test_a_moved_record_moves_the_verdict(tmp_path):
    plan = study(seeds=6)
    finish(plan, tmp_path, GOOD)
    assert found(plan, tmp_path, GAIN).verdict == HOLDS
    moved(plan, tmp_path, -9, seeds=1)
    finding = found(plan, tmp_path, GAIN)
    assert finding.verdict == CANNOT_TELL
    assert claims._weakest(finding).startswith("MAML + CML − MAML, 1-shot: +1.")
    moved(plan, tmp_path, -9, seeds=6)
    finding = found(plan, tmp_path, GAIN)
    assert (finding.verdict, claims._counts(finding)) == (
        DOES_NOT_HOLD,
        "2: 1 as claimed, 1 the contrary",
    )
    assert re.match(r"MAML \+ CML − MAML, 1-shot: −.*, p (= 0\.0|<)", claims._weakest(finding))


def test_smaller_runs_decide_only_until_one_of_the_papers_size_is_there(tmp_path):
    config = {
        "study": "simulated",
        "seeds": 6,
        "experiments": {"small": experiment(400), "full": experiment(400, steps=200)},
        "tables": {
            name: {"kind": "accuracy", "experiment": name, "title": name, "rows": ROWS}
            for name in ("small", "full")
        },
    }
    plan = resolve(parse(config, "test"), "test")
    deciders = [{**GAIN, "table": name} for name in ("full", "small")]
    size = {"steps": {"maml": 200}}
    assert found(plan, tmp_path, *deciders, **size).verdict == NOT_RUN
    finish(plan, tmp_path, GOOD, only=lambda spec: spec.steps == 100)
    finding = found(plan, tmp_path, *deciders, **size)
    assert finding.verdict == HOLDS
    assert finding.size == "below the paper's size: 100 of 200 steps"
    assert len(finding.every) == 2
    finish(plan, tmp_path, {**GOOD, "meta": 50}, only=lambda spec: spec.steps == 200)
    finding = found(plan, tmp_path, *deciders, **size, assumed="200 steps")
    assert finding.verdict == DOES_NOT_HOLD
    assert finding.size == "at the paper's size (assumed: 200 steps)"
    other = found(plan, tmp_path, *deciders, data=["omniglot"], **size)
    assert other.size == "below the paper's size: glyphs instead of omniglot, 100 of 200 steps"
    assert other.verdict == DOES_NOT_HOLD, "all smaller studies together"


@pytest.mark.parametrize(
    "size",
    [
        {"data": ["glyphs", "omniglot"]},
        {"methods": ["maml", "omniglot"], "steps": {"maml": 100, "omniglot": 100}},
    ],
)
def test_a_claim_holds_only_by_all_methods_and_data_sets_that_it_names(size, tmp_path):
    plan = study(seeds=6)
    finish(plan, tmp_path, GOOD)
    finding = found(plan, tmp_path, GAIN, **size)
    assert finding.verdict == CANNOT_TELL
    assert finding.size == "below the paper's size: without omniglot"
    finish(plan, tmp_path / "worse", {**GOOD, "meta": 57})
    assert found(plan, tmp_path / "worse", GAIN, **size).verdict == DOES_NOT_HOLD


def test_what_is_planned_and_not_run_is_missing_from_the_size(tmp_path):
    both = {"small": experiment(400), "other": experiment(400, methods={"maml": {}, "fomaml": {}})}
    rows = [
        {"label": "MAML", "run": "maml"},
        {"label": "FOMAML", "run": "fomaml", "against": "maml"},
    ]
    tables = {
        "table1": {"kind": "accuracy", "experiment": "small", "title": "A", "rows": ROWS},
        "table2": {"kind": "accuracy", "experiment": "other", "title": "B", "rows": rows},
    }
    config = {"study": "simulated", "seeds": 6, "experiments": both, "tables": tables}
    plan = resolve(parse(config, "test"), "test")
    deciders = [GAIN, {**GAIN, "table": "table2", "rows": ["FOMAML"]}]
    size = {"steps": {"maml": 100, "fomaml": 100}, "methods": ["maml", "fomaml"]}
    finish(plan, tmp_path, GOOD, only=lambda spec: spec.method != "fomaml")
    finding = found(plan, tmp_path, *deciders, **size)
    assert finding.verdict == CANNOT_TELL
    assert finding.size == "below the paper's size: without fomaml"
    finish(plan, tmp_path, GOOD, only=lambda spec: spec.method == "fomaml")
    assert found(plan, tmp_path, *deciders, **size).size == evidence.PAPER_SIZE


@pytest.mark.parametrize(
    ("co", "verdict"),
    [(64, HOLDS), (62.8, HOLDS), (60, DOES_NOT_HOLD), (62, CANNOT_TELL)],
)
def test_no_worse_is_judged_against_the_margin(co, verdict, tmp_path):
    plan = study(seeds=6)
    finish(plan, tmp_path, {**GOOD, "co": co}, seed_sd=1.0)
    decider = {**GAIN, "kind": "no_worse", "rows": ["MAML + CML†"], "over": ["MAML + CML"]}
    finding = found(plan, tmp_path, decider)
    assert finding.verdict == verdict
    assert claims._weakest(finding).startswith("MAML + CML† − MAML + CML, ")
    assert re.search(r"p [=<] \S+ \(against −1\), detectable \d", claims._weakest(finding))


def test_cost_at_test_is_counted_so_that_one_run_of_each_decides(tmp_path):
    plan = study(seeds=1)
    decider = {**GAIN, "kind": "no_cost"}
    assert found(plan, tmp_path, decider).verdict == NOT_RUN
    finish(plan, tmp_path, GOOD)
    finding = found(plan, tmp_path, decider)
    assert finding.verdict == HOLDS
    assert claims._weakest(finding) == "MAML + CML − MAML, 1-shot: parameters ×1, FLOPs ×1"
    dagger = found(plan, tmp_path, {**decider, "rows": ["MAML + CML†"]})
    assert dagger.verdict == DOES_NOT_HOLD
    assert "parameters ×1.4" in claims._weakest(dagger)
    rewritten(plan, tmp_path, lambda content, _: content["flops"].pop("adaptation"))
    finding = found(plan, tmp_path, decider)
    assert finding.verdict == CANNOT_TELL
    assert "do not say the FLOPs" in claims._weakest(finding)


def test_a_curve_counts_by_its_mean_over_the_last_third(tmp_path):
    plan = drawn(6, "accuracy")
    decider = {**FIGURE, "against": ["MAML"]}
    finding = found(plan, tmp_path, decider)
    assert (finding.verdict, finding.weakest) == (NOT_RUN, None)
    assert claims._weakest(finding).startswith("f needs a run that is not finished")
    finish(plan, tmp_path, GOOD)
    assert found(plan, tmp_path, decider).verdict == CANNOT_TELL, "all curves are alike"

    def end(by: float):
        def change(content, seed):
            content["curves"]["validation"]["score_meta"] = [0.2, 0.9, 0.5 + by + seed / 1000]

        return change

    rewritten(plan, tmp_path, end(0.04))
    finding = found(plan, tmp_path, decider)
    assert finding.verdict == HOLDS
    assert claims._weakest(finding).startswith("CML − MAML, 5-shot: +4.25 [+4.")
    assert found(plan, tmp_path, {**decider, "lower": True}).verdict == DOES_NOT_HOLD
    rewritten(
        plan,
        tmp_path,
        lambda content, seed: content.update(status="collapsed"[: 9 * (not seed)] or "finished"),
    )
    finding = found(plan, tmp_path, decider)
    assert finding.verdict == CANNOT_TELL
    assert "runs or values missing: not tested" in claims._weakest(finding)
    assert "+4.30" in claims._weakest(finding), "pairs are those of one seed"


def test_bars_count_layer_by_layer_from_stored_arrays(tmp_path):
    plan = drawn(6, "gradients")
    finish(plan, tmp_path, GOOD)
    decider = {**FIGURE, "against": ["MAML"]}
    finding = found(plan, tmp_path, decider)
    assert finding.verdict == NOT_RUN
    assert claims._weakest(finding) == "no arrays of f are stored: draw it with `figure`"
    figure, wanted = plan.figures["f"], make.wanted_runs(plan, "f")
    shown = make._shown(figure, wanted)
    seeds = np.arange(6) / 100
    norms = np.stack([[seeds, seeds], [seeds * 2 + 1, seeds * 3 - 1]]).transpose(0, 2, 1)
    arrays = {**shown, "layers": np.array(["conv1", "conv2"]), "norms/5": norms}
    write_arrays(tmp_path / "probes" / "f.npz", arrays)
    finding = found(plan, tmp_path, decider)
    assert [cell.name for cell in finding.every] == [
        f"CML − MAML, 5-shot, {layer}" for layer in ("conv1", "conv2")
    ]
    assert finding.verdict == DOES_NOT_HOLD
    assert "conv2: −0.950 [" in claims._weakest(finding)
    assert found(plan, tmp_path, {**decider, "places": ["conv1"]}).verdict == HOLDS
    assert found(plan, tmp_path, FIGURE | {"places": ["conv1"]}).verdict == HOLDS, "above 0"
    with pytest.raises(UserError, match="unknown place of f of simulated 'conv9'"):
        found(plan, tmp_path, {**decider, "places": ["conv9"]})
    norms[1, 0, 0] = np.nan  # one seed was not measured in conv1
    write_arrays(tmp_path / "probes" / "f.npz", arrays | {"norms/5": norms})
    finding = found(plan, tmp_path, {**decider, "places": ["conv1"]})
    assert finding.verdict == CANNOT_TELL, "five seeds are not the six that are asked for"
    other = edited(plan, lambda values: values["figures"]["f"].update(tasks=7))
    finding = found(other, tmp_path, decider)
    assert finding.verdict == NOT_RUN
    assert "is of other runs, readings or tasks" in claims._weakest(finding)


TUNED = {**GAIN, "rows": ["MAML + CML, tuned"]}


@pytest.mark.parametrize("decider", [TUNED, {**TUNED, "over": ["MAML, tuned"]}])
def test_a_claim_on_tuned_rows_is_not_run_until_a_setting_of_each_is_selected(decider, tmp_path):
    plan = swept.planned(swept.content())
    steps = {"steps": {"maml": 100}}
    with pytest.raises(UserError, match="Did you mean 'MAML, tuned'"):
        found(plan, tmp_path, {**decider, "rows": ["MAML tuned"]}, **steps)
    outcomes = [cell.outcome for cell in found(plan, tmp_path, decider, **steps).every]
    assert outcomes == [NOT_RUN]
    one = {"inner_lr": 0.5, "protocol.outer_lr": 0.01}
    other = {"inner_lr": 1.0, "protocol.outer_lr": 0.001}
    narrow = selection.narrowed(
        plan, swept.finished(plan, tmp_path, {"maml": one, "maml+cml": other})
    )
    finish(narrow, tmp_path, GOOD, only=lambda spec: spec.id not in swept.tried_ids(plan))
    assert found(plan, tmp_path, decider, **steps).verdict == HOLDS
