"""The results as Markdown. Imports no torch."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.workloads import RATES, TARGETS, WAY
from cml_bench.system.files import write_text

BEGIN, END = "<!-- results: made by `python -m benchmarks show` -->", "<!-- end of results -->"
BRIEF = ("<!-- speed: made by `python -m benchmarks show` -->", "<!-- end of speed -->")
FIRST = ("<!-- first run: made by `python -m benchmarks show` -->", "<!-- end of first run -->")
GPU = ("<!-- gpu: made by `python -m benchmarks show` -->", "<!-- end of gpu -->")
GRAPHS = ("<!-- graphs: made by `python -m benchmarks show` -->", "<!-- end of graphs -->")
HOURS = ("<!-- hours: made by `python -m benchmarks show` -->", "<!-- end of hours -->")
STARTUP = ("<!-- startup: made by `python -m benchmarks show` -->", "<!-- end of startup -->")

_SINUSOID = "sinusoid, 25 tasks, compiled: times faster"
_CONV4 = "Conv4-64 84x84 5-shot: times faster"
_GPU_ROW = "Conv4-64 84x84 5-shot, 1 step, MAML+CML"


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with what was measured (None: nothing was) and what is reached of it."""
    stand = []
    for target in TARGETS:
        value = target.value(rows)
        state = "not measured"
        if value is not None:
            reached = [
                value >= bound if target.more else value <= bound
                for bound in (target.floor, target.aim)
            ]
            state = ("below the floor", "floor", "aim")[sum(reached)]
        stand.append(
            {
                "target": target.title,
                "measured": value,
                "floor": target.floor,
                "aim": target.aim,
                "reached": state,
            }
        )
    return stand


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.{digits}g}"


def _spread(row: dict[str, Any], key: str) -> str:
    if row.get(key) is None:
        return ""
    low, high = row.get(f"{key}_quartiles", (None, None))
    return _number(row[key]) + ("" if low is None else f" ({_number(low)}–{_number(high)})")


def _table(rows: list[list[str]], head: list[str]) -> str:
    return tabulate(
        rows, head, "pipe", disable_numparse=True, colalign=["left"] + ["right"] * (len(head) - 1)
    )


def _workload(name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"\n#### {name}\n"
    titles = {
        "times_faster": "times faster",
        "limit_multiple": "x FLOP limit",
        "limit_multiple_in_round": "x limit in its round",
        "memory": "peak GiB",
    }
    keys = {key: title for key, title in titles.items() if any(key in row for row in rows)}
    head = ["", f"s per {rows[0].get('unit', 'command')}", "processor s", *keys.values()]
    body = []
    for row in rows:
        if "missing" in row:
            continue
        shown = {**row, "memory": None if "memory" not in row else row["memory"] / 2**30}
        title = (
            f"FLOP limit ({row['best_rate'] / 1e9:.0f} GFLOP/s)"
            if row["implementation"] == RATES
            else row["implementation"]
        )
        body.append(
            [
                title,
                _spread(row, "seconds"),
                _spread(row, "processor"),
                *(_spread(shown, k) for k in keys),
            ]
        )
    if body:
        yield _table(body, head)
    package = next(
        (row for row in rows if row["implementation"] == "learn2learn" and "missing" not in row),
        None,
    )
    if package:
        yield (
            f"\nThe restated way takes {_spread(package, 'times_faster')} times learn2learn's own"
            " processor time."
        )
    for row in rows:
        if "missing" in row:
            yield f"\n{row['implementation']}: not here: {row['missing']}."


def _profiles(rows: list[dict[str, Any]]) -> Iterator[str]:
    profiled = [row for row in rows if "shares" in row and "axis" not in row]
    if not profiled:
        return
    head = ["", "", *(f"{kind}, %" for kind in profiled[0]["shares"])]
    body, last = [], ""
    for row in profiled:
        title = row["workload"] if row["workload"] != last else ""
        body.append(
            [
                title,
                row["implementation"],
                *(f"{100 * share:.0f}" for share in row["shares"].values()),
            ]
        )
        last = row["workload"]
    yield f"\n#### where the time of a call goes\n\n{_table(body, head)}"


def _curve(name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"\n#### {name}\n"
    values = sorted({row["value"] for row in rows})
    by = {(row["implementation"], row["value"]): row for row in rows}
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    body = [[n, *(_spread(by.get((n, value), {}), "processor") for value in values)] for n in names]
    yield _table(body, [f"processor s, {rows[0]['axis'].replace('_', ' ')}:", *map(str, values)])
    yield from (
        f"\n{row['implementation']}: not here: {row['missing']}."
        for row in rows
        if "missing" in row
    )


def _targets(results: dict[str, Any]) -> str:
    body = [
        [
            t["target"],
            _number(t["measured"], 4),
            _number(t["floor"]),
            _number(t["aim"]),
            t["reached"],
        ]
        for t in targets(results["rows"])
    ]
    return _table(body, ["", "measured", "floor", "aim", "reached"])


def brief(speed: dict[str, Any], gpu: dict[str, Any]) -> str:
    """Three rows for the README, from ``speed.json`` and ``gpu.json``."""
    reached = {target["target"]: target["measured"] for target in targets(speed["rows"])}
    core, card = (results["machine"]["processor"] for results in (speed, gpu))
    on_gpu = next(
        row["times_faster"]
        for row in gpu["rows"]
        if (row["workload"], row["implementation"]) == (_GPU_ROW, "engine, captured")
    )
    rows = [
        [f"sinusoid, 25 tasks, a core of {core}", reached[_SINUSOID]],
        [f"Conv4, 84×84, 5-shot, a core of {core}", reached[_CONV4]],
        [f"Conv4, 84×84, 5-shot, {card}", on_gpu],
    ]
    said = f" ({speed['provisional']})" if speed["provisional"] else ""
    head = ["an outer step", f"times faster than {WAY}{said}"]
    return _table([[title, _number(value)] for title, value in rows], head) + "\n"


def first(results: dict[str, Any] | None) -> str:
    """How to begin, for the README: with the times of ``first_run.json``, if there is one."""
    rows = {} if results is None else {row["target"]: row for row in results["rows"]}
    took = {target: f": {_minutes(row)}" for target, row in rows.items()}
    lines = [
        "```sh",
        f"make demo     # embedded data, no GPU{took.get('demo', '')}",
        f"make test     # the fast tests{took.get('test', '')}",
        "```",
    ]
    if results is not None:
        left = sum(row["left_bytes"] for row in rows.values())
        lines += [
            "",
            f"Before, the first of them makes `.venv`: {_minutes(rows['setup'])} and its downloads,"
            f" {_disk(rows['setup']['venv_bytes'])} of disk. Beside it, both leave {_disk(left)}."
            f" Measured on {_where(results)}.",
        ]
    return "\n".join([*lines, ""])


def first_table(results: dict[str, Any] | None) -> str:
    """The rows of ``first_run.json`` for docs/hardware.md; empty without one."""
    if results is None:
        return ""
    head = ["", "minutes", "`.venv` then takes", "left beside it"]
    rows = [
        [
            f"`make {row['target']}`",
            f"{row['minutes']:.1f}",
            _disk(row["venv_bytes"]),
            _disk(row["left_bytes"]),
        ]
        for row in results["rows"]
    ]
    machine = results["machine"]
    return (
        f"A first run, in a fresh clone of commit {results['commit']}, {results['date']}: on"
        f" {_where(results)}, load {machine['load_before']} before and {machine['load_after']}"
        " after. pip could take packages from its cache, so the set-up is without most downloads."
        f"\n\n{_table(rows, head)}\n"
    )


def _where(results: dict[str, Any]) -> str:
    machine, index = results["machine"], results["torch_index"]
    said = f", provisional: {results['provisional']}" if results["provisional"] else ""
    torch = f"torch from {index}" if index else "torch from pip's index"
    return f"{machine['cores']} cores of {machine['processor']}, {torch}{said}"


def _minutes(row: dict[str, Any]) -> str:
    minutes = max(1, math.ceil(row["minutes"]))
    return f"{minutes} minute{'s' * (minutes > 1)}"


def _disk(count: int) -> str:
    if count < 1e9:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB"


def markdown(results: dict[str, Any]) -> str:
    """All tables of a results file."""
    lines = [_made(results)]
    lines += [
        f"\n{name}: not here: {peer['missing']}."
        for name, peer in results["peers"].items()
        if "missing" in peer
    ]
    lines += _doubts(results)
    lines += ["\n### Targets\n", _targets(results)]
    lines.append(
        "\n### Workloads\n\nMedians over blocks, in brackets their quartiles. Times faster: than"
        " learn2learn's way, by processor time, paired within rounds."
    )
    lines += _tables(results["rows"])
    lines += _profiles(results["rows"])
    return "\n".join(lines) + "\n"


def startup(results: dict[str, Any]) -> str:
    """The tables of ``startup.json``: seconds of a command, and processor seconds with children."""
    return "\n".join([_made(results), *_doubts(results), *_tables(results["rows"])]) + "\n"


def _doubts(results: dict[str, Any]) -> list[str]:
    said = results["provisional"]
    return [f"\n**Provisional:** {said}."] if said else []


def _made(results: dict[str, Any]) -> str:
    """When, from which commit and on what machine results were made."""
    machine, versions = results["machine"], results["versions"]
    processor = " with ".join(filter(None, (machine["processor"], machine.get("vectors"))))
    return (
        f"{results['date']}, commit {results['commit']}; {processor}, {machine['cores']} cores,"
        f" load {machine['load_before']} before and {machine['load_after']} after; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def _tables(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table for each workload."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["workload"], []).append(row)
    lines: list[str] = []
    for name, of_one in groups.items():
        curve = "axis" in of_one[0] and name != "start-up"
        lines += (_curve if curve else _workload)(name, of_one)
    return lines


def graphs(results: dict[str, Any]) -> str:
    """The table of ``graphs.json``: a line for each method and data set, with its target."""
    machine, versions = results["machine"], results["versions"]
    rows = {
        (row["workload"], row["implementation"], row["threads"]): row for row in results["rows"]
    }
    body = []
    for (name, implementation, threads), fast in rows.items():
        if (implementation, threads) == ("fast", 2):
            target, single = (
                fast["target"],
                [rows[name, path, 1]["processor"] for path in ("plain", "fast")],
            )
            state = (
                "reached"
                if fast["seconds"] <= target
                else f"missed by {fast['seconds'] / target - 1:.0%}"
            )
            both = (rows[name, "plain", 2]["seconds"], fast["seconds"], fast["times_faster"])
            # TLP's code has no co-learner.
            official = None if "+cml " in name else fast["official_elsewhere"]
            numbers = [_number(v) for v in (*single, *both, official, target)]
            body.append([name, *numbers, state])
    head = [
        "s per task",
        "plain, one thread",
        "fast, one thread",
        "plain, two threads",
        "fast, two threads",
    ]
    head += ["times faster with two", "TLP's code with two, elsewhere", "target", ""]
    where = (
        f"{results['date']}, commit {results['commit']}; {machine['processor']}, load"
        f" {machine['load_before']} before and {machine['load']} at the end; "
    )
    return f"{where}{', '.join(f'{k} {v}' for k, v in versions.items())}.\n\n{_table(body, head)}\n"


def gpu(results: dict[str, Any]) -> str:
    """The tables of ``gpu.json``: milliseconds of a meta-step and of a test task.

    Each workload has a line.
    """
    by: dict[str, dict[str, dict[str, Any]]] = {}
    for row in results["rows"]:
        by.setdefault(row["workload"], {})[row["implementation"]] = row
    machine = results["machine"]["processor"]
    lines = [
        f"{results['date']}, commit {results['commit']}; {machine}; "
        f"{', '.join(f'{k} {v}' for k, v in results['versions'].items())}."
        f"{' ' * ('note' in results)}{results.get('note', '')}\n"
    ]
    for unit, best in (
        ("meta-step", "engine, captured"),
        ("task", "engine, fast, 16 tasks at once"),
    ):
        workloads = {name: rows for name, rows in by.items() if best in rows}
        ways = [way for way in next(iter(workloads.values())) if way != RATES]
        keys = {
            "times_faster": f"{best}: times faster than {WAY}",
            "limit_multiple": "x FLOP limit",
        }
        keys = {
            key: title for key, title in keys.items() if key in next(iter(workloads.values()))[best]
        }
        body = [
            [
                name,
                *(_number(1e3 * rows[w]["seconds"]) for w in ways),
                *(_number(rows[best].get(key)) for key in keys),
            ]
            for name, rows in workloads.items()
        ]
        head = [f"ms per {unit}", *ways, *keys.values()]
        lines.append(_table(body, head) + "\n")
    return "\n".join(lines)


def into(page: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put a text between the two marks of a page, instead of what stands there."""
    begin, end = marks
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    write_text(page, f"{before}{begin}\n\n{text}\n{end}{after}")
