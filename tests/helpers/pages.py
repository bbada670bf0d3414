"""The page of a study, and the charts on it."""

import json
import re

from cml_bench.report import charts, write

LEVEL = {"base": 50, "meta": 53, "co": 46}


def written(resolved, root) -> str:
    """The page of a study, without the library that draws its charts."""
    write.tables(resolved, root, [])
    html = write.page(resolved, root).read_text()
    assert html.count(charts.script()) == 1
    return html.replace(charts.script(), "")


def specs_in(html: str) -> dict[str, dict]:
    """The charts by their ids."""
    elements = re.findall(
        r'<div class="chart" id="([^"]+)"><script type="application/json">(.*?)</script>', html
    )
    return {name: json.loads(spec) for name, spec in elements}
