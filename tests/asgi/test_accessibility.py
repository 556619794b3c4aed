"""Page and report for people who see little or nothing: axe-core finds no violation at any width, light or dark."""

from __future__ import annotations

from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browsing import THERE, WHY_NOT, Page, seen_at
from PIL import Image
from skimage import data

for name in ("fastapi", "selenium", "axe_playwright_python", "jinja2"):
    pytest.importorskip(name, reason=f"{name} is not installed (extra `dev`)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not THERE, reason=WHY_NOT),
    pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning"),  # composites are blurred
]
SEEN = list(product((360, 768, 1400), ("light", "dark")))


@cache
def axe() -> str:
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def violations(browser: Any) -> list[str]:
    """What axe-core objects to, with the elements."""
    browser.set_script_timeout(120)
    browser.execute_script(axe())
    found = browser.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
    assert found["passes"], "axe has looked at nothing"
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def seen_everywhere(browser: Any) -> None:
    for width, scheme in SEEN:
        seen_at(browser, width, scheme)
        assert violations(browser) == [], (width, scheme)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_with_nothing_and_with_an_error(page: Page, tmp_path: Path) -> None:
    (tmp_path / "none.jpg").write_bytes(b"no photograph")
    seen_everywhere(page.browser)
    page.upload("probe", tmp_path / "none.jpg")
    page.until(lambda: page.at("#error").is_displayed())
    seen_everywhere(page.browser)


def test_the_page_with_all_its_answers(page: Page, tmp_path: Path) -> None:
    page.sample("sunglasses")
    page.explain()
    page.explained()
    for asked, shown in (("#ask-matches", "#matches"), ("#ask-methods", "#methods")):
        page.until(lambda asked=asked: page.at(asked).is_enabled())
        page.at(asked).click()
        page.until(lambda shown=shown: page.at(shown).is_displayed() and not page.at("#busy").is_displayed())
    photo = np.asarray(data.astronaut())
    for number in range(2):
        Image.fromarray(photo // (1 + number)).save(tmp_path / f"{number}.png")
    page.at("#folder").send_keys(str(tmp_path))
    page.until(lambda: page.at("#ask-why").is_displayed() and page.at("#ask-why").is_enabled())
    page.at("#ask-why").click()
    page.until(lambda: page.at("#why").is_displayed())
    seen_everywhere(page.browser)


def test_the_report(browser: Any, tmp_path: Path) -> None:
    from xfr_plugin.explanation.report import build_report
    from xfr_plugin.swaps.donors import composite_faces

    faces = (composite_faces(12)[-2:].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    (page,) = build_report(*faces, alignment="aligned", command="xfr report a b").save(
        tmp_path / "report.html"
    )
    browser.switch_to.window(browser.window_handles[0])
    browser.get(page.as_uri())
    seen_everywhere(browser)
