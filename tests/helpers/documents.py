"""What the documents hold that tests run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def worked_examples() -> dict[str, str]:
    """The files of docs/extending.md by their paths in the repository."""
    text = (ROOT / "docs" / "extending.md").read_text()
    pattern = r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```"
    return dict(re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL))


def anchor(heading: str) -> str:
    """The fragment of GitHub's link to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
