"""What is worn in photographs: the list of them, and that a map that knows of it is right."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluation_faces import PEOPLE, judge, small_recognizer, write_faces
from helpers.protocol_toys import value_of

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.judging import evaluate
from xfr_plugin.evaluation.occluders.covered import Cover
from xfr_plugin.evaluation.pairs import PairEntry, PairList, load_pair, person_of, read_pair_list
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols.worn import Worn
from xfr_plugin.faces.folder import FaceFolder, in_split

LIST = resources.files("xfr_plugin.evaluation.occluders") / "lfw.csv"
COVER = Cover(kind="sunglasses", regions=("right_eye", "left_eye"), clean="p00/2.png")
ENTRY = PairEntry(probe="p00/0.png", reference="p00/1.png", genuine=True, cover=COVER)


def _listed() -> tuple[PairEntry, ...]:
    with resources.as_file(LIST) as path:
        return read_pair_list(path).covered


def test_the_list_names_sixty_photographs_each_beside_two_without() -> None:
    entries = _listed()
    covered = {entry.probe for entry in entries}
    assert len(covered) == len(entries) >= 60
    people = Counter(person_of(entry.probe) for entry in entries)
    assert max(people.values()) <= 2
    for entry in entries:
        assert entry.cover is not None
        files = set(entry.files)
        assert len(files) == 3
        assert len({person_of(file) for file in files}) == 1
        assert not (files - {entry.probe}) & covered
    assert len({entry.cover.kind for entry in entries if entry.cover}) >= 6
    assert sum(in_split(person_of(entry.probe), "test") for entry in entries) >= 40


@pytest.mark.real_data
def test_its_photographs_are_there(faces_root: Path) -> None:
    assert all((faces_root / "lfw112" / file).is_file() for entry in _listed() for file in entry.files)


def _judged(sign: int, folder: FaceFolder) -> list[object]:
    pair = load_pair(folder, ENTRY)
    told = np.where(pair.probe_regions.mask(*COVER.regions), np.float32(sign), np.float32(0))
    setting = Setting(small_recognizer(), 0.2)
    nothing = CHANCE_BASELINES["chance_centre"]  # whose map before is empty
    return list(Worn().judge(pair, (told, told), nothing, setting))


def test_a_map_that_knows_is_right_and_its_negative_wrong(tmp_path: Path) -> None:
    write_faces(tmp_path)
    folder = FaceFolder(tmp_path, (24, 20))
    right, wrong = _judged(-1, folder), _judged(1, folder)
    assert value_of(right, "auc") > 0.9 > 0.1 > value_of(wrong, "auc")  # type: ignore[arg-type]  # measurements
    for metric in ("stands out", "right sign", "top1", "lower", "falls most"):
        found = [value_of(side, metric) for side in (right, wrong)]  # type: ignore[arg-type]  # as above
        assert found == [1, 0], metric


def test_a_run_judges_what_is_listed_and_goes_on(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces")
    pairs = PairList(people=PEOPLE, covered=(ENTRY,))
    for _ in range(2):
        results = evaluate(
            tmp_path / "faces",
            pairs,
            tmp_path / "run",
            methods=("xssab",),
            protocols=("worn",),
            recognizer=small_recognizer(),
        )
    assert [entry.name for entry in results.manifest.covered] == [ENTRY.name]
    assert results.facts[ENTRY.name]["kind"] == "sunglasses"
    assert {row.slice for row in results.summary() if row.protocol == "worn"} >= {"", "sunglasses"}
    assert not results.failures


def test_faces_that_are_not_lfws_have_none_unless_listed(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces")
    with pytest.raises(InputError, match="nothing to judge"):
        judge(tmp_path / "faces", tmp_path / "run", protocols=("worn",))


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    head = "probe,reference,genuine,kind,covers,clean\n"
    path.write_text(head + "a/1.png,a/2.png,1,,,\na/3.png,a/2.png,1,hat,forehead hair,a/1.png\n")
    found = read_pair_list(path)
    assert [entry.probe for entry in found.pairs] == ["a/1.png"]
    (entry,) = found.covered
    assert entry.cover == Cover(kind="hat", regions=("forehead", "hair"), clean="a/1.png")
    for bad in ("a/3.png,a/2.png,0,hat,forehead,a/1.png", "a/3.png,a/2.png,1,hat,knee,a/1.png"):
        path.write_text(head + bad + "\n")
        with pytest.raises(InputError, match="covered"):
            read_pair_list(path)
