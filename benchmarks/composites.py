"""Make the composite faces that ship as donors of regions, and measure that they are nobody.

    python benchmarks/composites.py --out out/composites.png      # the shipped file again, to the pixel
    python benchmarks/composites.py --measure                     # how near the shipped ones are to real people

Each composite is the mean of three people of LFW's official training list, drawn at random
among the frontal, plain ones (few glasses and hats, by principal components), whose faces are warped to
the mean of their three face meshes. Needs `lfw112/`, `mesh468_aligned.npz` and the people files under
`XFR_DATA/faces`.
Nobody: the highest cosine of a composite to any training person's photograph stands beside that of a stranger, and
beside those of the people it was made of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import PiecewiseAffineTransform, warp
from sklearn.decomposition import PCA

from xfr_plugin.base.files import atomic_path
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.donors import composite_faces
from xfr_plugin.training.faces_data import embed_faces, find_faces, read_faces, read_pixels

COUNT, PEOPLE, SEED = 20, 3, 0
_KEPT = (4, 6, 12, 18, 9, 19, 0, 16, 7, 10, 14, 11)  # by eye: no glasses, fringe, or wide open mouth; mixed
_TURN = 0.08  # of the distance between the eyes: how far the nose may lie beside their middle
_APART = 3.0  # pixels
_PLAIN, _COMPONENTS = 0.3, 60
_NOSE, _RIGHT, _LEFT = 1, 33, 263
_EDGE = np.array([[x, y] for x in (0, 37, 74, 111) for y in (0, 37, 74, 111) if {x, y} & {0, 111}], float)


def main() -> None:
    """Make or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    root = data_root() / "faces"
    members = drawn_people(root)
    if options.out:
        strip = np.concatenate([composite(root, *group) for group in members], axis=1)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(options.out) as path:
            Image.fromarray(strip).save(path, "PNG", optimize=True)
    if options.measure:
        for name in ("xfr_compact128", "mobilefacenet_ms1m"):
            print(name, measured(root, name, [files for files, _ in members]))


def drawn_people(root: Path) -> list[tuple[list[str], NDArray[np.float64]]]:
    """Files of the people of each composite, and their meshes."""
    with np.load(root / "mesh468_aligned.npz", allow_pickle=False) as stored:
        meshes = dict(zip(map(str, stored["files"]), stored["mesh_u8"] / 1.5 - 32, strict=True))
    firsts = (f"{person}/{person}_0001.jpg" for person in sorted(read_people(root / "peopleDevTrain.txt")))
    frontal = [file for file in firsts if file in meshes and is_frontal(meshes[file])]
    images = {file: read_pixels(root / "lfw112" / file, "RGB") for file in frontal}
    whole = {file: image for file, image in images.items() if is_whole(image)}
    plain = plain_faces(whole)
    drawn = np.random.default_rng(SEED).permutation(plain)[: COUNT * PEOPLE].reshape(COUNT, PEOPLE)
    return [([*map(str, drawn[k])], np.stack([meshes[file] for file in drawn[k]])) for k in _KEPT]


def plain_faces(images: dict[str, NDArray[np.uint8]]) -> list[str]:
    """The files whose faces principal components describe best: few wear glasses, hats, or anything else."""
    grey = np.stack([image[::4, ::4].mean(axis=2).ravel() for image in images.values()])
    grey = (grey - grey.mean(axis=1, keepdims=True)) / grey.std(axis=1, keepdims=True)
    model = PCA(_COMPONENTS, random_state=SEED).fit(grey)
    misses = np.square(grey - model.inverse_transform(model.transform(grey))).mean(axis=1)
    limit = np.quantile(misses, _PLAIN)
    return [file for file, miss in zip(images, misses, strict=True) if miss <= limit]


def is_frontal(mesh: NDArray[np.float64]) -> bool:
    """Whether the nose lies in the middle between the eyes."""
    distance = mesh[_LEFT, 0] - mesh[_RIGHT, 0]
    return bool(abs(mesh[_NOSE, 0] - (mesh[_LEFT, 0] + mesh[_RIGHT, 0]) / 2) < _TURN * distance)


def is_whole(pixels: NDArray[np.uint8]) -> bool:
    """Whether the photograph fills the crop: no black border from beyond its edge."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((border.max(axis=1) > 4).mean() > 0.98)


def composite(root: Path, files: list[str], meshes: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Mean of faces brought to their mean shape, 112×112×3."""
    kept = spread_out(meshes)
    target = np.concatenate([meshes.mean(axis=0)[kept], _EDGE])
    moved = []
    for file, mesh in zip(files, meshes, strict=True):
        transform = PiecewiseAffineTransform.from_estimate(target, np.concatenate([mesh[kept], _EDGE]))
        moved.append(warp(read_pixels(root / "lfw112" / file, "RGB") / 255, transform, order=3, mode="edge"))
    mean: NDArray[np.float64] = np.mean(moved, axis=0)
    return (mean.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def spread_out(meshes: NDArray[np.float64]) -> list[int]:
    """Vertices inside of all crops that lie some pixels apart, so that no triangle between them is flat."""
    kept: list[int] = []
    for vertex in range(meshes.shape[1]):
        here = meshes[:, vertex]
        apart = all(np.linalg.norm(here - meshes[:, other], axis=1).min() > _APART for other in kept)
        if apart and (here > 1).all() and (here < 110).all():
            kept.append(vertex)
    return kept


def measured(root: Path, name: str, members: list[list[str]]) -> dict[str, list[float]]:
    """Cosines of each composite: to its own people (mean), to the nearest other training photograph; and, of the
    first of its own people, to the nearest photograph of another training person."""
    recognizer = load_recognizer(name)
    people = find_faces(root / "lfw112", root / "peopleDevTrain.txt")
    faces = read_faces(root / "lfw112", {person: files[:1] for person, files in people.items()})
    owners = np.array([file.split("/")[0] for file in faces.files])
    units = embed_faces(recognizer, faces).numpy()
    composites = recognizer.embed(composite_faces(len(members), recognizer.input_size)).numpy()
    result: dict[str, list[float]] = {"to its own": [], "nearest other": [], "of a person, nearest other": []}
    for unit, group in zip(composites, members, strict=True):
        own = np.isin(owners, [file.split("/")[0] for file in group])
        scores = units @ unit
        first = units @ units[list(faces.files).index(group[0])]
        result["to its own"].append(round(float(scores[own].mean()), 3))
        result["nearest other"].append(round(float(scores[~own].max()), 3))
        result["of a person, nearest other"].append(
            round(float(first[owners != group[0].split("/")[0]].max()), 3)
        )
    return result


if __name__ == "__main__":
    main()
