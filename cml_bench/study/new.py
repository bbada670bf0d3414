"""Writes a file with which a user's own method, data set or network begins.

The files are made of the templates ``_template.py``, which are in the folders of the package.
"""

import keyword
import re
from pathlib import Path

from cml_bench.errors import UserError
from cml_bench.study import offers
from cml_bench.study.plan import PACKAGE
from cml_bench.system.files import write_bytes

# What can be begun -> its folder in the package, which is also its kind in ``list``.
KINDS = {"method": "methods", "data": "data", "network": "networks"}


def write(kind: str, name: str, folder: Path) -> Path:
    """Write ``NAME.py`` into a folder, which is made if need be; returns the file's path.

    ``kind``: one of KINDS. A UserError for a name that is taken or cannot be a class's, and for a
    file that is there; nothing is written then.
    """
    template = (PACKAGE / KINDS[kind] / "_template.py").read_text(encoding="utf-8")
    own = "".join(part.capitalize() for part in name.split("_"))
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise UserError(
            f"{name!r} cannot be a name: begin with a letter, then use a-z, 0-9 and single _"
            " between them."
        )
    if keyword.iskeyword(own) or re.search(rf"\b{own}(Options|CoLearner)?\b", template):
        raise UserError(
            f"{name!r} cannot be the name: the class would be called {own}, which means something"
            " else in its file. Choose another name."
        )
    if name in offers.names(KINDS[kind]):
        raise UserError(f"`list {KINDS[kind]}` has {name!r} already. Choose another name.")
    path = folder / f"{name}.py"
    if path.exists():
        raise UserError(f"{path} is there already. Choose another name, or another --folder.")
    text = re.sub(r"\btemplate\b", name, template)
    write_bytes(path, re.sub(r"\bTemplate", own, text).encode())
    return path
