"""The page in a real browser, as a user has it before him."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

from helpers.shells import said_address

ROOT = Path(__file__).parents[2]
THERE = bool(shutil.which("chromium") and shutil.which("chromedriver"))
WHY_NOT = "there is no chromium with its chromedriver"


@contextmanager
def served_page(folder: Path) -> Iterator[str]:
    """The address of a page that `xfr web` serves from an empty folder, and leaves as it was."""
    said = folder / "said.txt"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "xfr_plugin.cli", "web", "--no-open"],
            cwd=folder,
            env={**environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield said_address(process, said, r"/page/#\S+")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, said.read_text()
        assert "stopped" in said.read_text()
        assert sorted(path.name for path in folder.iterdir()) == ["said.txt"], "nothing is stored"
    finally:
        process.kill()
        process.wait()


@contextmanager
def chromium(downloads: Path) -> Iterator[Any]:
    """Chromium without a window, driven by Selenium; what it downloads goes into the folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.downloads = downloads
    try:
        yield driver
    finally:
        driver.quit()


def seen_at(browser: Any, width: int, scheme: str) -> None:
    """Make the window so many pixels wide, and what the user prefers `light` or `dark`."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


class Page:
    """The page in a window of its own."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.switch_to.new_window("window")
        self.window = browser.current_window_handle
        browser.set_window_size(900, 900)
        browser.get(address)
        self.until(lambda: not self.at("#busy").is_displayed())

    def at(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.at(selector).text)

    def until(self, holds: Callable[[], Any], seconds: float = 120) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, seconds, poll_frequency=0.1).until(lambda _: holds())

    def front(self) -> Page:
        self.browser.switch_to.window(self.window)
        return self

    def upload(self, side: str, path: Path) -> None:
        self.at(f"#{side} input[type=file]").send_keys(str(path))

    def sample(self, name: str) -> None:
        self.at(f"[data-sample={name}]").click()
        self.until(lambda: self.at("#explain").is_enabled())

    def explain(self) -> None:
        self.at("#explain").click()

    def explained(self) -> None:
        self.until(lambda: self.at("#result").is_displayed() or self.at("#error").is_displayed())
        assert self.at("#result").is_displayed(), self.text("#error")

    def press(self, *keys: str) -> None:
        self.browser.switch_to.active_element.send_keys(*keys)
