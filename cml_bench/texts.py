"""Texts that people write (labels, titles, captions, reasons) in every form that they are shown in.

Each of them is plain text: a character means itself, in every form. The one markup is a pair of
backticks around code, and it counts in running text alone, which is a :class:`Prose`. What a form
needs to have escaped is said here alone.
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
    """The text with single spaces for all white space; a ValueError for a character that cannot be
    shown.
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
    """For a terminal: control characters, of a log say, by their names (``\\x1b``), so that they do
    nothing there.
    """
    return "".join(
        repr(c)[1:-1] if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text
    )


def _flat(text: str) -> str:
    """Without line breaks: in all forms but HTML they would begin a row or a paragraph."""
    return re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", text)


def _pieces(text: str) -> list[tuple[bool, str]]:
    """The text in order, in pieces that are code or not; all of it is not where it is no Prose."""
    pieces = _CODE.split(_flat(text)) if isinstance(text, Prose) else [_flat(text)]
    return [(number % 2 == 1, piece) for number, piece in enumerate(pieces)]


# -- Markdown
# -----------------------------------------------------------------------------------------

# Only what would mean something, so that the source stays legible: an underscore within a word, a
# bracket without a link and "p < 0.05" mean themselves. `<` and `&` are written as HTML has them: a
# comment in a text must not be one.
_MEANS = r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|(?:(?<=\s)|^)#|\](?=[(\[:])"
_HTML = {"<": "&lt;", "&": "&amp;"}
_MARKDOWN = re.compile(rf"{_MEANS}|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_IN_LINK = re.compile(rf"{_MEANS}|<(?=[A-Za-z/!?])|&(?=#?\w+;)|[\[\]]")
_BEGINS_BLOCK = re.compile(r"^(\d{1,9})?((?<=\d)[.)](?=\s|$)|(?<!\d)[-+>\[=])")


def markdown(text: str, link: bool = False) -> str:
    """Text for a cell or a heading; ``link``: for the text of a link or a picture."""
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
    """Markdown for a paragraph or an item of a list: the beginning makes no list and no
    quotation.
    """
    return _BEGINS_BLOCK.sub(r"\1\\\2", markdown(text))


# -- LaTeX
# --------------------------------------------------------------------------------------------

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
    **{letter[0]: rf"$\{letter[1:]}$" for letter in _GREEK.split()},
}
_LIGATURE = re.compile(r"-(?=-)|'(?=')")  # two of them would be set as one other sign


def latex(text: str) -> str:
    """Text for LaTeX, with the few symbols that tables use; other letters need an engine that knows
    them.
    """
    plain = ((code, _LIGATURE.sub("\\g<0>\0", piece)) for code, piece in _pieces(text))
    escaped = (
        (code, "".join(_LATEX.get(c, c) for c in piece).replace("\0", "{}"))
        for code, piece in plain
    )
    return "".join(rf"\texttt{{{piece}}}" if code else piece for code, piece in escaped)


def latex_row(cells: list[str]) -> str:
    r"""A row of a tabular from cells that are LaTeX already. Behind ``\\`` a ``[`` or ``*`` would
    be its argument.
    """
    return ("{}" if cells[0].startswith(("[", "*")) else "") + " & ".join(cells) + r" \\"


# -- HTML, reStructuredText, CSV
# ----------------------------------------------------------------------


def html(text: str) -> Markup:
    """Text for an HTML element, code of a Prose set as code."""
    safe = str(escape(text))
    return Markup(_CODE.sub(r"<code>\1</code>", safe) if isinstance(text, Prose) else safe)


def rst(text: str) -> str:
    """Text for a caption of Snakemake's report. Backticks stay what they are.

    Snakemake puts the source of a caption into a script element, too: an empty escape parts ``</``
    and ``<!``.
    """
    escaped = re.sub(r"[\\*`_|\[\]:]", r"\\\g<0>", _flat(text))
    escaped = re.sub(r"<(?=[/!])", r"<\\ ", escaped)
    return (
        f"\\ {escaped}" if re.match(r"\W|\w+[.)]\s", escaped) else escaped
    )  # else a list, say, would begin


def snakemake_label(text: str) -> str:
    """A label of Snakemake's report, for which braces mean wildcards and ``</script>`` the end:
    parted unseen.
    """
    return re.sub(r"[{<]", "\\g<0>\u2060", text)


def csv(text: str) -> str:
    """A text in a table that spreadsheets open: ``'=1+1``, for a text that begins like a formula
    would be one.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
