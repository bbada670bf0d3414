"""Awkward texts in Markdown, LaTeX, CSV and a terminal, read back by independent readers."""

import csv
import io
import re

import pytest

from cml_bench import texts
from cml_bench.errors import UserError
from cml_bench.evidence.table import Column
from cml_bench.records import write_failure
from cml_bench.report import forest, forms, publish, write
from cml_bench.study import status
from tests.helpers.awkward import BASE, GROUP, LABELS, LEVEL, SHOWN, TITLE, study
from tests.helpers.pages import written
from tests.helpers.simulated import finish

# -- Markdown: a reader that refuses whatever could be markup

_TOKEN = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])|&(?P<entity>lt|amp);|`(?P<code>[^`]+)`"
    r"|(?P<plain>(?<=[a-z0-9])_(?=[a-z0-9])|\](?![(\[:])"
    r"|<(?![A-Za-z/!?])|&(?!#?\w+;)|[^\\`*_~$|<&\]])"
)


def markdown_read(source: str) -> str:
    """The text of inline Markdown; fails at a character that could be markup."""
    text, place = "", 0
    while place < len(source):
        match = _TOKEN.match(source, place)
        assert match, f"markup at {source[place : place + 20]!r} of {source!r}"
        text += (
            {"lt": "<", "amp": "&"}.get(match["entity"])
            or match["escaped"]
            or match["code"]
            or match["plain"]
        )
        place = match.end()
    return text


def pipe_rows(source: str) -> list[list[str]]:
    lines = [line for line in source.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]] for line in lines
    ]


@pytest.mark.parametrize("text", ["*a*", "a_", "<b>", "a|b", "&amp ~", "[a](b)", "`a", "a\\"])
def test_the_reader_of_markdown_refuses_markup(text):
    with pytest.raises(AssertionError, match="markup at"):
        markdown_read(text)


def test_markdown(awkward):
    _, _, table = awkward
    source = forms.markdown(table)
    heading, *_ = source.splitlines()
    assert markdown_read(heading.removeprefix("### ")) == TITLE
    assert not re.search(r"(?<!\\)#+$", heading), "the end of a heading is no closing sequence"
    header, _, *rows = pipe_rows(source)
    assert {len(row) for row in (header, *rows)} == {4, 3}, (
        "results have a column of n, differences have none"
    )
    assert markdown_read(header[2]) == f"{GROUP}, 1-shot"
    assert [markdown_read(row[0]) for row in rows[: 1 + len(LABELS)]] == [BASE, *LABELS]
    assert [line for line in source.splitlines() if line.startswith(r"\- C ")], "no list"
    notes = [
        markdown_read(line.removeprefix("* "))
        for line in source.splitlines()
        if line.startswith("* ")
    ]
    assert [
        label
        for label in LABELS
        if not any(note.startswith(f"{label} is above {BASE}") for note in notes)
    ] == []
    assert "where `a_b*c|d` is code" in source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("- a", r"\- a"),
        ("+1", r"\+1"),
        ("> a", r"\> a"),
        ("=", r"\="),
        ("12. a", r"12\. a"),
        ("1) a", r"1\) a"),
        ("[x] a", r"\[x] a"),
        ("# a", r"\# a"),
        ("1.5 a", "1.5 a"),
        ("1-40-40-1 net", "1-40-40-1 net"),
        ("−1", "−1"),
    ],
)
def test_a_paragraph_begins_nothing_else(text, source):
    assert texts.paragraph(text) == source


# -- what is published


def pages_of(content: str) -> str:
    return f"# A\n<!-- simulated:begin -->\n{content}\n<!-- simulated:end -->\nrest\n"


def test_results_page(awkward, tmp_path, monkeypatch):
    monkeypatch.setattr(forest, "picture", lambda tables: None)  # drawing so many lines takes long
    resolved, root, _ = awkward
    page = tmp_path / publish.RESULTS
    page.parent.mkdir(exist_ok=True)
    page.write_text(pages_of("old"), encoding="utf-8")
    publish.publish(resolved, root, tmp_path / "my (own) records", tmp_path)
    results = page.read_text(encoding="utf-8")
    assert publish.between(results, "simulated", "new") == pages_of("new"), (
        "a marker within a text is none"
    )
    assert markdown_read(results.splitlines()[2].removeprefix("## ")) == TITLE
    (picture,) = (line for line in results.splitlines() if line.startswith("!["))
    alt, place = re.fullmatch(r"!\[(.*)\]\((.*)\)", picture).groups()
    assert (markdown_read(alt), place) == (
        TITLE,
        "../my%20%28own%29%20records/simulated/figures/f.png",
    )
    assert [
        line for line in results.splitlines() if line.startswith(f"{texts.markdown(TITLE)}. - C ")
    ], "its caption"


@pytest.mark.parametrize("said", ["`<!-- a:end -->`", "- <!-- a:end -->", "x <!-- a:begin -->"])
def test_markers_within_a_line_are_none(said):
    text = f"<!-- a:begin -->\n{said}\nmore\n<!-- a:end -->\nrest\n"
    assert publish.between(text, "a", "new") == "<!-- a:begin -->\nnew\n<!-- a:end -->\nrest\n"


# -- LaTeX: a reader that knows the commands of texts alone

_COMMANDS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textasciigrave{}": "`",
    r"\textbar{}": "|",
    "$<$": "<",
    "$>$": ">",
    r"$\pm$": "±",
    r"$^\dagger$": "†",
    r"$^\star$": "⋆",
    r"$\psi$": "ψ",
    r"$\gamma$": "γ",
    r"$\leq$": "≤",
    r"$^\ddagger$": "‡",
    r"$-$": "−",
    "--": "–",
    "{}": "",
    **{f"\\{c}": c for c in "&%_#${}"},
}
_SPECIAL = set("\\&%_#${}~^<>|`")


def latex_read(source: str) -> str:
    text, place = "", 0
    while place < len(source):
        command = next(
            (c for c in sorted(_COMMANDS, key=len)[::-1] if source.startswith(c, place)), None
        )
        assert command or source[place] not in _SPECIAL, (
            f"unescaped at {source[place : place + 20]!r}"
        )
        text += _COMMANDS[command] if command else source[place]
        place += len(command or "x")
    return text


def test_latex(awkward):
    _, _, table = awkward
    source = forms.latex(table)
    caption = re.search(r"^\\caption\{(.*)\}$", source, flags=re.MULTILINE)[1]
    code = r"\texttt{a\_b*c\textbar{}d}"
    assert code in caption
    assert latex_read(caption.replace(code, r"a\_b*c\textbar{}d")).startswith(f"{TITLE}. {SHOWN}")
    body = re.search(r"\\midrule\n(.*?)\n\\bottomrule", source, flags=re.DOTALL)[1].splitlines()
    assert all(line.endswith(r" \\") and not line.startswith(("[", "*")) for line in body)
    cells = [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in body]
    assert {len(row) for row in cells} == {4}
    assert [latex_read(row[0]) for row in cells] == [BASE, *LABELS]


@pytest.mark.parametrize("text", ["a_b", "50 %", "a & b", "$x$", "{", "x^2", "~", "a|b", "`a"])
def test_the_reader_of_latex_refuses_what_is_not_escaped(text):
    with pytest.raises(AssertionError, match="unescaped"):
        latex_read(text)


# -- CSV, terminal


def test_csv_has_every_label_and_no_formula(awkward):
    _, _, table = awkward
    lines = list(csv.DictReader(io.StringIO(forms.csv(table))))
    labels = dict.fromkeys(line["row"] for line in lines)
    assert [label.removeprefix("'") for label in labels] == [BASE, *LABELS]
    guarded = ["'- a -- b --- c", "'+CML", "'=1+1", "'@SUM(1)"]
    assert [label for label in labels if label.startswith("'")] == guarded
    assert {line["columns"] for line in lines} == {GROUP}
    assert all(line["diff"].startswith("-") and float(line["diff"]) < 0 for line in lines[2:]), (
        "numbers keep a minus"
    )


def test_the_terminal(awkward):
    resolved, root, _ = awkward
    lines = write.text(resolved, root, []).splitlines()
    assert lines[0] == TITLE
    starts = dict.fromkeys(re.split(r" {2,}", line)[0] for line in lines[3:])
    assert list(starts)[: 1 + len(LABELS)] == [BASE, *LABELS]


def test_status_shows_control_characters_of_a_log_by_their_names(tmp_path):
    resolved = study()
    specs = [run.spec for run in resolved.runs]
    store = finish(resolved, tmp_path, LEVEL, only=lambda spec: spec.id != specs[0].id)
    write_failure(store.folder(specs[0]), "Traceback\nError: \x1b[31m *x* | \x07 <b> größe\n")
    assert r"Error: \x1b[31m *x* | \x07 <b> größe" in status.text(resolved, tmp_path)
    assert r"Error: \x1b[31m *x* | \x07 &lt;b&gt; größe" in written(resolved, tmp_path)


# -- the configuration


def test_a_text_is_one_line():
    plan = study(["a\n\n b\tc"], title=" T\r\nU ", group="G\u2028H", caption="C\n\n  D")
    table = plan.tables["t"]
    assert (table.rows[1].label, table.title, table.caption) == ("a b c", "T U", "C D")
    assert (table.columns[0].title, plan.study.summary) == ("G H", "C D")


@pytest.mark.parametrize(
    ("odd", "name"), [("\x1b[31m", "U+001B"), ("a\x00", "U+0000"), ("\ud800", "U+D800")]
)
def test_what_cannot_be_shown_is_refused_by_name(odd, name):
    with pytest.raises(
        UserError, match=rf"(?s)tables\.t\.rows\.1\.label.*control character {re.escape(name)}"
    ):
        study([odd])
    with pytest.raises(UserError, match=r"tables\.t\.title"):
        study(["a"], title=odd)


def test_rows_have_labels_of_their_own():
    with pytest.raises(
        UserError, match="t has two rows called 'a b': give each a label of its own"
    ):
        study(["a b", "c", "a\nb"])


@pytest.mark.parametrize("group", [", a", "a", ", ", ""])
def test_groups_of_columns_keep_their_titles(group):
    assert Column(5, group=group).place == (f"{group}, 5-shot" if group else "5-shot")
