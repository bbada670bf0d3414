"""The page's words: titles of methods, data sets and networks, and never their keys."""

import re
from pathlib import Path

import pytest

from cml_bench import registry, titles

PAGES = sorted((Path(__file__).parent.parent / "results" / "reference").glob("*/report.html"))
# Left out: code, logs and the parts that name files, studies and digests as they are stored.
_STORED = re.compile(
    r"<(script|style|code|pre)\b.*?</\1>"
    r"|<section id=\"(?:provenance|cite|downloads)\".*?</section>",
    re.DOTALL,
)
_FOLDER = re.compile(r"\S+-\d+w\d+s-s\d+-[0-9a-f]{8}")


def test_a_title_is_that_of_something_the_package_has():
    known = {*registry.methods.names(), *registry.datasets.names(), *registry.networks.names()}
    assert titles.TITLES.keys() <= known
    assert len(set(titles.TITLES.values())) == len(titles.TITLES)
    assert titles.of("my_own+cml") == "my_own + CML"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("maml+cml on glyphs, 5-way 1-shot, seed 0", "MAML + CML on glyphs, 5-way 1-shot, seed 0"),
        ("omniglot instead of miniimagenet", "Omniglot instead of MiniImagenet"),
        ("without mamlpp, sharp_maml+cml", "without MAML++, Sharp-MAML + CML"),
        ("mine+cml and maml_untrained", "mine + CML and maml_untrained"),
    ],
)
def test_titles_stand_in_the_places_of_whole_keys(text, told):
    assert titles.within(text) == told


@pytest.mark.parametrize("page", PAGES, ids=[page.parent.name for page in PAGES])
def test_a_published_page_shows_no_key(page):
    html = page.read_text()
    html = _STORED.sub(" ", html[html.index("<main") :])
    text = _FOLDER.sub(" ", re.sub(r"<[^>]+>", " ", html))
    keys = [key for key, title in titles.TITLES.items() if title[:1].isupper()]
    keys.remove("conv4")  # the last block of the network is called so, too
    found = re.findall(rf"(?<![\w/-])(?:{'|'.join(keys)})(?:_untrained|\+cml)?(?![\w/-])", text)
    assert sorted(set(found)) == []
