"""How much work each run of a plan is: FLOPs counted on tensors without storage, bytes on disk.

``python -m cml_bench.costs.estimate`` reads a plan from standard input and writes its counts.
"""

import json
import sys
from pathlib import Path

from cml_bench import plugins
from cml_bench.engine.build import build_data, build_method
from cml_bench.engine.flops import flops_of
from cml_bench.errors import UserError
from cml_bench.networks.base import count
from cml_bench.spec import RunSpec
from cml_bench.study import work
from cml_bench.study.plan import Plan


def add(plan: Plan, cache: Path | None = None) -> Plan:
    """The plan with the ``work`` of every run. ``cache``: the folder in which counts are kept."""
    return work.with_counts(plan, counts(plan, cache))


def counts(plan: Plan, cache: Path | None = None) -> dict[str, work.Counts]:
    """The counts of each kind of run: see :func:`cml_bench.study.work.kind`.

    A kind whose counts are kept is not counted again. A UserError names a run that cannot be
    counted.
    """
    counted = {}
    for of, run in work.kinds(plan).items():
        known = work.kept(cache, of) if cache else None
        if known is None:
            try:
                known = _count(run.spec)
            except UserError as error:
                raise UserError(f"study {plan.study.study}, {run.title}: {error}") from None
            except Exception as error:  # of a plug-in, whose code is its author's
                raise UserError(
                    f"study {plan.study.study}, {run.title}: one outer step fails:"
                    f" {plugins.cause(error)}. Correct it; `python -m cml_bench check` says more."
                ) from error
            if cache:
                work.keep(cache, of, known)
        counted[of] = known
    return counted


def _count(spec: RunSpec) -> work.Counts:
    data = build_data(spec)
    method = build_method(spec, data, "plain")
    return work.Counts(
        **flops_of(spec, data),
        base=count(method.params),
        co=count(method.co.params) if "co" in method.heads else None,
        inner_steps=method.inner_steps,
        classification=method.kind == "classification",
    )


def main() -> int:
    """Count the work of a plan that another process has resolved. Returns the exit code."""
    plan = Plan.model_validate_json(sys.stdin.buffer.read())
    try:
        plugins.use(plan.study.plugins, plan.study.study)
        counted = counts(plan, work.cache_of(Path(plan.study.results)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    json.dump({of: one.model_dump() for of, one in counted.items()}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
