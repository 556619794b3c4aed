"""The shipped outline finder: regions of real faces, other sizes, refusals, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.errors import InputError, LayoutError, WeightsError
from xfr_plugin.faces import REGION_NAMES, RegionMap, fit_aligned, template_regions
from xfr_plugin.faces.lfw import read_mesh_regions
from xfr_plugin.faces.outline_network import OutlineFinder, from_frame, to_frame
from xfr_plugin.faces.outlines import (
    Outliner,
    find_outlines,
    find_regions,
    load_outline_finder,
    save_outline_finder,
)
from xfr_plugin.faces.regions import MESH_FEATURES, mesh_regions
from xfr_plugin.training.faces_data import FaceSet, find_faces, read_faces, split_people
from xfr_plugin.training.manifest import build_manifest

FACES = 40
SHIPPED = Path(__file__).parents[2] / "xfr_plugin" / "models" / "outlines.safetensors"


@pytest.fixture(scope="module")
def faces(faces_root: Path) -> FaceSet:
    """Faces of people that were not trained on."""
    people = find_faces(faces_root / "lfw112", faces_root / "peopleDevTest.txt")
    chosen = dict(list(people.items())[:: len(people) // FACES][:FACES])
    return read_faces(faces_root / "lfw112", {name: files[:1] for name, files in chosen.items()})


def overlap(found: RegionMap, truth: RegionMap) -> float:
    """Mean IoU of the named regions that the truth has."""
    pairs = [(found.mask(found.names[i]), truth.mask(found.names[i])) for i in found.of_face]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs if b.any()]))


def random_finder() -> OutlineFinder:
    torch.manual_seed(0)
    finder = OutlineFinder(points=12, components=3, width=4).eval()
    finder.mean = torch.rand(12, 2) * 112
    return finder


FEATURES = {
    name: [0, 3, 5]
    for name in (
        "face_oval",
        "nose",
        "right_eye",
        "left_eye",
        "right_brow",
        "left_brow",
        "mouth",
        *MESH_FEATURES,
    )
}


@pytest.mark.real_data
def test_found_regions_lie_nearer_to_the_mesh_than_the_template(faces: FaceSet, faces_root: Path) -> None:
    found = find_outlines(faces.batch(torch.arange(FACES)))
    truth_of = read_mesh_regions(faces_root)
    truths = [truth_of(file) for file in faces.files]
    assert all(face.found for face in found)
    ours = np.array([overlap(face.regions, truth) for face, truth in zip(found, truths, strict=True)])
    theirs = np.array([overlap(template_regions(), truth) for truth in truths])
    assert ours.mean() > theirs.mean() + 0.12
    assert (ours > theirs).mean() > 0.9


@pytest.mark.real_data
def test_a_mirrored_face_has_mirrored_regions(faces: FaceSet) -> None:
    images = faces.batch(torch.arange(FACES))
    swap = [REGION_NAMES.index(_other_side(name)) for name in REGION_NAMES]
    pairs = zip(find_regions(images), find_regions(images.flip(3)), strict=True)
    agree = [(a.labels == np.array(swap)[b.labels[:, ::-1]]).mean() for a, b in pairs]
    assert np.mean(agree) > 0.93
    assert min(agree) > 0.8


def _other_side(name: str) -> str:
    side = name.split("_")[0]
    return name.replace(side, {"right": "left", "left": "right"}.get(side, side))


@pytest.mark.real_data
@pytest.mark.parametrize("size", [(160, 120), (56, 56), (250, 301)])
def test_other_sizes_have_the_same_regions(faces: FaceSet, faces_root: Path, size: tuple[int, int]) -> None:
    crops = [fit_aligned(image.permute(1, 2, 0).numpy(), size) for image in faces.images[:8]]
    found = [find_outlines(crop, as_labelled=True)[0] for crop in crops]
    truth_of = read_mesh_regions(faces_root, size)
    for face, file in zip(found, faces.files, strict=False):
        assert face.found
        assert face.regions.size == size
        assert overlap(face.regions, truth_of(file)) > overlap(template_regions(size), truth_of(file))


@pytest.mark.real_data
def test_the_labels_are_shifted_and_the_outlines_are_not(faces: FaceSet) -> None:
    """Mirror images have mirrored outlines on average, so the middle is that of what is seen."""
    images = faces.batch(torch.arange(FACES))
    middle, mirrored = (
        np.mean([face.points[:, 0].mean() for face in find_outlines(batch)])
        for batch in (images, images.flip(3))
    )
    assert mirrored == pytest.approx(111 - middle, abs=0.3)
    plain, shifted = find_outlines(images[:1])[0], find_outlines(images[:1], as_labelled=True)[0]
    moved = np.broadcast_to(load_outline_finder().label_offset, plain.points.shape)
    np.testing.assert_allclose(shifted.points - plain.points, moved, atol=1e-9)
    assert 0.7 < moved[0, 0] < 1.4


@pytest.mark.real_data
def test_answers_repeat_and_do_not_depend_on_the_batch(faces: FaceSet) -> None:
    images = faces.batch(torch.arange(6)).requires_grad_()
    together, again = find_outlines(images), find_outlines(images)
    for one, two in zip(together, again, strict=True):
        np.testing.assert_array_equal(one.regions.labels, two.regions.labels)
    alone = find_outlines(faces.images[2].permute(1, 2, 0).numpy())[0]
    np.testing.assert_allclose(alone.points, together[2].points, atol=1e-2)
    assert (alone.regions.labels == together[2].regions.labels).mean() > 0.999


@pytest.mark.real_data
def test_misplaced_faces_have_the_template(faces: FaceSet) -> None:
    images = faces.batch(torch.arange(FACES))
    for crops in (images.flip(2), images.roll(56, 3)):
        found = find_outlines(crops)
        assert np.mean([face.found for face in found]) < 0.1
        refused = next(face for face in found if not face.found)
        np.testing.assert_array_equal(refused.regions.labels, template_regions().labels)


@pytest.mark.parametrize("size", [(112, 112), (160, 120), (30, 24)])
def test_what_is_no_face_has_the_template(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 3, *size, generator=generator)
    plain = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, *size)
    for crops in (noise, plain):
        for face in find_outlines(crops):
            assert not face.found
            assert 0 <= face.score < 0.5
            np.testing.assert_array_equal(face.regions.labels, template_regions(size).labels)


def _sizes(outliner: Outliner) -> tuple[int, int, int]:
    network = outliner.network
    return network.points, network.components, network.width


def test_implausible_shapes_are_refused() -> None:
    outliner = load_outline_finder()
    astray = type(outliner)(OutlineFinder(*_sizes(outliner)), outliner.features)
    astray.network.load_state_dict(outliner.network.state_dict())
    astray.network.score.bias += 100
    astray.network.coefficients.bias += 10
    image = torch.rand(1, 3, 112, 112)
    face = astray(image)[0]
    assert face.score > 0.5
    assert face.distance > astray.reach
    assert not face.found


@pytest.mark.parametrize("size", [(112, 112), (112, 90), (112, 91), (224, 300)])
def test_points_go_back_to_where_they_came_from(size: tuple[int, int]) -> None:
    """A bright spot's centre, found in what the network sees, lands on the spot again."""
    images = torch.zeros(1, 1, *size)
    scale = size[0] // 112
    images[:, :, 40 * scale : 44 * scale, 30 * scale : 34 * scale] = 1
    seen = to_frame(images)[0, 0]
    rows, columns = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    centre = torch.stack([(seen * columns).sum(), (seen * rows).sum()]) / seen.sum()
    placed = from_frame(centre[None, None], size)[0, 0]
    expected = torch.tensor([32.0 * scale - 0.5, 42.0 * scale - 0.5])
    torch.testing.assert_close(placed, expected, rtol=0, atol=0.02 * scale)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((5, 5), np.uint8), "H×W×3 of uint8"),
        (np.zeros((5, 5, 3)), "H×W×3 of uint8"),
        (torch.zeros(3, 5, 5), "N×3×H×W"),
        (torch.zeros(1, 1, 5, 5), "N×3×H×W"),
        (torch.zeros(1, 3, 5, 5, dtype=torch.uint8), "N×3×H×W"),
        (torch.full((1, 3, 5, 5), float("nan")), "finite"),
        (torch.zeros(1, 3, 0, 5), "not empty"),
    ],
)
def test_other_inputs_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_regions(images)


@pytest.mark.parametrize("size", [(112, 112), (160, 120)])
def test_the_mean_face_lies_on_the_template(size: tuple[int, int]) -> None:
    outliner = load_outline_finder()
    points = from_frame(outliner.network.mean.double(), size).numpy()
    assert points.shape == (outliner.network.points, 2)
    drawn, ours = mesh_regions(points, outliner.features, size), template_regions(size)
    for name in ("nose", "mouth", "right_eye", "left_eye"):
        assert (drawn.mask(name) & ours.mask(name)).sum() > 0.85 * drawn.areas()[name]


def test_no_images_have_no_regions() -> None:
    assert find_regions(torch.zeros(0, 3, 112, 112)) == []


def test_a_finder_survives_writing_and_reading(tmp_path: Path) -> None:
    shipped = load_outline_finder()
    assert load_outline_finder() is shipped
    save_outline_finder(
        shipped.network, tmp_path / "o.safetensors", shipped.features, (1.0, 2.0), {"note": "copy"}
    )
    copy = load_outline_finder(tmp_path / "o.safetensors")
    image = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    for one, two in zip(shipped(image), copy(image), strict=True):
        np.testing.assert_array_equal(one.points, two.points)
    assert copy.label_offset == (1.0, 2.0)
    assert copy.card["training"] == {"note": "copy"}


def test_the_shipped_file_is_small_and_plain() -> None:
    assert SHIPPED.stat().st_size < 1_700_000
    with safe_open(SHIPPED, framework="pt") as file:
        assert file.get_tensor("features.0.0.weight").dtype == torch.float16
    outliner = load_outline_finder()
    used = {number for numbers in outliner.features.values() for number in numbers}
    assert used == set(range(outliner.network.points))


@pytest.mark.real_data
def test_the_shipped_file_was_trained_on_the_training_people(faces_root: Path) -> None:
    training = load_outline_finder().card["training"]
    people = find_faces(faces_root / "lfw112", faces_root / "peopleDevTrain.txt")
    faces = {person: files[: training["photos"]] for person, files in people.items()}
    parts = split_people(faces, 0.06, training["seed"])
    files = [f"lfw112/{file}" for part in parts for group in part.values() for file in group]
    first = ["mesh468_aligned.npz", "regions.json", "peopleDevTrain.txt"]
    assert build_manifest(faces_root, [*first, *files]).digest == training["data"]
    assert training["faces"] + training["held-out faces"] == len(files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "no outline finder that this version reads"),
        ({"points": "many"}, "impossible number of"),
        ({"label_offset": [1.0]}, "how its labels are shifted"),
        ({"components": 0}, "impossible number of"),
        ({"features": {"nose": [1]}}, "is of an earlier version and does not find bridge"),
        ({"features": [1]}, "which points outline which feature"),
        ({"features": {**FEATURES, "nose": [99]}}, "which points outline which feature"),
    ],
)
def test_damaged_cards_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "o.safetensors"
    save_outline_finder(random_finder(), path, FEATURES, (0.5, 0.0), {})
    state, metadata = read_weights(path)
    metadata["outlines"].update(change)
    write_weights(path, state, metadata)
    with pytest.raises(WeightsError, match=message):
        load_outline_finder(path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.safetensors"
    save_outline_finder(random_finder(), path, FEATURES, (0.5, 0.0), {})
    state, metadata = read_weights(path)
    write_weights(path, {**state, "mean": state["mean"] * float("nan")}, metadata)
    with pytest.raises(WeightsError, match="not finite"):
        load_outline_finder(path)
    write_weights(path, {**state, "mean": torch.zeros(5, 2)}, metadata)
    with pytest.raises(LayoutError, match="of another shape"):
        load_outline_finder(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_outline_finder(path)


@pytest.mark.real_data
def test_sketches_are_those_of_the_network(faces: FaceSet) -> None:
    """BatchNorm is folded in for speed."""
    outliner, frames = load_outline_finder(), to_frame(faces.batch(torch.arange(4)))
    own, mirrored = outliner.network(frames), outliner.network(frames.flip(3))
    found = outliner.sketch(frames)
    torch.testing.assert_close(found.logits, (own.logits + mirrored.logits) / 2, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.distances, (own.distances + mirrored.distances) / 2, rtol=0, atol=1e-5)
