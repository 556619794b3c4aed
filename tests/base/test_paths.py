"""Whatever is given as a path, what comes out is an error of ours that says what was wrong."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from pathlib import Path

import pytest

from xfr_plugin.base.files import atomic_path, read_text, shown
from xfr_plugin.base.weights import read_metadata, read_weights, sha256_of
from xfr_plugin.errors import InputError, OutputError, PhotoError, WeightsError, XfrError
from xfr_plugin.faces import load_photo
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.lfw import read_landmarks, read_mesh_regions, read_pairs, read_people
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.download import download_weights

STRANGE = {
    "encoded": base64.b64encode(bytes(range(256)) * 8).decode(),
    "long name": "n" * 300 + ".pt",
    "long path": "/".join(["folder"] * 1000) + "/x.pth",
    "NUL": "a\0b.pt",
    "surrogate": "caf\udce9.pt",
    "line break": "two\nlines.pt",
    "through a file": f"{__file__}/inner.pt",
    "data URL": "data:image/png;base64," + "A" * 3000,
    "folder": os.curdir,
    "empty": "",
}


@pytest.fixture(params=STRANGE)
def strange(request: pytest.FixtureRequest) -> str:
    return STRANGE[request.param]


@pytest.mark.parametrize("take", [str, Path])
def test_photos(strange: str, take: type) -> None:
    with pytest.raises(PhotoError) as caught:
        load_photo(take(strange))
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_weights(strange: str) -> None:
    for read in (read_weights, read_metadata, sha256_of):
        with pytest.raises(WeightsError):
            read(strange)
    with pytest.raises(XfrError) as caught:
        load_recognizer(strange)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("source", [3, None, b"\x80\x02", ["a"]])
def test_what_is_no_path_at_all(source: object) -> None:
    with pytest.raises(InputError, match="by name, path or URL"):
        load_recognizer(source)


@pytest.mark.parametrize("read", [read_pairs, read_people, read_landmarks, read_mesh_regions])
def test_lists_of_faces(strange: str, read: object) -> None:
    with pytest.raises(InputError):
        read(Path(strange))


def test_folders_of_faces(strange: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        FaceFolder(Path(strange) / "faces", (112, 112))
    with contextlib.suppress(InputError):
        assert not any(FaceFolder(tmp_path, (112, 112)).photos_of([strange + "/none"]).values())


@pytest.mark.parametrize("place", ["through a file", "NUL", "long name", "long path"])
def test_caches_that_cannot_be_made(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\0" in STRANGE[place]:
        monkeypatch.setattr(os, "environ", {"XFR_CACHE": STRANGE[place]})
    else:
        monkeypatch.setenv("XFR_CACHE", STRANGE[place])
    with pytest.raises(OutputError, match="set XFR_CACHE"):
        download_weights("https://example.org/w.pt", "0" * 64)


def test_users_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XFR_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(WeightsError, match="set XFR_CACHE"):
        download_weights("https://example.org/w.pt", "0" * 64)


@pytest.mark.parametrize("place", ["through a file", "NUL", "long name", "folder"])
def test_files_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    path = tmp_path / STRANGE[place]
    with pytest.raises(OSError, match="cannot be") as caught, atomic_path(path) as temporary:
        temporary.write_text("x")
    assert isinstance(caught.value, OutputError)
    assert not any(tmp_path.iterdir())


def test_writing_from_many_threads_leaves_permissions_alone(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:

        def write(index: int) -> None:
            for turn in range(20):
                with atomic_path(tmp_path / f"{index}-{turn}") as temporary:
                    temporary.write_text("x")

        threads = [threading.Thread(target=write, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}
        assert len(list(tmp_path.iterdir())) == 160
    finally:
        assert os.umask(before) == 0o027


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_text_of_any_editor(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("José\tÅsa\r\n".encode(encoding))
    assert read_text(path, "list").split() == ["José", "Åsa"]


def test_paths_in_messages_are_short_and_on_one_line() -> None:
    assert shown("a/b.jpg") == "a/b.jpg"
    assert shown("a\nb") == "a\\nb"
    assert len(shown("x" * 5000)) < 150
