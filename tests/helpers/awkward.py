"""A study whose labels, titles and captions hold every awkward character."""

from cml_bench.evidence.build import build
from cml_bench.report import write
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.simulated import experiment, finish

LEVEL = {"base": 50, "meta": 45, "co": 46}
LABELS = (
    "_hidden",
    "$x_{$ $$ 1$",
    "a | b||c|",
    "*a* **b** c*",
    "_a_ b_c __d__ e_",
    "R&D &amp; &lt;b&gt; &#65;",
    "a < b <c> d>",
    "</script><b>x</b><!-- y -->",
    "<!-- simulated:end -->",
    "100 % %s %(x)s %a",
    "\\ \\alpha \\n a\\",
    "# a #1 #",
    "{x} {table} {{ y }} }{",
    "~a~ ~~b~~",
    "x^2 [^1] ^",
    "`a` ``b`` `",
    "\"a\" 'b' ''c'' “d”",
    "[a](b) [c] ]( ![d](e)",
    "[1pt] a",
    "- a -- b --- c",
    "+CML",
    "=1+1",
    "@SUM(1)",
    "1. a",
    "> a",
    "† ⋆ ± ψ ≤ γ größe",
)
BASE, GROUP = "base | *b* _c_ & <i> % \\ # $ { } ~ ^ ` ' \" =", "G | *g* $_g_$ <u> &amp; `g` \\"
TITLE = "T | *t* _t_ </h2> <!-- simulated:end --> & % \\ $x^{$ {y} ~t~ `t` #"
CAPTION = "- C | *c* _c_ </p> & % \\ $x^{$ {y} ~c~, where `a_b*c|d` is code #"
SHOWN = CAPTION.replace("`", "")


def study(labels=LABELS, base=BASE, group=GROUP, title=TITLE, caption=CAPTION):
    """A plan of MAML and MAML + CML at two shots, with a row of MAML + CML for each label."""
    rows = [{"label": base, "run": "maml"}]
    rows += [{"label": label, "run": "maml+cml", "against": "maml"} for label in labels]
    table = {
        "kind": "accuracy",
        "title": title,
        "caption": caption,
        "rows": rows,
        "columns": [{"experiment": "e", "title": group}],
    }
    lines = [rows[0], *({"label": label, "run": "maml+cml"} for label in labels[:3])]
    figure = {"kind": "accuracy", "experiment": "e", "runs": lines}
    config = {
        "study": "simulated",
        "title": title,
        "summary": caption,
        "seeds": 3,
        "experiments": {"e": experiment(20)},
        "tables": {"t": table},
        "figures": {"f": {**figure, "title": title, "caption": caption}},
    }
    return resolve(parse(config, "test"), "test")


def made(root):
    """The plan, the folder of its results, and the table."""
    resolved = study()
    store = finish(resolved, root, LEVEL)
    write.figures(resolved, root, [])
    return resolved, root, build(resolved, store, "t")
