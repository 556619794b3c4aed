"""Many pairs: the numbers of single calls, each face once, nothing lost and nothing twice, whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bulk_faces import METHODS, explain_all, write_list
from helpers.evaluation_faces import small_recognizer
from PIL import Image

import xfr_plugin
from xfr_plugin import BatchResults, batch
from xfr_plugin.base.locks import locked
from xfr_plugin.bulk import Step
from xfr_plugin.bulk.store import ExplanationStore
from xfr_plugin.bulk.work import PairJob, Task, Worker
from xfr_plugin.errors import InputError, ResultError, UnknownNameError
from xfr_plugin.recognition import Recognizer, calibrate
from xfr_plugin.recognition.strength import LlrSupport

PAIRS = 44


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    write_list(tmp_path)
    return tmp_path


def numbers(results: BatchResults) -> dict[str, Any]:
    return {
        method: {
            row["pair"]: [region["evidence"] for region in row["regions"]]
            for row in results.explanations(method).to_pylist()
        }
        for method in METHODS
    }


def assert_equal_numbers(found: BatchResults, expected: BatchResults) -> None:
    first, second = numbers(found), numbers(expected)
    for method in METHODS:
        assert list(first[method]) == list(second[method]) == list(range(PAIRS))
        for pair, values in first[method].items():
            np.testing.assert_allclose(values, second[method][pair], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::xfr_plugin.FaceWarning")  # noise has little contrast
def test_explanations_are_those_of_single_calls(faces: Path, tmp_path: Path) -> None:
    results = explain_all(faces, tmp_path / "run", check=True)
    assert results.manifest.explained == dict.fromkeys(METHODS, PAIRS)
    assert results.failures() == []
    rows = results.pairs().to_pylist()
    for pair, method in ((0, "xssab"), (40, "input_x_gradient")):
        photos = [faces / "faces" / rows[pair][side] for side in ("probe", "reference")]
        single = xfr_plugin.explain(
            *photos, recognizer=small_recognizer(), method=method, alignment="aligned", check=True
        )
        stored = results.explanation(pair, method)
        assert stored.verification.score == pytest.approx(single.verification.score, abs=1e-6)
        assert stored.faithfulness is not None
        assert single.faithfulness is not None
        assert stored.faithfulness.statistic == pytest.approx(single.faithfulness.statistic, abs=1e-3)
        assert (stored.options, stored.notes) == (single.options, single.notes)
        assert stored.calibration == single.calibration
        assert [line.partition(" = ")[0] for line in stored.words()] == [
            line.partition(" = ")[0] for line in single.words()
        ]
        for ours, theirs in ((stored.probe, single.probe), (stored.reference, single.reference)):
            assert np.array_equal(ours.image, theirs.image)
            scale = np.abs(theirs.saliency).max()
            np.testing.assert_allclose(ours.saliency, theirs.saliency, atol=1e-5 * scale)
            assert [r.region for r in ours.regions] == [r.region for r in theirs.regions]
            assert np.array_equal(ours.region_map.labels, theirs.region_map.labels)


def test_the_columns_of_the_list_go_along(faces: Path, tmp_path: Path) -> None:
    results = explain_all(faces, tmp_path / "run", methods=())
    table = results.pairs(["camera", "genuine", "score", "match"])
    assert set(table.column("camera").to_pylist()) == {"even", "odd"}
    threshold = results.manifest.threshold
    assert [s >= threshold for s in table.column("score").to_pylist()] == table.column("match").to_pylist()
    assert results.manifest.explained == {}


def test_a_face_is_found_once_however_many_pairs_and_names_it_has(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = faces / "faces" / "copy.png"
    copied.write_bytes((faces / "faces" / "p00" / "0.png").read_bytes())
    with (faces / "pairs.csv").open("a") as file:
        file.write("\ncopy.png,p01/0.png,0,odd")
    found: list[str] = []
    original = Worker._find
    monkeypatch.setattr(
        Worker, "_find", lambda self, job: (found.extend(job.digests), original(self, job))[1]
    )
    explain_all(faces, tmp_path / "run", methods=())
    assert len(found) == len(set(found)) == 24
    explain_all(faces, tmp_path / "run", methods=())
    assert len(found) == 24


def test_what_fails_is_a_row_with_a_reason_and_can_be_tried_again(tmp_path: Path) -> None:
    write_list(tmp_path, bad=True)
    results = explain_all(tmp_path, tmp_path / "run", methods=["xssab"])
    failures = {row["pair"]: row["error"] for row in results.failures()}
    assert set(failures) == {PAIRS, PAIRS + 1}
    assert failures[PAIRS].startswith("probe nobody/0.png: 0.png cannot be read: No such file")
    assert failures[PAIRS + 1].startswith("probe broken.png: ")
    assert results.manifest.failures == 2
    assert results.manifest.explained == {"xssab": PAIRS}
    good = (tmp_path / "faces" / "p03" / "1.png").read_bytes()
    (tmp_path / "faces" / "broken.png").write_bytes(good)
    mended = explain_all(tmp_path, tmp_path / "run", methods=["xssab"], retry_failed=True)
    assert [row["pair"] for row in mended.failures()] == [PAIRS]
    assert mended.manifest.explained == {"xssab": PAIRS + 1}


def test_an_explanation_that_fails_takes_no_other_along(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xfr_plugin.bulk import work

    original, asked = work.attribute_pairs, []

    def failing(attribution: Any, pairs: Any, **options: Any) -> Any:
        asked.append(len(pairs))
        if any(id(pair) in marked for pair in pairs):
            raise ResultError("made to fail")
        return original(attribution, pairs, **options)

    marked: set[int] = set()
    made = work.decide_pair

    def marking(*arguments: Any) -> Any:
        pair = made(*arguments)
        if len(marked) == 0:
            marked.add(id(pair))
            kept.append(pair)
        return pair

    kept: list[Any] = []
    monkeypatch.setattr(work, "attribute_pairs", failing)
    monkeypatch.setattr(work, "decide_pair", marking)
    results = explain_all(faces, tmp_path / "run", methods=["xssab"])
    assert results.failures() == [{"pair": 0, "method": "xssab", "error": "made to fail"}]
    assert len(results.explanations("xssab")) == PAIRS
    monkeypatch.undo()
    again = explain_all(faces, tmp_path / "run", methods=["xssab"], retry_failed=True)
    assert again.failures() == []
    assert sorted(again.explanations("xssab").column("pair").to_pylist()) == list(range(PAIRS))


def test_methods_and_pairs_are_added_to_a_run(faces: Path, tmp_path: Path) -> None:
    first = explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 1")
    few = first.manifest.explained["xssab"]
    assert 0 < few < PAIRS
    steps: list[Step] = []
    both = explain_all(faces, tmp_path / "run", progress=steps.append)
    assert both.manifest.explained == dict.fromkeys(METHODS, PAIRS)
    assert both.manifest.select == ("top 1", "all")
    started = next(step for step in steps if step.stage == "explaining")
    assert (started.done, started.total) == (few, 2 * PAIRS)
    assert steps[-1][1:] == (2 * PAIRS, 2 * PAIRS, 0)
    assert_equal_numbers(both, explain_all(faces, tmp_path / "other"))


@pytest.mark.parametrize(
    "change", [{"threshold": 0.5}, {"check": True}, {"options": {"xssab": {"blur": [5, 1.0]}}}]
)
def test_another_run_is_not_mixed_in(faces: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 1")
    with pytest.raises(ResultError, match="choose another folder"):
        explain_all(faces, tmp_path / "run", methods=["xssab"], **change)


def test_of_another_recognizer_the_name_is_said_first(faces: Path, tmp_path: Path) -> None:
    explain_all(faces, tmp_path / "run", methods=())
    with pytest.raises(ResultError, match="recognizer=small, not calibrated"):
        explain_all(faces, tmp_path / "run", methods=(), recognizer=replace_calibration(small_recognizer()))


def test_a_run_remembers_whose_photos_they_are(faces: Path, tmp_path: Path) -> None:
    results = explain_all(faces, tmp_path / "run", methods=(), people=True)
    rows = results.pairs().to_pylist()
    assert rows
    for row in rows:
        assert [row[side].split("/")[0] for side in ("probe", "reference")] == [
            row["probe_person"], row["reference_person"]
        ]  # fmt: skip


def test_pictures_of_chosen_pairs(faces: Path, tmp_path: Path) -> None:
    results = explain_all(faces, tmp_path / "run", methods=["xssab"], pictures="random 2")
    pictures = sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir())
    assert len(pictures) == 4  # two pictures, two documents
    pair = int(pictures[0][:6])
    saved = xfr_plugin.Explanation.load(tmp_path / "run" / "pictures" / f"{pair:06d}-xssab.json")
    assert np.array_equal(saved.probe.saliency, results.explanation(pair, "xssab").probe.saliency)


def test_without_maps_there_are_numbers_and_no_pictures(faces: Path, tmp_path: Path) -> None:
    results = explain_all(faces, tmp_path / "run", methods=["xssab"], maps=False)
    assert len(results.explanations("xssab")) == PAIRS
    with pytest.raises(ResultError, match="kept no maps"):
        results.explanation(0, "xssab")


def test_wrong_arguments_are_errors_before_work_begins(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="engine"):
        explain_all(faces, tmp_path / "run", engine="spark")
    with pytest.raises(UnknownNameError, match="method"):
        explain_all(faces, tmp_path / "run", methods=["fgbb"])
    with pytest.raises(UnknownNameError, match="option"):
        explain_all(faces, tmp_path / "run", options={"xssab": {"colour": 1}})
    with pytest.raises(InputError, match="cannot select"):
        explain_all(faces, tmp_path / "run", select="some")
    with pytest.raises(InputError, match="cannot select"):
        explain_all(faces, tmp_path / "run", pictures="all of them")
    with pytest.raises(InputError, match="pictures are made of maps"):
        explain_all(faces, tmp_path / "run", pictures="top 1", maps=False)
    with pytest.raises(UnknownNameError, match="'fggb': known are xssab"):
        explain_all(faces, tmp_path / "run", methods=["xssab"], options={"fggb": {"chunk_size": 1}})
    with pytest.raises(InputError, match="whole number"):
        explain_all(faces, tmp_path / "run", workers=1.5)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ResultError, match="there is no run"):
        BatchResults(tmp_path / "nothing")


@pytest.mark.slow
def test_processes_give_the_same_numbers(faces: Path, tmp_path: Path) -> None:
    together = explain_all(faces, tmp_path / "run", workers=2)
    assert_equal_numbers(together, explain_all(faces, tmp_path / "other"))


def test_processes_share_what_leaving_regions_out_does_to_a_face(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process embeds no changed face that a first one has; nothing is left of it when all is explained."""
    results = explain_all(faces, tmp_path / "run", methods=["leave_one_out"])
    assert not (tmp_path / "run" / "effects").exists()
    places = tuple((0, row) for row in range(3))
    job = PairJob("leave_one_out", (0, 1), ((0, 1), (1, 2)), places, str(tmp_path / "run" / "faces")).load()
    passes: list[int] = []
    model = small_recognizer()
    embed = type(model.network).forward
    monkeypatch.setattr(
        type(model.network), "forward", lambda self, x: (passes.append(len(x)), embed(self, x))[1]
    )
    (tmp_path / "shared").mkdir()
    task = Task(model, (0.3, "here"), {"leave_one_out": {}}, effects=str(tmp_path / "shared"))
    first = Worker(task)(job).to_pylist()
    assert sum(passes) > 10
    passes.clear()
    second = Worker(task)(job).to_pylist()
    assert sum(passes) == 0
    evidence = [
        [[region["evidence"] for region in row["regions"]] for row in rows] for rows in (first, second)
    ]
    np.testing.assert_allclose(*evidence, rtol=1e-9, atol=1e-12)
    assert results.failures() == []


def test_a_killed_run_goes_on_without_loss_and_leaves_no_processes(faces: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "helpers.bulk_faces", str(faces), str(run), "2"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    parts: list[Path] = []
    while not parts:
        assert process.poll() is None
        time.sleep(0.01)
        parts = list(run.glob("explanations/*/part-*"))
    children = _children(process.pid)
    process.kill()
    process.wait()
    before = sum(len(explained(run, method)) for method in METHODS)
    deadline = time.monotonic() + 120
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, children))
    steps: list[Step] = []
    results = explain_all(faces, run, progress=steps.append)
    started = next(step for step in steps if step.stage == "explaining")
    assert started.done == before  # of what was on disk nothing is done again
    assert_equal_numbers(results, explain_all(faces, tmp_path / "other"))


def explained(run: Path, method: str) -> list[int]:
    return sorted(ExplanationStore(run / "explanations" / method).done)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in text.read_text().split()] if text.exists() else []


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


def test_a_recognizer_that_cannot_be_sent_says_so(faces: Path, tmp_path: Path) -> None:
    recognizer = small_recognizer()
    recognizer.network.register_forward_hook(lambda *_: None)
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        explain_all(faces, tmp_path / "run", recognizer=recognizer, workers=2)


@pytest.mark.filterwarnings("ignore::xfr_plugin.FaceWarning")
def test_a_calibrated_decision_says_the_same_alone_and_in_a_run(faces: Path, tmp_path: Path) -> None:
    """Beyond the bounds of the calibration data, too, where a line would go on."""
    recognizer = replace_calibration(small_recognizer())
    results = explain_all(
        faces, tmp_path / "run", methods=["xssab"], recognizer=recognizer, select="random 4"
    )
    rows = results.pairs().to_pylist()
    at_bound = 0
    for pair in results.explanations("xssab").column("pair").to_pylist():
        photos = [faces / "faces" / rows[pair][side] for side in ("probe", "reference")]
        single = xfr_plugin.verify(*photos, recognizer=recognizer, alignment="aligned")
        stored = results.explanation(pair, "xssab").verification
        assert stored.strength is not None
        assert single.strength is not None
        at_bound += stored.strength.at_bound
        assert stored.strength.log10_lr == pytest.approx(single.strength.log10_lr, abs=1e-4)
        assert stored.threshold_source == single.threshold_source
        ratios = (stored.log_likelihood_ratio, rows[pair]["log_likelihood_ratio"])
        assert ratios == pytest.approx((single.log_likelihood_ratio,) * 2, abs=1e-4)
    assert at_bound, "none of these scores reaches a bound"


def replace_calibration(recognizer: Recognizer) -> Recognizer:
    support = LlrSupport(
        lower_bound=-0.1, upper_bound=0.1, people=9, pairs=(9, 36), covariance=(1.0, 0.0, 0.1)
    )
    rng = np.random.default_rng(0)
    measured = calibrate(rng.normal(0.6, 0.2, 500), rng.normal(0.0, 0.2, 500), "synthetic pairs", (0.1,))
    calibration = measured.model_copy(update={"support": support})
    return Recognizer(
        recognizer.network, input_size=recognizer.input_size, calibration=calibration, name="calibrated"
    )


def test_a_folder_of_a_run_that_was_deleted_holds_nothing_of_it(faces: Path, tmp_path: Path) -> None:
    """In one process, and by another path too: what is kept of files is of the files that are there."""
    first = explain_all(faces, tmp_path / "run", methods=()).pairs().column("score").to_pylist()
    shutil.rmtree(tmp_path / "run")
    for photo in (faces / "faces").glob("*/0.png"):
        Image.fromarray(np.asarray(Image.open(photo))[::-1]).save(photo)
    again = explain_all(faces, tmp_path / "run", methods=()).pairs().column("score").to_pylist()
    assert first != again
    assert again == explain_all(faces, tmp_path / "other", methods=()).pairs().column("score").to_pylist()


def test_photos_that_have_changed_are_not_mixed_in(faces: Path, tmp_path: Path) -> None:
    explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 1")
    before = BatchResults(tmp_path / "run").pairs()
    photo = faces / "faces" / "p00" / "0.png"
    data = photo.read_bytes()
    for change in (lambda: photo.write_bytes((photo.parent / "1.png").read_bytes()), photo.unlink):
        change()
        with pytest.raises(ResultError, match=r"another .*p00/0\.png, which has changed or gone"):
            explain_all(faces, tmp_path / "run", methods=["xssab"])
        assert BatchResults(tmp_path / "run").pairs().equals(before)
    photo.write_bytes(data)
    assert explain_all(faces, tmp_path / "run", methods=["xssab"]).manifest.explained == {"xssab": PAIRS}


@pytest.mark.parametrize("part", ["pairs", "explanations/xssab", "faces"])
def test_a_damaged_part_is_named(faces: Path, tmp_path: Path, part: str) -> None:
    explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 1")
    (file,) = sorted((tmp_path / "run" / part).iterdir())[:1]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ResultError, match=f"{part}/part-000000.*damaged|damaged.*{part}/part-000000"):
        explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 2")


def test_a_run_that_was_killed_before_it_decided_says_so(faces: Path, tmp_path: Path) -> None:
    explain_all(faces, tmp_path / "run", methods=["xssab"], select="none")
    shutil.rmtree(tmp_path / "run" / "pairs")
    for ask in (BatchResults.pairs, BatchResults.failures):
        with pytest.raises(ResultError, match=r"no pair of .* is decided yet"):
            ask(BatchResults(tmp_path / "run"))


def test_methods_take_turns(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is estimated from what is done, which must not be one method's alone."""
    asked: list[str] = []
    explain = Worker._explain

    def asking(worker: Worker, job: Any) -> Any:
        asked.append(job.method)
        return explain(worker, job)

    monkeypatch.setattr(Worker, "_explain", asking)
    explain_all(faces, tmp_path / "run")
    assert asked == [*METHODS, *METHODS]  # 32 pairs each, and the rest


def test_what_a_killed_run_had_half_written_is_swept_away(faces: Path, tmp_path: Path) -> None:
    results = explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 1")
    left = [
        tmp_path / "run" / place
        for place in (".manifest.json.0f.json", "pairs/.part-000000.parquet.0f.parquet")
    ]
    for path in left:
        path.write_bytes(b"half")
    explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 1")
    assert not any(path.exists() for path in left)
    assert (tmp_path / "run" / "pairs" / "part-000000.parquet").exists()
    assert results.manifest.pairs == PAIRS


def test_a_second_run_in_the_same_folder_is_refused_meanwhile(faces: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "run"),
        pytest.raises(ResultError, match=r"another run is at work in .*run: wait for it, or end it"),
    ):
        explain_all(faces, tmp_path / "run", methods=())
    assert explain_all(faces, tmp_path / "run", methods=()).manifest.pairs == PAIRS


def test_a_run_gives_the_embeddings_of_its_photos(tmp_path: Path) -> None:
    write_list(tmp_path, bad=True)
    results = explain_all(tmp_path, tmp_path / "run", methods=())
    names, units = results.embeddings()
    assert len(names) == len(set(names)) == 24
    rows = dict(zip(names, units.astype(np.float64), strict=True))
    for row in results.pairs().to_pylist()[:PAIRS]:
        assert rows[row["probe"]] @ rows[row["reference"]] == pytest.approx(row["score"], abs=1e-9)


def test_failures_of_all_methods_are_counted(faces: Path, tmp_path: Path) -> None:
    explain_all(faces, tmp_path / "run", methods=["xssab"], select="top 1")
    store = tmp_path / "run" / "explanations" / "xssab"
    unexplained = sorted(set(range(PAIRS)) - ExplanationStore(store).done)[:2]
    ExplanationStore(store).add(PairJob("xssab", tuple(unexplained), (), (), "").failed("made to fail"))
    results = explain_all(faces, tmp_path / "run", methods=["input_x_gradient"], select="top 1")
    assert results.manifest.failures == len(results.failures()) == 2
    assert set(results.manifest.explained) == set(METHODS)


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9.png", b"two\nlines.png", b"nothing \xff.png"):
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb") as file:
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)).save(
                file, "PNG"
            )
    (tmp_path / os.fsdecode(b"nothing \xff.png")).write_bytes(b"")
    results = batch(
        tmp_path, tmp_path / "run", methods=(), recognizer=small_recognizer(), workers=1, alignment="aligned"
    )
    names = {row[side] for row in results.pairs().to_pylist() for side in ("probe", "reference")}
    assert names == {"caf\\udce9.png", "two\nlines.png", "nothing \\udcff.png"}
    assert {failure["error"].count("\\udcff") for failure in results.failures()} == {1}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    write_list(tmp_path)
    os.mkfifo(tmp_path / "faces" / "pipe.png")
    (tmp_path / "faces" / "folder.png").mkdir()
    rows = "pipe.png,p00/0.png,0,x\nfolder.png,p00/0.png,0,x\n"
    (tmp_path / "pairs.csv").write_text(f"probe,reference,genuine,camera\n{rows}p01/0.png,p00/0.png,0,x\n")
    failures = explain_all(tmp_path, tmp_path / "run", methods=()).failures()
    assert [failure["error"] for failure in failures] == [
        f"probe {name}: {name} is no file" for name in ("pipe.png", "folder.png")
    ]
