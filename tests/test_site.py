"""The site of the docs: built without a warning, its links lead somewhere, and it fetches nothing from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import xfr_plugin
from xfr_plugin import attr

for name in ("mkdocs", "mkdocstrings", "nbconvert"):
    pytest.importorskip(name, reason=f"{name} is not installed (extra `dev`)")

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link":
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].places, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for source in page.loaded:
            assert urlsplit(source).scheme in ("", "data"), f"{path.name} loads {source}"


def test_the_reference_holds_every_public_name(site: Path) -> None:
    for module in (xfr_plugin, attr):
        text = (site / "reference" / f"{module.__name__}.html").read_text(encoding="utf-8")
        for exported in module.__all__:
            if exported not in ("__version__", "errors"):
                assert f'id="{module.__name__}.{exported}"' in text, exported


def test_pages_and_tutorials_are_there(site: Path) -> None:
    for page in (*ROOT.glob("docs/*.md"), *ROOT.glob("docs/tutorials/*.ipynb")):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    assert "Explain a pair" in (site / "index.html").read_text(encoding="utf-8")
