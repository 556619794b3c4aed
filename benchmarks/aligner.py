"""Measure the shipped detector, its finder and aligner, on LFW photographs of people they were not trained on.

    python benchmarks/aligner.py                 # 500 photographs of the official test people
    python benchmarks/aligner.py --boxes         # how the finder's boxes lie on the faces
    python benchmarks/aligner.py --no-shift      # without the sideways shift learned from the labels
    python benchmarks/aligner.py --stress        # every fifth test photograph turned, shrunk, darkened, masked, cut
    python benchmarks/aligner.py --false-alarms  # every fifth upside down: no upright face, so nothing to find
    python benchmarks/aligner.py --crowd         # twelve of the photographs side by side, of three sizes
    python benchmarks/aligner.py --two           # two of them, one larger: is the larger face the one that is taken?
    python benchmarks/aligner.py --verify        # the photographs against aligned crops: errors of verification
    python benchmarks/aligner.py --aside         # crops of faces turned to the side, of people that training left out
    python benchmarks/aligner.py --held-out ...  # any of these on the people that training held out, to choose by

Needs `lfw250/`, `labels.csv` and the people files under `XFR_DATA/faces`. Errors are distances to the given
landmarks in eye distances, averaged over the five landmarks of a face. A face counts as found if the centre
of its landmarks lies within half an eye distance of the given one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from xfr_plugin.errors import FaceWarning, NoFaceError
from xfr_plugin.evaluation.occluders.kinds import occlude
from xfr_plugin.faces.alignment import align, alignment_transform
from xfr_plugin.faces.detection import DetectedFace
from xfr_plugin.faces.finder import load_finder
from xfr_plugin.faces.landmarks import load_aligner
from xfr_plugin.faces.lfw import read_landmarks, read_people
from xfr_plugin.faces.photo import load_photo
from xfr_plugin.faces.preparation import prepare_face
from xfr_plugin.faces.search import FaceDetector
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.metrics import equal_error_rate, error_rates
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.aligner_data import box_offset, find_candidates
from xfr_plugin.training.faces_data import find_faces, split_people

BOX = 2.78
"""Side of the finder's boxes in eye distances."""

NAMES = ("right eye", "left eye", "nose", "right mouth corner", "left mouth corner")


@dataclass(frozen=True)
class Result:
    """What the detector found in one photo."""

    file: str
    seconds: float
    faces: list[DetectedFace]
    errors: NDArray[np.float64] | None
    """Of the labelled face's five landmarks, in eye distances; None if it was not found."""
    is_largest: bool = False
    """Whether the labelled face is the largest that was found, which is taken."""


def lfw_photos(
    people: str, count: int | None = None, held_out: bool = False
) -> tuple[Path, dict[str, NDArray[np.float64]]]:
    """Folder of the photographs, and landmarks by file, of the people of an official people file.

    With `held_out`, only of those on whom training is validated.
    """
    root = data_root() / "faces"
    names = set(read_people(root / people))
    if held_out:
        names = set(split_people(find_faces(root / "lfw250", root / people), 0.1, 0)[1])
    labels = read_landmarks(root / "labels.csv")
    chosen = {f: p for f, p in labels.items() if f.split("/")[0] in names and (root / "lfw250" / f).is_file()}
    return root / "lfw250", dict(sorted(chosen.items())[:count])


def errors_of(found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each landmark in eye distances."""
    distances: NDArray[np.float64] = np.linalg.norm(found - truth, axis=1)
    return distances / np.linalg.norm(truth[1] - truth[0])


def examine(
    detector: FaceDetector, photo: NDArray[np.uint8], truth: NDArray[np.float64], file: str
) -> Result:
    """Run the detector on a photo and compare with the given landmarks."""
    began = time.perf_counter()
    faces = detector(photo)
    seconds = time.perf_counter() - began
    eye_distance = np.linalg.norm(truth[1] - truth[0])
    for face in faces:
        if np.linalg.norm(face.landmarks.mean(0) - truth.mean(0)) < eye_distance / 2:
            largest = max(faces, key=lambda found: found.box.area)
            return Result(file, seconds, faces, errors_of(face.landmarks, truth), face is largest)
    return Result(file, seconds, faces, None)


def interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean over photos."""
    draws = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def summary(results: list[Result]) -> dict[str, object]:
    """Figures over photos."""
    errors = np.array([result.errors for result in results if result.errors is not None])
    mean = errors.mean(1)
    low, high = interval(mean)
    seconds = np.array([result.seconds for result in results])
    return {
        "photos": len(results),
        "detection rate %": round(100 * len(errors) / len(results), 2),
        "faces besides the labelled one, a photo": round(
            float(np.mean([len(r.faces) - (r.errors is not None) for r in results])), 3
        ),
        "another one taken: with a note, without": [
            sum(len(r.faces) > 1 and not r.is_largest for r in results),
            sum(len(r.faces) == 1 and not r.is_largest for r in results),
        ],
        "mean error %": round(100 * float(mean.mean()), 2),
        "95 % interval %": [round(100 * low, 2), round(100 * high, 2)],
        "median error %": round(100 * float(np.median(mean)), 2),
        "95 % quantile %": round(100 * float(np.quantile(mean, 0.95)), 2),
        "worst %": round(100 * float(mean.max()), 1),
        "faces with more than 10 %": int((mean > 0.1).sum()),
        "by landmark %": {n: round(100 * float(e), 2) for n, e in zip(NAMES, errors.mean(0), strict=True)},
        "ms a photo": {
            "median": round(1e3 * float(np.median(seconds)), 1),
            "mean": round(1e3 * seconds.mean(), 1),
        },
        "missed": [result.file for result in results if result.errors is None],
        "worst photos": [
            f"{r.file} {100 * r.errors.mean():.0f} %"
            for r in sorted((r for r in results if r.errors is not None), key=lambda r: -r.errors.mean())[:8]
        ],
    }


def box_distribution(folder: Path, truths: dict[str, NDArray[np.float64]]) -> dict[str, object]:
    """How the finder's boxes lie beside those that fit the landmarks."""
    offsets = []
    for file, truth in truths.items():
        grey = np.asarray(Image.fromarray(load_photo(folder / file)).convert("L"))
        near = [box_offset(candidate, truth) for candidate in find_candidates(grey)]
        offsets += [o for o in near if np.hypot(*o[:2]) < 0.7][:1]
    table = np.array(offsets)
    return {
        "photos": len(truths),
        "with a box on the face": len(table),
        "mean of x, y, side (eye distances), angle (radians)": table.mean(0).round(3).tolist(),
        "standard deviation": table.std(0).round(3).tolist(),
    }


def turned(degrees: float) -> Callable[[NDArray[np.uint8], NDArray[np.float64]], tuple]:
    """Turn a photo about its middle, clockwise."""

    def change(photo: NDArray[np.uint8], truth: NDArray[np.float64]) -> tuple:
        angle, middle = np.radians(degrees), (np.array(photo.shape[1::-1]) - 1) / 2
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        image = Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC)
        return np.asarray(image), (truth - middle) @ matrix.T + middle

    return change


def resized(factor: float) -> Callable[[NDArray[np.uint8], NDArray[np.float64]], tuple]:
    """Make a photo smaller or larger."""

    def change(photo: NDArray[np.uint8], truth: NDArray[np.float64]) -> tuple:
        side = round(photo.shape[0] * factor)
        image = Image.fromarray(photo).resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.asarray(image), (truth + 0.5) * (side / photo.shape[0]) - 0.5

    return change


def darkened(factor: float) -> Callable[[NDArray[np.uint8], NDArray[np.float64]], tuple]:
    """Make a photo darker."""
    return lambda photo, truth: (
        np.asarray(ImageEnhance.Brightness(Image.fromarray(photo)).enhance(factor)),
        truth,
    )


def to_box(width: float) -> Callable[[NDArray[np.uint8], NDArray[np.float64]], tuple]:
    """Make a photo smaller, until the detector's box around the face is so many pixels wide."""

    def change(photo: NDArray[np.uint8], truth: NDArray[np.float64]) -> tuple:
        return resized(width / (BOX * np.linalg.norm(truth[1] - truth[0])))(photo, truth)

    return change


def masked(photo: NDArray[np.uint8], truth: NDArray[np.float64]) -> tuple:
    """Draw a surgical mask over the face, another in each photo."""
    rng = np.random.default_rng(int(truth.sum() * 100))
    covered = occlude(photo / 255, truth, "surgical mask", rng).image
    return (255 * covered).round().astype(np.uint8), truth


def cropped(margin: float) -> Callable[[NDArray[np.uint8], NDArray[np.float64]], tuple]:
    """Cut a photo closely around the face: `margin` eye distances from the landmarks' centre."""

    def change(photo: NDArray[np.uint8], truth: NDArray[np.float64]) -> tuple:
        reach = margin * np.linalg.norm(truth[1] - truth[0])
        left, top = np.maximum(0, truth.mean(0) - reach).astype(int)
        right, bottom = (truth.mean(0) + reach).astype(int)
        return np.ascontiguousarray(photo[top:bottom, left:right]), truth - [left, top]

    return change


CHANGES = {
    "turned by 20°": turned(20),
    "turned by 30°": turned(30),
    "turned by −30°": turned(-30),
    "turned by −40°": turned(-40),
    "shrunk to 0.7 of the size": resized(0.7),
    "shrunk to 0.4 of the size": resized(0.4),
    "shrunk to a box of 40 pixels": to_box(40),
    "enlarged tenfold": resized(10),
    "darkened to 15 %": darkened(0.15),
    "darkened to 5 %": darkened(0.05),
    "in a surgical mask": masked,
    "cut 1.5 eye distances around": cropped(1.5),
}


def false_alarms(detector: FaceDetector, folder: Path, files: list[str]) -> dict[str, object]:
    """What is found in photographs that are upside down."""
    seconds, alarms = [], {}
    for file in files:
        photo = np.ascontiguousarray(load_photo(folder / file)[::-1, ::-1])
        began = time.perf_counter()
        found = detector(photo)
        seconds.append(time.perf_counter() - began)
        if found:
            alarms[file] = [round(face.confidence or 0, 2) for face in found]
    return {
        "photos upside down": len(files),
        "with a false alarm": len(alarms),
        "ms a photo": round(1e3 * float(np.median(seconds))),
        "confidences": alarms,
    }


CROWD = (4, 3)
"""Photographs beside and below one another."""


def crowd(detector: FaceDetector, folder: Path, truths: dict[str, NDArray[np.float64]]) -> dict[str, object]:
    """How many of the faces of several photographs in one are found, by the size that each is shown at."""
    wanted, found, seconds = {}, {}, []
    files, count = list(truths), CROWD[0] * CROWD[1]
    for start in range(0, len(files) - count + 1, count):
        sheet = Image.new("RGB", (150 * CROWD[0], 150 * CROWD[1]), (128, 128, 128))
        middles = []
        for place, file in enumerate(files[start : start + count]):
            photo, factor = load_photo(folder / file), (1.0, 0.75, 0.5)[place % 3]
            side = round(150 * factor)
            corner = np.array([150 * (place % CROWD[0]), 150 * (place // CROWD[0])])
            sheet.paste(Image.fromarray(photo).resize((side, side), reducing_gap=3.0), tuple(corner.tolist()))
            scale = side / photo.shape[0]
            eyes = np.linalg.norm(truths[file][1] - truths[file][0])
            middles.append((factor, truths[file].mean(0) * scale + corner, eyes * scale))
        began = time.perf_counter()
        faces = detector(np.asarray(sheet))
        seconds.append(time.perf_counter() - began)
        for factor, middle, eyes in middles:
            near = any(np.linalg.norm(face.landmarks.mean(0) - middle) < eyes / 2 for face in faces)
            wanted[factor] = wanted.get(factor, 0) + 1
            found[factor] = found.get(factor, 0) + near
    return {
        "crowds": len(seconds),
        "found of all, by size": {str(factor): f"{found[factor]} of {wanted[factor]}" for factor in wanted},
        "ms a crowd": round(1e3 * float(np.median(seconds))),
    }


def two(detector: FaceDetector, folder: Path, truths: dict[str, NDArray[np.float64]]) -> dict[str, object]:
    """How often one of two people in a photograph is missed, and how often it is the larger one."""
    files, seconds, one, larger = list(truths), [], 0, 0
    for start in range(0, len(files) - 1, 2):
        shown = files[start : start + 2] if start % 4 else files[start : start + 2][::-1]
        sides = [500 if file == files[start] else 300 for file in shown]
        sheet, left, found = Image.new("RGB", (800, 500), (128, 128, 128)), 0, {}
        middles = []
        for file, side in zip(shown, sides, strict=True):
            photo = load_photo(folder / file)
            sheet.paste(Image.fromarray(photo).resize((side, side)), (left, 500 - side))
            points = truths[file] * side / photo.shape[0] + (left, 500 - side)
            middles.append((side, points.mean(0), float(np.linalg.norm(points[1] - points[0]))))
            left += side
        began = time.perf_counter()
        faces = detector(np.asarray(sheet))
        seconds.append(time.perf_counter() - began)
        for side, middle, eyes in middles:
            found[side] = any(np.linalg.norm(face.landmarks.mean(0) - middle) < eyes / 2 for face in faces)
        one += not all(found.values())
        larger += found[300] and not found[500]
    return {
        "photographs of two": len(seconds),
        "one or both missed": one,
        "the larger missed, and the smaller taken": larger,
        "ms a photograph": round(1e3 * float(np.median(seconds))),
    }


SIDEWAYS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 9.0)
"""Distances of the nose from the middle of eyes and mouth, in eye distances: about .4 at 35°, .6 and more at 60°."""


def aside(detector: FaceDetector, most: int = 80) -> dict[str, object]:
    """How many faces turned to the side are found in aligned crops of training people on whom nothing was trained."""
    root = data_root() / "faces"
    train = split_people(find_faces(root / "lfw250", root / "peopleDevTrain.txt"), 0.1, 0)[0]
    people = set(read_people(root / "peopleDevTrain.txt")) - set(train)
    labels = {f: p for f, p in read_landmarks(root / "labels.csv").items() if f.split("/")[0] in people}

    def nose(points: NDArray[np.float64]) -> float:
        across = points[1] - points[0]
        return float((points[2] - points[[0, 1, 3, 4]].mean(0)) @ across / (across @ across))

    noses = {file: nose(points) for file, points in sorted(labels.items())}
    usual, rng, report = np.median(list(noses.values())), np.random.default_rng(0), {}
    for least, below in itertools.pairwise(SIDEWAYS):
        there = [file for file, place in noses.items() if least <= abs(place - usual) < below]
        results = []
        for file in (there[i] for i in rng.permutation(len(there))[:most]):
            matrix = alignment_transform(labels[file])
            truth = labels[file] @ matrix[:2, :2].T + matrix[:2, 2]
            results.append(examine(detector, load_photo(root / "lfw112" / file), truth, file))
        errors = [result.errors.mean() for result in results if result.errors is not None]
        report[f"nose {least} to {below} eye distances aside"] = {
            "crops": len(there),
            "looked at": len(results),
            "found": len(errors),
            "only another face found": sum(r.errors is None and bool(r.faces) for r in results),
            "mean error %": round(100 * float(np.mean(errors)), 1),
        }
    return report


def chain_pairs(root: Path, people: list[str]) -> dict[bool, list[tuple[str, str]]]:
    """Photographs with crops of the same person (at most three others), and of five other people."""
    rng = np.random.default_rng(0)
    crops = {p: sorted(f"{p}/{c.name}" for c in (root / "lfw112" / p).glob("*.jpg")) for p in people}
    pairs: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for person in people:
        others = [q for q in people if q != person and crops[q]]
        for photo in sorted(f"{person}/{c.name}" for c in (root / "lfw250" / person).glob("*.jpg")):
            pairs[True] += [(photo, crop) for crop in crops[person] if crop != photo][:3]
            chosen = rng.choice(len(others), 5, replace=False)
            pairs[False] += [
                (photo, crops[others[i]][int(rng.integers(len(crops[others[i]])))]) for i in chosen
            ]
    return pairs


def verification(detector: FaceDetector, recognizer_name: str = "mobilefacenet_ms1m") -> dict[str, object]:
    """Errors of verification by the detector, by the given landmarks and by the given crop of each photograph.

    The other side is always a given crop. A photograph without a face matches nobody.
    """
    root, recognizer = data_root() / "faces", load_recognizer(recognizer_name)
    pairs = chain_pairs(root, sorted(read_people(root / "peopleDevTest.txt")))
    labels, size = read_landmarks(root / "labels.csv"), recognizer.input_size

    def embedded(faces: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
        images = torch.from_numpy(np.stack(list(faces.values()))).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            return dict(zip(faces, torch.cat([recognizer(c) for c in images.split(32)]).numpy(), strict=True))

    def detected(file: str) -> NDArray[np.uint8] | None:
        with warnings.catch_warnings(), suppress(NoFaceError):
            warnings.simplefilter(
                "ignore", FaceWarning
            )  # tiny and several faces are part of what is measured
            return prepare_face(root / "lfw250" / file, size, detector=detector, alignment="detect").image
        return None

    def crop(file: str) -> NDArray[np.uint8]:
        return load_photo(root / "lfw112" / file)

    photos, references = (sorted({pair[side] for both in pairs.values() for pair in both}) for side in (0, 1))
    known = embedded({file: crop(file) for file in references})
    ways = {
        "given crop": crop,
        "given landmarks": lambda file: align(load_photo(root / "lfw250" / file), labels[file], size),
        "finder and aligner": detected,
    }
    report: dict[str, object] = {str(same): len(both) for same, both in pairs.items()}
    threshold = None
    for name, way in ways.items():
        probes = embedded({file: face for file in photos if (face := way(file)) is not None})
        genuine, impostor = (
            np.array([float(probes[p] @ known[r]) if p in probes else -1.0 for p, r in pairs[same]])
            for same in (True, False)
        )
        rate, at = equal_error_rate(genuine, impostor)
        threshold = at if threshold is None else threshold  # that of the given crops, for all
        wrong = error_rates(genuine, impostor, threshold)
        figures = {"EER": rate, "accuracy": 1 - sum(wrong) / 2, "FMR": wrong[0], "FNMR": wrong[1]}
        report[name] = {figure: round(100 * float(value), 2) for figure, value in figures.items()}
    return report


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--aligner", type=Path, help="weight file; the shipped one, if left out")
    parser.add_argument("--photos", type=int, help="only so many")
    parser.add_argument("--boxes", action="store_true", help="the finder's boxes")
    parser.add_argument("--no-shift", action="store_true", help="without the labels' sideways shift")
    parser.add_argument("--stress", action="store_true", help="changed photographs")
    parser.add_argument("--false-alarms", action="store_true", help="photographs upside down")
    parser.add_argument("--crowd", action="store_true", help="several photographs in one")
    parser.add_argument("--two", action="store_true", help="two photographs in one")
    parser.add_argument("--aside", action="store_true", help="faces turned to the side")
    parser.add_argument("--verify", action="store_true", help="verification from photographs of test people")
    parser.add_argument(
        "--held-out", action="store_true", help="people held out of training, not test people"
    )
    parser.add_argument("--finder", type=Path, help="weight file; the shipped one, if left out")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    aligner = load_aligner(args.aligner)
    if args.no_shift:
        aligner.network.label_offset[0] = 0
    detector = FaceDetector(aligner, finder=load_finder(args.finder))
    people = "peopleDevTrain.txt" if args.held_out else "peopleDevTest.txt"
    folder, truths = lfw_photos(people, args.photos, args.held_out)
    if not args.held_out and (args.stress or args.false_alarms):
        truths = dict(list(truths.items())[::5])
    if args.boxes:
        print(json.dumps(box_distribution(folder, truths), indent=1, ensure_ascii=False))
        return
    if args.aside:
        print(json.dumps(aside(detector), indent=1, ensure_ascii=False))
        return
    if args.verify:
        print(json.dumps(verification(detector), indent=1, ensure_ascii=False))
        return
    if args.two:
        print(json.dumps(two(detector, folder, truths), indent=1, ensure_ascii=False))
        return
    if args.crowd:
        print(json.dumps(crowd(detector, folder, truths), indent=1, ensure_ascii=False))
        return
    if args.false_alarms:
        print(json.dumps(false_alarms(detector, folder, list(truths)), indent=1, ensure_ascii=False))
        return
    changes = CHANGES if args.stress else {"as they are": lambda photo, truth: (photo, truth)}
    for name, change in changes.items():
        results = [examine(detector, *change(load_photo(folder / f), t), f) for f, t in truths.items()]
        print(name, json.dumps(summary(results), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
