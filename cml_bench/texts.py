"""Texts that people write (labels, titles, captions, reasons), in every form that shows them.

These texts are plain: each character means itself in every form. The one markup is a pair of
backticks around code, and it counts only in running text (:class:`Prose`). This module alone knows
which characters a form needs to have escaped.
"""

import re
import unicodedata
from typing import Annotated

from markupsafe import Markup, escape
from pydantic import AfterValidator

_CODE = re.compile(r"`([^`]+)`")


class Prose(str):
    """Running text, such as a summary or a caption: a pair of backticks marks code."""

    __slots__ = ()


def one_line(value: str) -> str:
    """The text with each run of white space as one space.

    A ValueError names a character that cannot be shown.
    """
    text = " ".join(value.split())
    if odd := next((c for c in text if unicodedata.category(c) in ("Cc", "Cs")), None):
        raise ValueError(
            f"has the control character U+{ord(odd):04X}, which cannot be shown: take it out"
        )
    return text


Line = Annotated[str, AfterValidator(one_line)]
"""A text in a configuration."""


def controls_escaped(text: str) -> str:
    """The text for a terminal: control characters become visible codes such as ``\\x1b``.

    A log may hold them, and a terminal would obey them. Line breaks and tabs stay.
    """
    return "".join(
        repr(c)[1:-1] if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text
    )


def duration(seconds: float) -> str:
    """``2:05`` (minutes and seconds), from an hour on ``3 h 10 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def score(value: float, kind: str) -> str:
    """A result of one run: an accuracy in [0, 1] in percent, or a squared error."""
    return f"{100 * value:.1f} %" if kind == "classification" else f"MSE {value:.3f}"


def _flat(text: str) -> str:
    """The text without line breaks: in every form but HTML they begin a new row or paragraph."""
    return re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", text)


def _pieces(text: str) -> list[tuple[bool, str]]:
    """The text cut into (is code, piece), in order. A text that is no Prose has no code."""
    pieces = _CODE.split(_flat(text)) if isinstance(text, Prose) else [_flat(text)]
    return [(number % 2 == 1, piece) for number, piece in enumerate(pieces)]


# ---- Markdown

# Only characters that would be markup are escaped, so that the source stays legible: an underscore
# within a word, a bracket without a link and "p < 0.05" stay as they are. `<` and `&` become HTML
# entities: "<!--" in a text must not begin a comment.
_MEANS = r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|(?:(?<=\s)|^)#|\](?=[(\[:])"
_HTML = {"<": "&lt;", "&": "&amp;"}
_MARKDOWN = re.compile(rf"{_MEANS}|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_IN_LINK = re.compile(rf"{_MEANS}|<(?=[A-Za-z/!?])|&(?=#?\w+;)|[\[\]]")
_BEGINS_BLOCK = re.compile(r"^(\d{1,9})?((?<=\d)[.)](?=\s|$)|(?<!\d)[-+>\[=])")


def markdown(text: str, link: bool = False) -> str:
    """Markdown for a cell or a heading; with ``link``, for the text of a link or a picture."""
    pattern = _IN_LINK if link else _MARKDOWN
    return "".join(
        (
            f"`{piece}`"
            if code
            else pattern.sub(lambda match: _HTML.get(match[0], f"\\{match[0]}"), piece)
        )
        for code, piece in _pieces(text)
    )


def paragraph(text: str) -> str:
    """Markdown for a paragraph or an item of a list.

    Its first characters are escaped where they would begin a list or a quotation.
    """
    return _BEGINS_BLOCK.sub(r"\1\\\2", markdown(text))


# ---- LaTeX

_GREEK = (
    "αalpha βbeta γgamma δdelta εepsilon ζzeta ηeta θtheta ιiota κkappa λlambda μmu νnu ξxi πpi"
    " ρrho σsigma τtau υupsilon φphi χchi ψpsi ωomega ΓGamma ΔDelta ΘTheta ΛLambda ΞXi ΠPi ΣSigma"
    " ΦPhi ΨPsi ΩOmega"
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "—": "---",
    "<": r"$<$",
    ">": r"$>$",
    "⋆": r"$^\star$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "▲": r"$\bigtriangleup$",
    "▼": r"$\bigtriangledown$",
    **{letter[0]: rf"$\{letter[1:]}$" for letter in _GREEK.split()},
}
_LIGATURE = re.compile(r"-(?=-)|'(?=')")  # LaTeX sets two of these as one other sign


def latex(text: str) -> str:
    """LaTeX for the text, with the symbols that tables use.

    Other letters stay as they are, so they need an engine whose fonts have them.
    """
    plain = ((code, _LIGATURE.sub("\\g<0>\0", piece)) for code, piece in _pieces(text))
    escaped = (
        (code, "".join(_LATEX.get(c, c) for c in piece).replace("\0", "{}"))
        for code, piece in plain
    )
    return "".join(rf"\texttt{{{piece}}}" if code else piece for code, piece in escaped)


def latex_row(cells: list[str]) -> str:
    r"""A row of a tabular from cells that are LaTeX already.

    LaTeX takes a ``[`` or ``*`` behind the ``\\`` of the row above for an argument. Where the first
    cell begins with one, ``{}`` comes before it.
    """
    return ("{}" if cells[0].startswith(("[", "*")) else "") + " & ".join(cells) + r" \\"


# ---- HTML, reStructuredText, CSV


def html(text: str) -> Markup:
    """HTML for the content of an element. Code in a Prose becomes a ``code`` element."""
    safe = str(escape(text))
    return Markup(_CODE.sub(r"<code>\1</code>", safe) if isinstance(text, Prose) else safe)


def rst(text: str) -> str:
    """reStructuredText for a caption of Snakemake's report. Backticks mark no code here.

    Snakemake also puts the source of a caption into a script element. An empty escape therefore
    parts ``</`` and ``<!``, which could end that element.
    """
    escaped = re.sub(r"[\\*`_|\[\]:]", r"\\\g<0>", _flat(text))
    escaped = re.sub(r"<(?=[/!])", r"<\\ ", escaped)
    begins_block = re.match(r"\W|\w+[.)]\s", escaped)  # a list, for example
    return f"\\ {escaped}" if begins_block else escaped


def snakemake_label(text: str) -> str:
    """A label of Snakemake's report, with an invisible character behind each ``{`` and ``<``.

    Snakemake takes braces for wildcards, and ``</script>`` would end the page's script.
    """
    return re.sub(r"[{<]", "\\g<0>\u2060", text)


def csv(text: str) -> str:
    """A text for a table that spreadsheets open.

    A text that begins like a formula gets an apostrophe, as in ``'=1+1``: without it the
    spreadsheet would compute it.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
