"""Commands say before they begin what they cannot write, and never write over what they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from xfr_plugin.base.files import check_targets
from xfr_plugin.cli.codes import EXIT_BAD_INPUT
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import OutputError


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[str], Path]:
    def written(name: str) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, format="PNG")
        return tmp_path / name

    return written


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "name", "out"),
    [
        (("explain",), "explanation.png", "."),
        (("explain",), "explanation.json", "."),
        (("explain", "--server", "http://127.0.0.1:9"), "probe.png", "."),
        (("compare", "--methods", "xssab"), "comparison.png", "."),
        (("bilrp",), "bilrp.png", "."),
        (("reconstruct",), "reconstruction.png", "."),
        (("report",), "a.png", "a.png"),
        (("report", "--pdf"), "page.pdf", "page.html"),
    ],
)
def test_photos_are_not_written_over(
    photo: Callable[[str], Path], words: tuple[str, ...], name: str, out: str
) -> None:
    first = photo(name)
    photos = (first,) if words[0] == "reconstruct" else (first, first)
    data = first.read_bytes()
    ended = run(words[0], *photos, *words[1:], "--out", first.parent / out)
    assert ended.exit_code == EXIT_BAD_INPUT
    assert "would be written over what is read" in ended.stderr
    assert first.read_bytes() == data
    assert [path.name for path in first.parent.iterdir()] == [name]


def test_a_card_is_not_written_over_its_pairs_or_weights(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.json"
    pairs.write_text("[]")
    words = ("calibrate", "-r", "xfr_compact128", "--faces", tmp_path, "--pairs", pairs, "--out")
    assert "written over what is read" in run(*words, pairs).stderr
    ended = run(*words, tmp_path / "card.txt")
    assert ended.exit_code == EXIT_BAD_INPUT
    assert "a card is a .json file" in ended.stderr
    assert pairs.read_text() == "[]"


def test_a_page_that_is_no_file(photo: Callable[[str], Path]) -> None:
    first = photo("a.png")
    for words, said in (
        (("--out", first.parent), "is a folder"),
        (("--out", first / "page.html"), "is no folder to write to"),
        (("--out", first.parent / "page.pdf", "--pdf"), "the PDF goes beside it"),
    ):
        ended = run("report", first, first, *words)
        assert ended.exit_code == EXIT_BAD_INPUT
        assert said in ended.stderr


@pytest.mark.parametrize("words", [("schemas",), ("demo",)])
def test_a_folder_that_is_a_file(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    ended = run(*words, "--out", tmp_path / "file")
    assert ended.exit_code == EXIT_BAD_INPUT
    assert "not foreseen" not in ended.stderr


def test_targets_by_links_and_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_text("")
    (tmp_path / "link.png").symlink_to("photo.png")
    with pytest.raises(OutputError, match="written over"):
        check_targets([tmp_path / "link.png"], [tmp_path / "photo.png"])
    check_targets(
        [tmp_path / "new" / "deep" / "file.png"], [tmp_path / "photo.png", "xfr_compact128", "a\0b"]
    )


@pytest.mark.parametrize(
    "words",
    [
        ("recognizer", "--publish"),
        ("aligner", "--out"),
        ("outlines", "--publish"),
        ("regions", "--decoder", "any", "--out"),
        ("evidence", "--publish"),
    ],
    ids=lambda words: words[0],
)
def test_trainings_say_before_hours_of_work_where_they_cannot_write(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    ended = run("train", *words, tmp_path / "file" / "net.safetensors")
    assert ended.exit_code == EXIT_BAD_INPUT
    assert "cannot be written" in ended.stderr
