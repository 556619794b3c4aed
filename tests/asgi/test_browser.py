"""The page in a real browser: what a user sees and does, by pointer and by keyboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.browsing import THERE, WHY_NOT, Page
from helpers.serving_faces import crops, encoded
from PIL import Image
from skimage import data

from xfr_plugin.explanation.verification import Verification
from xfr_plugin.explanation.words import share_of_area, written
from xfr_plugin.service import Limits

pytest.importorskip("fastapi", reason="FastAPI is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
Keys = pytest.importorskip("selenium.webdriver.common.keys", reason="selenium is not installed").Keys

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not THERE, reason=WHY_NOT)]


def test_a_sample_is_explained_and_regions_tell_their_value(page: Page) -> None:
    page.browser.get_log("browser")
    page.sample("sunglasses")
    page.explain()
    page.explained()
    assert page.text("#verdict") in ("Match", "No match")
    assert page.text("#score-text") in page.text("#words")
    doubted = page.text("#words li").startswith("Do not rely on these maps")
    assert page.at("#doubt").is_displayed() == doubted
    assert page.browser.switch_to.active_element == page.at("#verdict")
    stack = page.at(".stack[data-side=probe]")
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", stack)
    webdriver.ActionChains(page.browser).move_to_element(stack).perform()
    assert re.match(r"Nose: .* % in the probe, .* % in the reference", page.text("#tip"))
    assert page.text("tr.on th") == "nose"
    page.at("#blend").send_keys(Keys.HOME)
    assert page.at(".stack .map").value_of_css_property("opacity") == "0"
    hosts = page.browser.execute_script(
        "return performance.getEntries().map(e => e.name).filter(n => /^http/.test(n))"
    )
    origin = page.browser.execute_script("return location.origin")
    assert hosts
    assert all(host.startswith(origin) for host in hosts)
    assert page.browser.get_log("browser") == []


def test_the_keyboard_alone_does(page: Page) -> None:
    page.browser.execute_script("document.querySelector('[data-sample=people]').focus()")
    page.press(Keys.ENTER)
    page.until(lambda: page.at("#explain").is_enabled())
    page.press(Keys.TAB)
    page.press(Keys.TAB)
    assert page.browser.switch_to.active_element == page.at("#explain")
    page.press(Keys.SPACE)
    page.explained()
    page.press(Keys.TAB)
    assert page.browser.switch_to.active_element == page.at("#blend")
    page.press(Keys.TAB)
    first = page.text("#tip")
    name = page.browser.switch_to.active_element.text
    assert first.lower().startswith(name)
    page.press(Keys.TAB)
    assert page.text("#tip") != first


def test_uploads_faces_to_pick_from_and_errors(page: Page, tmp_path: Path) -> None:
    photo = np.asarray(data.astronaut())
    (tmp_path / "two.jpg").write_bytes(
        encoded(np.concatenate([photo[::2, ::2], photo[::2, ::2]], axis=1), "JPEG")
    )
    (tmp_path / "none.png").write_bytes(encoded(np.full((200, 200, 3), 127, np.uint8)))
    (tmp_path / "text.jpg").write_bytes(b"<script>alert(1)</script>")
    page.upload("probe", tmp_path / "two.jpg")
    page.until(lambda: len(page.browser.find_elements(By.CSS_SELECTOR, "#probe .faces img")) == 2)
    assert "2 faces found, choose one" in page.text("#probe .note")
    for name, words in (("none.png", "no face was found"), ("text.jpg", "no JPEG")):
        page.upload("reference", tmp_path / name)
        page.until(lambda words=words: words in page.text("#error"))
        assert not page.at("#explain").is_enabled()
    page.at("#probe .faces label:nth-child(2)").click()
    page.upload("reference", tmp_path / "two.jpg")
    page.until(lambda: page.at("#explain").is_enabled())
    assert not page.at("#error").is_displayed()
    page.explain()
    page.explained()
    assert page.text("#verdict") == "Match"
    assert "number 1 by size was taken" in page.text("#words")
    page.at("#save-json").click()
    file = page.browser.downloads / "xfr-answer.json"
    page.until(file.exists)
    assert json.loads(file.read_text())["decision"]["match"] is True
    page.at("#probe .faces label:nth-child(1)").click()
    assert not page.at("#result").is_displayed(), "an answer on another face is gone"


def test_two_users_have_answers_of_their_own(page: Page, address: str) -> None:
    other = Page(page.browser, address)
    page.front().sample("people")
    other.front().sample("sunglasses")
    page.front().explain()
    other.front().explain()
    other.explained()
    theirs = float(other.text("#score-text").replace("−", "-"))
    page.front().explained()
    assert theirs > float(page.text("#score-text").replace("−", "-")) + 0.2


def test_one_against_a_folder(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for place, crop in enumerate(crops(3)):
        (folder / f"{place}.png").write_bytes(crop)
    (folder / "broken.jpg").write_bytes(b"nothing")
    (folder / "readme.txt").write_text("no photograph")
    page.at("#folder").send_keys(str(folder))
    page.until(lambda: "probe above first" in page.text("#search-status"))
    page.upload("probe", folder / "0.png")
    page.until(lambda: page.browser.find_elements(By.CSS_SELECTOR, "#probe .faces img"))
    page.at("#folder").send_keys(str(folder))
    page.until(lambda: page.text("#search-status").startswith("3 of 4 photographs compared"))
    rows = page.browser.find_elements(By.CSS_SELECTOR, "#candidates li")
    assert rows[0].text.startswith("0.png: 1.000, match, the same picture")
    assert "broken.jpg" in page.at("#skipped ul").get_attribute("textContent")
    page.at("#ask-why").click()
    page.until(lambda: page.at("#why").is_displayed() or page.at("#error").is_displayed())
    assert re.match(r"Why 0\.png (and not|before) [12]\.png", page.text("#why h3"))
    assert re.match(r"The first leads by 0\.\d+\. (The first alone|Both) reach", page.text("#why p"))
    assert "Most for the first: " in page.text("#why ul")
    rows[0].find_element(By.TAG_NAME, "button").click()
    page.explained()
    page.upload("probe", folder / "1.png")
    page.until(lambda: not page.browser.find_elements(By.CSS_SELECTOR, "#candidates li"))
    assert not page.at("#why").is_displayed()


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.sample("people")
    page.explain()
    page.explained()
    inner = page.browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert inner[0] == width >= inner[1]
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_files_of_one_name_in_many_folders_are_told_apart_and_hidden_ones_left_out(
    page: Page, tmp_path: Path
) -> None:
    for place, crop in enumerate(crops(2)):
        (tmp_path / f"person {place}").mkdir()
        (tmp_path / f"person {place}" / "1.png").write_bytes(crop)
        (tmp_path / f"person {place}" / "._1.png").write_bytes(b"of another system")
    page.upload("probe", tmp_path / "person 0" / "1.png")
    page.until(lambda: page.browser.find_elements(By.CSS_SELECTOR, "#probe .faces img"))
    page.at("#folder").send_keys(str(tmp_path))
    page.until(lambda: page.text("#search-status").startswith("2 of 2 photographs compared"))
    rows = [row.text for row in page.browser.find_elements(By.CSS_SELECTOR, "#candidates li")]
    assert [row.partition(":")[0] for row in rows] == ["person 0/1.png", "person 1/1.png"]
    assert [" ".join(row.split()[-3:-1]) == "same picture" for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("score", "threshold"),
    [(0.35004, 0.35), (0.35, 0.35), (-0.0001, 0.352), (-0.4, 0.352), (87.25, 80.0), (-120.0, -119.5)],
)
def test_scores_are_written_as_everywhere_and_lie_on_the_scale(
    page: Page, score: float, threshold: float
) -> None:
    """Of any recognizer: cosines, percent, distances below zero."""
    decision = Verification.model_construct(score=score, threshold=threshold)
    page.browser.execute_script(
        "answer = {decision: arguments[0]}; $('result').hidden = false; showDecision();",
        {"score": score, "threshold": threshold, "match": score >= threshold},
    )
    assert [page.text("#score-text"), page.text("#threshold-text")] == list(written(decision, 3)[:2])
    assert all(0 <= float(page.at(f"#{name}").get_attribute("style").split()[1][:-2]) <= 100
               for name in ("score", "threshold"))  # fmt: skip
    low, high = (float(page.text(f"#{name}").replace("−", "-")) for name in ("low", "high"))
    assert low < min(score, threshold) <= max(score, threshold) < high or high == 1


def test_colours_are_for_what_is_more_than_its_error(page: Page) -> None:
    page.sample("people")
    page.explain()
    page.explained()
    found = 0
    for cell in page.browser.find_elements(By.CSS_SELECTOR, "#regions td:nth-child(even)"):
        if shown := re.match(r"(\D?[\d.]+) ± ([\d.]+) %", cell.text):
            share, error = (float(text.replace("−", "-")) for text in shown.groups())
            is_coloured = bool(cell.get_attribute("class"))
            found += 1
            assert not is_coloured or abs(share) >= 2 * error - 1.5  # of rounded numbers
    assert found > 10


@pytest.mark.parametrize("verdict", ["supported", "weak", "contradicted"])
def test_doubt_of_the_maps_stands_above_them(page: Page, verdict: str) -> None:
    words = ["Do not rely on these maps."]
    page.browser.execute_script(
        "$('result').hidden = false; showDoubt(arguments[0]);",
        {"faithfulness": {"verdict": verdict}, "words": words},
    )
    assert page.text("#doubt") == ("" if verdict == "supported" else words[0])
    assert page.at("#doubt").location["y"] <= page.at("#pair").location["y"]


def test_other_methods_are_told_for_each_face(page: Page) -> None:
    """Of a mouth that argues for in one face and against in the other, their mean is nothing."""
    rows = [
        [{"region": name, "evidence": sign * share, "similar": share, "dissimilar": 0, "pixels": 1, "error": None}
         for name, share in (("mouth", 3), ("nose", 1))] for sign in (1, -1)
    ]  # fmt: skip
    said = page.browser.execute_script(
        "return arguments[0].map((table, place) => extremes(SIDES[place], shares(table)))", rows
    )
    said = [line.replace("\N{NO-BREAK SPACE}", " ") for line in said]
    assert said == [
        "Probe: most for mouth (+75 %); most against nothing.",
        "Reference: most for nothing; most against mouth (−75 %).",
    ]


def test_areas_are_written_as_in_a_report(page: Page) -> None:
    areas = [0.04, 0.44, 1.96, 12.3]
    shown = page.browser.execute_script(
        "return arguments[0].map((area) => cells({share: 1, error: null, area})[1].textContent)", areas
    )
    assert shown == [share_of_area(area) for area in areas]


def test_two_kinds_of_work_at_once_end_when_both_have(page: Page) -> None:
    page.sample("people")
    page.explain()
    page.explained()
    page.at("#ask-matches").click()
    page.at("#ask-methods").click()
    page.until(lambda: page.at("#matches").is_displayed() or not page.at("#busy").is_displayed())
    page.until(lambda: not page.at("#busy").is_displayed())
    assert page.at("#matches").is_displayed()
    assert len(page.browser.find_elements(By.CSS_SELECTOR, "#methods article")) >= 3
    assert page.at("#explain").is_enabled()


def test_a_photograph_as_a_phone_makes_it_is_taken(page: Page, tmp_path: Path) -> None:
    """More bytes and pixels than a service takes of strangers."""
    limits = Limits()
    photo = np.asarray(Image.fromarray(data.astronaut()).resize((5200, 5200), Image.Resampling.BICUBIC))
    grain = np.random.default_rng(0).integers(0, 12, photo.shape, dtype=np.uint8)
    file = tmp_path / "Füße auf dem Straßenfest.jpg"
    Image.fromarray(np.minimum(photo, 243) + grain).save(file, quality=95)
    assert file.stat().st_size > limits.image_bytes
    assert photo.shape[0] * photo.shape[1] > limits.pixels
    page.upload("probe", file)
    page.until(lambda: "looking" not in page.text("#probe .note"))
    assert page.text("#probe .note") == f"{file.name}: one face found"


def test_without_the_token_the_page_says_so(page: Page, address: str) -> None:
    other = Page(page.browser, address.partition("#")[0])
    assert "token" in other.text("#error")
