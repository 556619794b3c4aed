"""Measure the shipped outline finder on LFW faces of people it was not trained on.

    python benchmarks/outlines.py                      # every aligned face of the official test people
    python benchmarks/outlines.py --faces 500          # only so many, evenly spread

Needs `lfw112/`, `mesh468_aligned.npz`, `regions.json` and the people files under `XFR_DATA/faces`. The truth is
the face mesh, which is itself the answer of a network. IoU is intersection over union of a region in the found
map (or the template's) and in the mesh's, averaged over faces. Turned heads are the fifth of the faces whose
noses lie farthest to one side of the middle between the eyes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.faces import REGION_NAMES, RegionMap, fit_aligned, mesh_regions, template_regions
from xfr_plugin.faces.alignment import place_on_template
from xfr_plugin.faces.outline_network import to_frame
from xfr_plugin.faces.outlines import FaceOutlines, Outliner, load_outline_finder
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.aligner import random_textures
from xfr_plugin.training.faces_data import find_faces, read_faces
from xfr_plugin.training.outlines_data import read_outlines

OTHER_SIZE = (160, 120)
COMPARED = [i for i in template_regions().of_face if "ear" not in REGION_NAMES[i]]
"""Regions that outlines give; `surroundings.py` measures what lies around them."""
_CHUNK = 64


def test_faces(root: Path, count: int | None) -> tuple[Tensor, NDArray[np.float64], dict[str, list[int]]]:
    """Faces N×3×112×112 (uint8) of the test people, outlines of their meshes N×K×2, and the features."""
    outlines = read_outlines(root)
    people = find_faces(root / "lfw112", root / "peopleDevTest.txt")
    files = [file for group in people.values() for file in group if file in outlines.points]
    chosen = np.unique(
        np.linspace(0, len(files) - 1, min(count or len(files), len(files))).round().astype(int)
    )
    faces = read_faces(root / "lfw112", {files[i]: [files[i]] for i in chosen})
    points = np.stack([outlines.points[file] for file in faces.files]).astype(np.float64)
    return faces.images, points, outlines.features


def found_outlines(outliner: Outliner, images: Tensor, as_labelled: bool = False) -> list[FaceOutlines]:
    """Outlines of uint8 images N×3×H×W."""
    parts = images.split(_CHUNK)
    return [face for part in parts for face in outliner(part.float() / 255, as_labelled=as_labelled)]


def overlaps(found: RegionMap, truth: RegionMap) -> NDArray[np.float64]:
    """IoU of each region; NaN where neither has it."""
    count = len(REGION_NAMES)
    table = np.bincount(found.labels.ravel().astype(int) * count + truth.labels.ravel(), minlength=count**2)
    table = table.reshape(count, count)
    both = np.diag(table)
    either = table.sum(0) + table.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def nose_offsets(points: NDArray[np.float64], features: dict[str, list[int]]) -> NDArray[np.float64]:
    """How far each nose lies to a side of the middle between the eyes, in pixels."""
    middle = [points[:, features[name], 0].mean(1) for name in ("nose", "right_eye", "left_eye")]
    return np.abs(middle[0] - (middle[1] + middle[2]) / 2)


def by_region(table: NDArray[np.float64]) -> dict[str, float]:
    """Mean IoU of each region and of all, over faces."""
    means = np.nanmean(table[:, COMPARED], axis=0)
    named = {REGION_NAMES[i]: round(float(mean), 3) for i, mean in zip(COMPARED, means, strict=True)}
    return {**named, "mean of the regions": round(float(means.mean()), 3)}


def point_errors(errors: NDArray[np.float64]) -> dict[str, float]:
    """Figures of point distances (faces×points) in pixels of 112."""
    of_faces = np.sqrt((errors**2).mean(1))
    rms = float(np.sqrt((errors**2).mean()))
    return {
        "rms distance": round(rms, 3),
        "rms of a coordinate": round(rms / 2**0.5, 3),
        "median face": round(float(np.median(of_faces)), 3),
        "95 % quantile of faces": round(float(np.quantile(of_faces, 0.95)), 3),
        "worst face": round(float(of_faces.max()), 2),
    }


def quality(
    outliner: Outliner, images: Tensor, points: NDArray[np.float64], features: dict[str, list[int]]
) -> dict[str, object]:
    """Point errors and IoU, over all faces and over turned heads."""
    plain, shifted = found_outlines(outliner, images), found_outlines(outliner, images, as_labelled=True)
    truths = [mesh_regions(mesh, features) for mesh in points]
    maps = regions_to_compare(plain, shifted, template_regions(), features)
    tables = {name: overlaps_of(regions, truths) for name, regions in maps.items()}
    same = {
        name: np.array([(a.labels == b.labels).mean() for a, b in zip(regions, truths, strict=True)])
        for name, regions in maps.items()
    }
    errors = {
        name: np.linalg.norm(guess - points, axis=2)
        for name, guess in {
            "found": np.stack([face.points for face in plain]),
            "found, as labelled": np.stack([face.points for face in shifted]),
            "mean shape": outliner.network.mean.double().numpy(),
        }.items()
    }
    refused = np.array([not face.found for face in plain])
    offsets = nose_offsets(points, features)
    groups = {"all faces": offsets >= 0, "turned heads": offsets >= np.quantile(offsets, 0.8)}
    return {
        group_name: {
            "faces": int(group.sum()),
            "nose offset px": [round(float(q), 1) for q in np.quantile(offsets[group], [0, 0.5, 1])],
            "point errors px": {name: point_errors(values[group]) for name, values in errors.items()},
            "IoU": {name: by_region(table[group]) for name, table in tables.items()},
            "same label % of pixels": {k: round(100 * float(v[group].mean()), 1) for k, v in same.items()},
            "template better": {
                name: int((mean_overlap(tables["template"])[group] > mean_overlap(table)[group]).sum())
                for name, table in tables.items()
            },
            "taken for no face": int(refused[group].sum()),
        }
        for group_name, group in groups.items()
    }


def regions_to_compare(
    plain: list[FaceOutlines],
    shifted: list[FaceOutlines],
    template: RegionMap,
    features: dict[str, list[int]],
) -> dict[str, list[RegionMap]]:
    """Region maps of each face by outlines alone, three ways."""

    def drawn(face: FaceOutlines) -> RegionMap:
        return mesh_regions(face.points, features, template.size) if face.found else template

    return {
        "found": [drawn(face) for face in plain],
        "found, as labelled": [drawn(face) for face in shifted],
        "template": [template] * len(plain),
    }


def overlaps_of(regions: list[RegionMap], truths: list[RegionMap]) -> NDArray[np.float64]:
    """IoU, faces×regions."""
    return np.array([overlaps(one, truth) for one, truth in zip(regions, truths, strict=True)])


def mean_overlap(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean IoU of each face over its named regions."""
    means: NDArray[np.float64] = np.nanmean(table[:, COMPARED], axis=1)
    return means


def other_size(
    outliner: Outliner, images: Tensor, points: NDArray[np.float64], features: dict[str, list[int]]
) -> dict[str, object]:
    """IoU on crops of another shape, cut and scaled from the 112×112 ones."""
    crops = [fit_aligned(image.permute(1, 2, 0).numpy(), OTHER_SIZE) for image in images]
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    truths = [mesh_regions(place_on_template(mesh, OTHER_SIZE), features, OTHER_SIZE) for mesh in points]
    plain, shifted = found_outlines(outliner, batch), found_outlines(outliner, batch, as_labelled=True)
    maps = regions_to_compare(plain, shifted, template_regions(OTHER_SIZE), features)
    means = {name: by_region(overlaps_of(regions, truths)) for name, regions in maps.items()}
    return {"faces": len(crops), "IoU": {name: m["mean of the regions"] for name, m in means.items()}}


def symmetry_axis(average: NDArray[np.float64]) -> float:
    """Column about which an average face (112×112) is most alike to its mirror image, from eyes to mouth."""
    columns, doubled = np.arange(24, 88), np.arange(102, 121)
    band = average[35:105]
    errors = [((band[:, columns] - band[:, total - columns]) ** 2).mean() for total in doubled]
    best = int(np.argmin(errors[1:-1])) + 1
    before, least, after = errors[best - 1 : best + 2]
    return float(doubled[best] + (before - after) / (before - 2 * least + after) / 2) / 2


def middles(outliner: Outliner, images: Tensor, points: NDArray[np.float64]) -> dict[str, object]:
    """Where the middle of the face lies: of the average image, of what is found, and of the meshes."""
    found = np.stack([face.points for face in found_outlines(outliner, images)])
    return {
        "axis of symmetry of the average face": round(symmetry_axis(images.float().mean((0, 1)).numpy()), 2),
        "mean column of found outlines": round(float(found[..., 0].mean()), 2),
        "mean column of the meshes": round(float(points[..., 0].mean()), 2),
        "mean of mesh − found, x and y": (points - found).mean((0, 1)).round(3).tolist(),
        "label offset in the file": [round(v, 3) for v in outliner.label_offset],
    }


def feature_errors(
    outliner: Outliner, images: Tensor, points: NDArray[np.float64], features: dict[str, list[int]]
) -> dict[str, dict[str, float]]:
    """Distances in pixels of 112 of the points of each feature from the mesh's, as labelled; of any finder."""
    offset = torch.tensor(outliner.label_offset, dtype=torch.float64)
    with torch.no_grad():
        sketches = [outliner.sketch(to_frame(part.float() / 255)).points for part in images.split(_CHUNK)]
    found = (torch.cat(sketches).double() + offset).numpy()
    return {
        name: point_errors(np.linalg.norm(found[:, numbers] - points[:, features[name]], axis=2))
        for name, numbers in outliner.features.items()
    }


def mirrored(outliner: Outliner, images: Tensor) -> float:
    """Share of pixels with the same label on a face and, mirrored back, on its mirror image."""
    swap = np.array([REGION_NAMES.index(_other_side(name)) for name in REGION_NAMES])
    pairs = zip(found_outlines(outliner, images), found_outlines(outliner, images.flip(3)), strict=True)
    agree = [(one.regions.labels == swap[two.regions.labels[:, ::-1]]).mean() for one, two in pairs]
    return round(100 * float(np.mean(agree)), 2)


def _other_side(name: str) -> str:
    if name.startswith("right_"):
        return name.replace("right_", "left_")
    return name.replace("left_", "right_")


def refusals(outliner: Outliner, images: Tensor) -> dict[str, float]:
    """Percent of crops that are no aligned face and are refused."""
    generator = torch.Generator().manual_seed(0)
    count = len(images)
    noise = torch.rand(count, 3, 112, 112, generator=generator)
    plain = torch.rand(count, 3, 1, 1, generator=generator).expand(count, 3, 112, 112)
    faces = images.float() / 255
    crops = {
        "white noise": noise,
        "one colour": plain,
        "textures": random_textures(count, (112, 112), generator).expand(count, 3, 112, 112),
        "faces upside down": faces.flip(2),
        "faces on their side": faces.transpose(2, 3),
        "faces shifted by half the side": faces.roll(56, 3),
    }
    return {
        name: round(
            100 * float(np.mean([not f.found for part in c.split(_CHUNK) for f in outliner(part)])), 1
        )
        for name, c in crops.items()
    }


def times(outliner: Outliner, images: Tensor, features: dict[str, list[int]]) -> dict[str, float]:
    """Median milliseconds a face, and CPU time, which other work on the machine lengthens less."""

    def median(work: object, count: int, faces: int = 1) -> list[float]:
        taken = []
        for _ in range(count):
            began = time.perf_counter(), time.process_time()
            work()
            taken.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        return [round(1e3 * float(v) / faces, 2) for v in np.median(taken, axis=0)]

    batch = images[:32].float() / 255
    face, mesh = batch[:1], outliner(batch[:1])[0].points
    return {
        "one face": median(lambda: outliner(face), 60),
        "a face of 32": median(lambda: outliner(batch), 8, len(batch)),
        "of that, the network": median(lambda: outliner.sketch(to_frame(batch)), 20, len(batch)),
        "of that, drawing": median(lambda: mesh_regions(mesh, features), 60),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--finder", type=Path, help="weight file; the shipped one, if left out")
    parser.add_argument("--faces", type=int, help="only so many")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    outliner = load_outline_finder(args.finder)
    images, points, features = test_faces(data_root() / "faces", args.faces)
    by_feature = feature_errors(outliner, images, points, features)
    if outliner.features.keys() < features.keys():
        print(json.dumps(by_feature, indent=1))
        return
    few = slice(0, None, max(1, len(images) // 300))
    report = {
        "point errors px by feature": by_feature,
        **quality(outliner, images, points, features),
        f"crops of {OTHER_SIZE[0]}×{OTHER_SIZE[1]}": other_size(outliner, images[few], points[few], features),
        "middle of the face, columns": middles(outliner, images, points),
        "same label in the mirror, % of pixels": mirrored(outliner, images[few]),
        "refused as no face, %": refusals(outliner, images[few]),
        "ms a face (wall, CPU)": times(outliner, images, features),
    }
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
