"""The page of a study and the charts on it, as tests read them."""

import json
import re

from cml_bench.report import charts, write

LEVEL = {"base": 50, "meta": 53, "co": 46}


def written(resolved, root) -> str:
    """Write a study's page; its HTML without the library that draws the charts."""
    write.tables(resolved, root, [])
    html = write.page(resolved, root).read_text()
    assert html.count(charts.script()) == 1
    return html.replace(charts.script(), "")


def specs_in(html: str) -> dict[str, dict]:
    """The specifications of the charts on a page, by id."""
    elements = re.findall(
        r'<div class="chart" id="([^"]+)"><script type="application/json">(.*?)</script>', html
    )
    return {name: json.loads(spec) for name, spec in elements}
