"""Which runs of a study cannot start, and why. Imports no torch."""

import contextlib
import os
from collections import Counter
from pathlib import Path

from cml_bench import titles
from cml_bench.data import prepared
from cml_bench.errors import UserError
from cml_bench.records import Store, untestable
from cml_bench.study.plan import Plan, PlannedData
from cml_bench.study.schema import Study


def blocked(plan: Plan) -> dict[str, str]:
    """data id -> why its runs cannot start now.

    Either the terms of use are not acknowledged, or a person must fetch a file.
    """
    study, reasons = plan.study, {}
    folder = Path(study.data_dir)
    for item in plan.data:
        if not item.prepares or is_prepared(study, folder, item):
            continue
        name, own = item.name, study.sources.get(item.name, {})
        if item.terms and name not in study.acknowledged:
            names = ", ".join((*study.acknowledged, name))
            reasons[item.data_id] = (
                f"the terms of use of {titles.of(name)} are not acknowledged: read {item.terms},"
                f" then add `acknowledged: [{names}]` to the configuration, or start Snakemake with"
                f' `--config "acknowledged=[{names}]"`'
            )
            continue
        by_hand = [file for file in item.files if file.manual and file.name not in own]
        for file in by_hand:
            place = folder / "downloads" / item.store / file.name
            if not place.exists():
                reasons[item.data_id] = (
                    f"{file.name} of {titles.of(name)} must be fetched by hand: get it from"
                    f" {file.page} and put it at {place}, or name your copy under `sources` in the"
                    " configuration"
                )
    return reasons


def own_digests(study: Study, name: str) -> dict[str, str]:
    """SHA-256 of the user's own copies of a data set's files, by file name."""
    return {file: copy.sha256 for file, copy in study.sources.get(name, {}).items()}


def is_prepared(study: Study, folder: Path, item: PlannedData) -> bool:
    """Whether the prepared arrays are there, made from the very files that the study asks for."""
    index = prepared.index(folder, item.data_id)
    return prepared.is_wanted(index, item.published, own_digests(study, item.name))


def other_data(plan: Plan, folder: Path | None = None) -> list[PlannedData]:
    """The plan's data whose arrays are there, but were made from other files than the study asks
    for.
    """
    study = plan.study
    folder = folder or Path(study.data_dir)
    there = [item for item in plan.data if item.prepares and prepared.index(folder, item.data_id)]
    return [item for item in there if not is_prepared(study, folder, item)]


def refuse_other_data(plan: Plan, folder: Path, data_ids: set[str]) -> None:
    """A UserError if one of these is in :func:`other_data`.

    Another study may have prepared it anew since this one was started.
    """
    for item in other_data(plan, folder):
        if item.data_id in data_ids:
            raise UserError(
                f"the prepared data in {prepared.home(folder, item.data_id)} was made from other"
                f" files than the study {plan.study.study} asks for (`sources`, or the published"
                " ones). Start the study again, which prepares it anew; studies on different"
                " copies of it need a `data_dir` each."
            )


def told_of_data(plan: Plan) -> list[str]:
    """Lines about prepared data that is not the published one, not the one that is asked for, or
    lacks classes of the user's folder.
    """
    lines = []
    others = [item.data_id for item in other_data(plan)]
    for item in plan.data:
        index = prepared.index(plan.study.data_dir, item.data_id)
        if item.data_id in others:
            lines.append(
                f"{item.data_id}: what is prepared was made from other files and is not taken"
            )
        else:
            told = (index.get("differs"), index.get("told"))
            lines += [f"{item.data_id}: {line}" for line in told if line]
    return lines


def not_run(plan: Plan) -> dict[str, str]:
    """run id -> the reason of :func:`blocked`."""
    reasons = blocked(plan)
    return {run.id: reasons[run.spec.data_id] for run in plan.runs if run.spec.data_id in reasons}


def lost(plan: Plan, results: Path | None = None) -> dict[str, str]:
    """run id -> the reason of :func:`not_run`, or why its record does not suffice.

    A record without weights cannot be tested again, so it must hold the tests that the study asks
    for.
    """
    store, reasons = Store(results or plan.study.results), {}
    for run in plan.runs:
        folder = store.runs / run.folder
        if (folder / "record.json").exists() and not (folder / "model.safetensors").exists():
            with contextlib.suppress(
                UserError
            ):  # a damaged record: `status` and the job itself tell it
                record = store.read(run.spec)
                if record and (reason := untestable(record, run.spec.evaluation)):
                    reasons[run.id] = reason
    return not_run(plan) | reasons


def without_stamp(plan: Plan) -> set[str]:
    """Keys of prepared data without a stamp, in a folder that cannot be written.

    Nothing is left to be done for it, and no stamp can say so.
    """
    study, folder = plan.study, Path(plan.study.data_dir)
    if os.access(folder, os.W_OK):
        return set()
    items = [item for item in plan.data if not (folder / "ready" / f"{item.key}.json").exists()]
    return {item.key for item in items if is_prepared(study, folder, item)}


def lost_jobs(plan: Plan) -> set[str]:
    """Ids of jobs that have a stamp although a run of theirs is no longer stored.

    Such a run is trained anew.
    """
    results = Path(plan.study.results)
    there = {
        run.id for run in plan.runs if (results / "runs" / run.folder / "record.json").exists()
    }
    stamped = [job for job in plan.jobs if (results / "done" / f"{job.id}.json").exists()]
    return {job.id for job in stamped if not there.issuperset(job.runs)}


def told_of_lost(unable: dict[str, str]) -> list[str]:
    """How many runs cannot start for each reason of :func:`lost`."""
    return [
        f"not run, {count} runs: {reason}" for reason, count in Counter(unable.values()).items()
    ]
