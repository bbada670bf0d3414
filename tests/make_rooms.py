"""Draw the package's rooms and their imports into docs/architecture.md.

Run by ``python -m tests.make_rooms``.
"""

from pathlib import Path

import grimp

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms:begin (python -m tests.make_rooms) -->\n", "<!-- rooms:end -->"
# Single modules at the root, by what they are.
ROOT = {
    "spec": "runs",
    "records": "runs",
    "content": "runs",
    "registry": "runs",
    "titles": "runs",
    "plugins": "runs",
    "readings": "runs",
}
OTHERS = "errors"
TOP = {
    f"cml_bench.{name}"
    for name in (
        "__main__",
        "commands_run",
        "commands_select",
        "commands_share",
        "commands_show",
        "command_line",
    )
}


def room(module: str) -> str:
    """The room of a module; for a module at the root, the group that it belongs to."""
    name = module.split(".")[1]
    return name if (PAGE.parent.parent / "cml_bench" / name).is_dir() else ROOT.get(name, OTHERS)


def arrows() -> dict[tuple[str, str], int]:
    """(room that imports, room that is imported) -> number of imports between them."""
    graph = grimp.build_graph("cml_bench", exclude_type_checking_imports=True, cache_dir=None)
    counts: dict[tuple[str, str], int] = {}
    for module in graph.modules - {"cml_bench", *TOP}:
        for other in graph.find_modules_directly_imported_by(module) - {"cml_bench"}:
            if (pair := (room(module), room(other))) and pair[0] != pair[1]:
                counts[pair] = counts.get(pair, 0) + 1
    return counts


def needed(pairs: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that do not follow from other arrows."""
    below: dict[str, set[str]] = {}

    def reach(name: str) -> set[str]:
        if name not in below:
            below[name] = set()
            for a, b in pairs:
                if a == name:
                    below[name] |= {b} | reach(b)
        return below[name]

    return sorted(
        (a, b)
        for a, b in pairs
        if not any((a, c) in pairs and b in reach(c) for c in {x for x, _ in pairs})
    )


def picture() -> str:
    """The picture as a Mermaid graph, which GitHub draws."""
    every = arrows()
    lines = [f"    {a} --> {b}" for a, b in needed(set(every))]
    told = (
        f"{sum(every.values())} imports between rooms, {len(every)} arrows; drawn are those that do"
        " not follow from "
    )
    told += "others."
    return "\n".join(["```mermaid", "graph TD", *lines, "```", "", told, ""])


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{picture()}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
