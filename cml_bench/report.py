"""A study's tables, figures and page, from whatever runs are finished. Imports no torch."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cml_bench import figures as drawing
from cml_bench import pictures, render
from cml_bench.cells import Table
from cml_bench.files import write_text
from cml_bench.records import Record, Store
from cml_bench.spec import RunSpec
from cml_bench.tables import build
from cml_bench.targets import expand, restrict


def tables(plan: dict[str, Any], results: Path, keys: list[str], out: Path | None = None) -> list[Path]:
    """Write tables as Markdown, LaTeX and CSV to ``out``, by default the study's folder under ``results``."""
    out, paths = out or _home(plan, results), []
    for key in expand(plan, keys):
        built = build(restrict(plan, key), Store(results), key)
        for kind, form in (("md", render.markdown), ("tex", render.latex), ("csv", render.csv)):
            path = out / "tables" / f"{key}.{kind}"
            write_text(path, form(built))
            paths.append(path)
    return paths


def text(plan: dict[str, Any], results: Path, keys: list[str]) -> str:
    """Tables for a terminal."""
    built = (build(restrict(plan, key), Store(results), key) for key in expand(plan, keys))
    return "\n".join(f"{render.text(table)}\n" for table in built)


def page(plan: dict[str, Any], results: Path, out: Path | None = None) -> Path:
    """Write the study's page; it links those tables and figures that are there."""
    store, out = Store(results), out or _home(plan, results)
    path = out / "report.html"
    write_text(path, _page(plan, store, out, [build(plan, store, key) for key in plan["tables"]]))
    store.write_index()
    return path


def files(plan: dict[str, Any], results: Path) -> list[Path]:
    """What the study's folder holds for people."""
    out = _home(plan, results)
    return [out / "report.html", *sorted((out / "tables").glob("*.md")), *sorted((out / "figures").glob("*.png"))]


def _home(plan: dict[str, Any], results: Path) -> Path:
    """The study's folder: under ``results``, or ``results`` itself where that is what was published of the study."""
    results, name = Path(results), plan["study"]["study"]
    return results if results.name == name and (results / "tables").is_dir() else results / name


def figures(plan: dict[str, Any], results: Path, keys: list[str], out: Path | None = None) -> list[Path]:
    """Draw figures from finished runs, by default into the study's folder; see :mod:`cml_bench.pictures`."""
    return pictures.figures(plan, results, keys, out or _home(plan, results))


# -- the page -----------------------------------------------------------------------------------------


def _page(plan: dict[str, Any], store: Store, out: Path, built: list[Table]) -> str:
    study = plan["study"]
    specs = [RunSpec.model_validate(run["spec"]) for run in plan["runs"]]
    records = [record for record, _ in map(store.usable, specs) if record is not None]
    environment = Environment(
        loader=PackageLoader("cml_bench", "templates"), autoescape=select_autoescape(), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pictures = []
    for key, figure in plan["figures"].items():
        path = out / "figures" / f"{key}.png"
        if path.exists():
            links = _existing(out, [f"figures/{key}.{kind}" for kind in ("svg", "pdf")])
            pictures.append({**figure, "key": key, "src": _inline(path.read_bytes(), "png"), "links": links})
    forest = drawing.forest(built)
    return environment.get_template("report.html").render(
        title=study["title"] or study["study"],
        summary=study["summary"],
        facts=_facts(plan, specs, records),
        findings=[(table.title, note) for table in built if table.compares for note in table.notes],
        tables=[
            {
                "table": t,
                "grids": render.grids(t),
                "explanation": render.explanation(t),
                "notes": [] if t.compares else t.notes,  # those of the others stand on top
                "links": _existing(out, [f"tables/{t.key}.{kind}" for kind in ("md", "tex", "csv")]),
            }
            for t in built
        ],
        pictures=pictures,
        curves=[{"name": name, "src": _svg(figure)} for name, figure in _learning_curves(plan, store)],
        forest=_svg(forest) if forest else None,
        provenance=_provenance(records),
        failures=[r for r in records if r.status != "finished"],
        records=records,
    )


def _existing(out: Path, names: list[str]) -> list[tuple[str, str]]:
    """Kind and relative link of each file that is there."""
    return [(name.rsplit(".", 1)[1], name) for name in names if (out / name).exists()]


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _svg(figure: Any) -> str:
    return _inline(drawing.encode(figure, "svg"), "svg+xml")


def _facts(plan: dict[str, Any], specs: list[RunSpec], records: list[Record]) -> list[str]:
    """What was run, one sentence an experiment."""
    study = plan["study"]
    facts = [f"{len(records)} of {len(specs)} runs are finished; training seeds {', '.join(map(str, study['seeds']))}."]
    for name, experiment in study["experiments"].items():
        used = {run for shots in plan["members"][name].values() for ids in shots.values() for run in ids}
        mine = [s for s in specs if s.id in used]
        text = f"{name}: {experiment['data']}, {experiment['network']}, {experiment['way']}-way, "
        text += f"{', '.join(map(str, experiment['shots']))} shots"
        if recipes := _recipes(mine):
            text += f", {_queries(experiment['query'])} per class in training; protocol {experiment['protocol']}: "
            text += "; ".join(recipes)
        query = experiment["evaluation_query"] or experiment["evaluation"]["query"]
        facts.append(f"{text}; {experiment['evaluation']['tasks']} test tasks with {_queries(query)} per class.")
    facts.append("Batch-norm is transductive: all queries of a task are normalised together, at test too.")
    if not any(table["paper"] for table in plan["tables"].values()):
        differ = all(experiment["protocol"] != "official" for experiment in study["experiments"].values())
        why = ": data, budget or protocol differ from the paper's" if differ else ""
        facts.append(f"No number here is set beside one of the paper{why}.")
    return facts


def _recipes(specs: list[RunSpec]) -> list[str]:
    """How the methods are trained, those of one recipe together: ``maml, boil: 30,000 outer steps of 4 tasks, …``."""
    found: dict[str, list[RunSpec]] = {}
    for spec in specs:
        if spec.network is not None:  # something is trained
            p = spec.protocol
            text = (
                f"{spec.steps:,} outer steps of {p.meta_batch} tasks, Adam {p.outer_lr:g}, validation every "
                f"{p.val_every} steps on {p.val_tasks} tasks, selection {p.selection}"
            )
            found.setdefault(text, []).append(spec)
    sentences = []
    for text, same in found.items():
        methods = ", ".join(dict.fromkeys(spec.method for spec in same))
        rates = sorted(
            {spec.options[key] for spec in same for key in ("inner_lr", "inner_lr_init") if key in spec.options}
        )
        gammas = sorted({spec.options["cml"]["gamma"] for spec in same if "cml" in spec.options})
        gamma = f", γ = {_joined(gammas)}" if gammas else ""
        sentences.append(f"{methods}: {text}, inner step {_joined(rates)}{gamma}")
    return sentences


def _queries(query: int | str) -> str:
    return "as many queries as support points" if query == "shot" else f"{query} queries"


def _joined(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "–"


def _learning_curves(plan: dict[str, Any], store: Store) -> list[tuple[str, Any]]:
    specs = {run["id"]: RunSpec.model_validate(run["spec"]) for run in plan["runs"]}
    found = []
    for name, methods in plan["members"].items():
        panels: dict[str, dict[str, list[Record]]] = {}
        for label, shots in methods.items():
            for shot, ids in sorted(shots.items(), key=lambda item: int(item[0])):
                usable = (store.usable(specs[i])[0] for i in ids)
                records = [r for r in usable if r and r.content.get("curves", {}).get("step")]
                if records:
                    panels.setdefault(f"{shot}-shot", {})[label] = records
        if panels:
            panels = dict(sorted(panels.items(), key=lambda item: int(item[0].split("-")[0])))
            kind = next(iter(next(iter(panels.values())).values()))[0].content["kind"]
            score = "validation accuracy, %" if kind == "classification" else "validation MSE"
            found.append((name, drawing.learning_curves(panels, score)))
    return found


def _provenance(records: list[Record]) -> list[tuple[str, str]]:
    """Versions, machines, data hashes and time, each with all the values that occur."""

    def values(get) -> str:
        return "; ".join(sorted({get(r.content) for r in records})) or "–"

    rows = [
        (name, values(lambda c, name=name: str(c["versions"][name])))
        for name in ("cml_bench", "torch", "numpy", "python")
    ]
    rows += [
        ("machine", values(lambda c: f"{c['machine']['processor']}, {c['machine']['cores']} cores")),
        ("engine", values(lambda c: "{device}, {threads} thread, {path} path".format(**c["engine"]))),
        ("data", values(_data)),
        ("made", f"{min((r.content['created'] for r in records), default='–')} to "
                 f"{max((r.content['created'] for r in records), default='–')}"),
    ]  # fmt: skip
    return [*rows, ("computing time", computing_time(records))]


def _data(content: dict[str, Any]) -> str:
    differs = content.get("data_differs")
    text = f"{content['spec']['data_id']}: SHA-256 {content['data_sha256'][:16]}…"
    return f"{text} ({differs})" if differs else text


def computing_time(records: list[Record]) -> str:
    """Where the time of all runs went: ``600 s in all: train 80.0 %, …``."""
    seconds: dict[str, float] = {}
    for record in records:
        for name, value in record.content["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + value
    total = sum(seconds.values())
    shares = ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in seconds.items()) if total else "–"
    return f"{total:,.0f} s in all: {shares}"
