"""The page of `xfr web` and a browser, once for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helpers.browsing import Page, chromium, served_page


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_page(tmp_path_factory.mktemp("web")) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("downloads")) as driver:
        yield driver


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    opened = Page(browser, address)
    yield opened
    for window in browser.window_handles[1:]:
        browser.switch_to.window(window)
        browser.close()
    browser.switch_to.window(browser.window_handles[0])
