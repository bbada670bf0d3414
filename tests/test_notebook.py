"""The notebook in docs/: its code runs as it stands, and its table is the published one."""

import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "results_as_data.ipynb"


@pytest.fixture
def run_in_docs(monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    yield
    plt.close("all")


def test_the_notebook_ends_with_the_published_numbers(run_in_docs):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["latex"].startswith("\\begin{tabular}")
    table = pd.read_csv(ROOT / "results/reference/omniglot/tables/omniglot.csv")
    of_head = table[table["statistic"] == "mean"].set_index(["row", "shot"])["mean"]
    assert len(names["table"]) == 8
    for _, line in names["table"].iterrows():
        label, shot = line["Method"].replace("$^\\dagger$", "†"), line["Shot"]
        assert line["With CML"] == f"{of_head[label, shot]:.2f}"
        assert line["Baseline"] == f"{of_head[label.split()[0], shot]:.2f}"
    assert [len(axes.lines) for axes in names["figure"].axes] == [4]
