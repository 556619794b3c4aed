"""What the site has beside the pages of `docs/`: the README as its first page, tutorials, and the reference.

The reference has a page for each public module, with the names of its `__all__`. Links to files that are no part of
the site (code, tests, licences) become plain text, since the site is read without the source tree.
"""

from __future__ import annotations

import importlib
import inspect
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
MODULES = (
    "xfr_plugin", "xfr_plugin.attr", "xfr_plugin.recognition", "xfr_plugin.faces", "xfr_plugin.evaluation",
    "xfr_plugin.bulk", "xfr_plugin.service", "xfr_plugin.service.client", "xfr_plugin.asgi", "xfr_plugin.torchserve",
    "xfr_plugin.training", "xfr_plugin.reconstruction", "xfr_plugin.channels", "xfr_plugin.lrp", "xfr_plugin.errors",
)  # fmt: skip
_MOVED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Give the reference a place in the navigation."""
    pages = [{module: f"reference/{module}.md"} for module in MODULES]
    config.nav.append({"Reference": pages})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add pages that are made, and leave out what they are made of."""
    texts = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        **{f"reference/{module}.md": _reference(module) for module in MODULES},
    }
    for notebook in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        made, resources = MarkdownExporter().from_filename(str(notebook))
        texts[f"tutorials/{notebook.stem}.md"] = _named_pictures(made, notebook.stem)
        for name, data in resources["outputs"].items():
            files.append(File.generated(config, f"tutorials/{notebook.stem}_{name}", content=data))
        files.remove(files.get_file_from_path(f"tutorials/{notebook.name}"))
    for path, text in texts.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to pages of the site, or be text."""
    folder = posixpath.dirname(page.file.src_uri)
    of_root = page.file.src_uri in ("index.md", "changelog.md")

    def turned(found: re.Match[str]) -> str:
        picture, words, target, anchor = found.groups()
        if target.startswith(("http:", "https:", "data:")):
            return found[0]
        from_root = target if of_root else posixpath.normpath(posixpath.join("docs", folder, target))
        inside = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}.get(
            from_root, from_root.removeprefix("docs/")
        )
        inside = re.sub(r"\.ipynb$", ".md", inside)
        if files.get_file_from_path(inside) is None:
            assert (ROOT / from_root).exists(), f"{page.file.src_uri} links to {target}, which is not there"
            return words
        return f"{picture}[{words}]({posixpath.relpath(inside, folder or '.')}{anchor or ''})"

    if page.file.src_uri.startswith(("reference/", "tutorials/")) and page.file.generated_by:
        return markdown
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(turned, part) for part in parts)


def _reference(name: str) -> str:
    """A page on a module: what it is for, and every name that it promises."""
    module = importlib.import_module(name)
    lines = [f"# {name}", "", inspect.getdoc(module) or "", ""]
    for exported in sorted(module.__all__, key=lambda one: (one.isupper(), one.lower())):
        if exported.startswith("__") or inspect.ismodule(getattr(module, exported)):
            continue
        lines += [f"::: {name}.{exported}", ""]
    return "\n".join(lines)


def _named_pictures(markdown: str, stem: str) -> str:
    """Pictures of a notebook under names that no other has."""
    return re.sub(r"!\[(\w+)\]\((output_\S+)\)", rf"![\1]({stem}_\2)", markdown)
