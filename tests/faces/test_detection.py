"""The shipped detector, its finder and aligner: faces found, landmarks placed, non-faces refused, files checked."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.errors import InputError, LayoutError, WeightsError
from xfr_plugin.faces.alignment import Landmarks
from xfr_plugin.faces.detection import Box, Detector
from xfr_plugin.faces.landmark_network import AlignerNetwork, box_frames, from_crop, to_crop
from xfr_plugin.faces.landmarks import Aligner, load_aligner, save_aligner
from xfr_plugin.faces.lfw import read_landmarks, read_people
from xfr_plugin.faces.photo import load_photo
from xfr_plugin.faces.search import FaceDetector

Photo = NDArray[np.uint8]

# read off the enlarged photograph by eye
ASTRONAUT = np.array([[203.0, 100.5], [245.8, 103.0], [223.5, 126.5], [203.0, 139.7], [243.3, 141.2]])
FACE = (slice(20, 220), slice(125, 325))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def astronaut() -> Photo:
    return np.asarray(skimage.data.astronaut())


def error(found: Landmarks, truth: Landmarks) -> float:
    """Mean distance in eye distances."""
    return float(np.linalg.norm(found - truth, axis=1).mean() / np.linalg.norm(truth[1] - truth[0]))


def turned(photo: Photo, points: Landmarks, degrees: float) -> tuple[Photo, Landmarks]:
    """Turn a photo clockwise about its middle."""
    angle, middle = np.radians(degrees), (np.array(photo.shape[1::-1]) - 1) / 2
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    image = Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC)
    return np.asarray(image), (points - middle) @ matrix.T + middle


def test_it_is_a_detector(detector: FaceDetector) -> None:
    assert isinstance(detector, Detector)


def test_the_astronaut_has_one_face_with_landmarks_in_place(detector: FaceDetector, astronaut: Photo) -> None:
    (face,) = detector(astronaut)
    assert error(face.landmarks, ASTRONAUT) < 0.1
    assert face.confidence is not None
    assert face.confidence > 0.9
    box = face.box
    assert box.x < ASTRONAUT[0, 0] < ASTRONAUT[1, 0] < box.x + box.width
    assert box.y < ASTRONAUT[0, 1] < ASTRONAUT[3, 1] < box.y + box.height


def test_it_finds_the_same_every_time(detector: FaceDetector, astronaut: Photo) -> None:
    (first,), (second,) = detector(astronaut), detector(astronaut)
    assert first.box == second.box
    assert np.array_equal(first.landmarks, second.landmarks)


@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
def test_turned_faces_are_found(detector: FaceDetector, astronaut: Photo, degrees: float) -> None:
    photo, truth = turned(astronaut[FACE], ASTRONAUT - [125, 20], degrees)
    (face,) = detector(photo)
    assert error(face.landmarks, truth) < 0.15


def test_a_mirrored_face_has_mirrored_landmarks(detector: FaceDetector, astronaut: Photo) -> None:
    (face,) = detector(np.ascontiguousarray(astronaut[:, ::-1]))
    mirrored = face.landmarks[[1, 0, 2, 4, 3]]
    mirrored[:, 0] = astronaut.shape[1] - 1 - mirrored[:, 0]
    assert error(mirrored, ASTRONAUT) < 0.12


@pytest.mark.parametrize("factor", [0.2, 0.35, 8])
def test_tiny_and_large_photos(detector: FaceDetector, astronaut: Photo, factor: float) -> None:
    side = round(200 * factor)
    crop = Image.fromarray(astronaut[FACE]).resize((side, side), Image.Resampling.BICUBIC)
    (face,) = detector(np.asarray(crop))
    truth = (ASTRONAUT - [125, 20] + 0.5) * factor - 0.5
    assert error(face.landmarks, truth) < 0.15


def test_a_face_cut_closely_is_found(detector: FaceDetector, astronaut: Photo) -> None:
    (face,) = detector(np.ascontiguousarray(astronaut[75:170, 178:273]))
    assert error(face.landmarks, ASTRONAUT - [178, 75]) < 0.12


def test_several_faces_are_all_found(detector: FaceDetector, astronaut: Photo) -> None:
    face = Image.fromarray(astronaut[FACE])
    canvas = Image.new("RGB", (520, 300), (90, 110, 130))
    canvas.paste(face, (10, 40))
    canvas.paste(face.resize((140, 140)), (240, 20))
    canvas.paste(face.resize((110, 110)), (400, 150))
    found = detector(np.asarray(canvas))
    centres = sorted(f.landmarks.mean(0)[0] for f in found)
    assert len(found) == 3
    assert centres[0] < 240 < centres[1] < 380 < centres[2]


def test_in_a_crowd_the_largest_face_is_among_those_found(detector: FaceDetector, astronaut: Photo) -> None:
    face = Image.fromarray(astronaut[FACE])
    crowd = Image.new("RGB", (14 * 80, 10 * 80), (90, 110, 130))
    for place in range(14 * 10):
        crowd.paste(face.resize((80, 80)), (place % 14 * 80, place // 14 * 80))
    crowd.paste(face.resize((160, 160)), (480, 320))
    found = detector(np.asarray(crowd))
    assert len(found) > 100
    largest = max(found, key=lambda face: face.box.area)
    assert np.linalg.norm(largest.landmarks.mean(0) - (480 + 80, 320 + 80)) < 16


@pytest.mark.parametrize("mirrored", [False, True])
def test_faces_that_touch_are_two(detector: FaceDetector, astronaut: Photo, mirrored: bool) -> None:
    face = astronaut[60:175, 178:273]
    found = detector(np.hstack([face, face[:, ::-1] if mirrored else face]))
    assert len(found) == 2
    left, right = sorted(face.landmarks.mean(0)[0] for face in found)
    assert left < 95 < right


def blank() -> Photo:
    return np.full((300, 400, 3), 120, np.uint8)


def noise() -> Photo:
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)


def landscape() -> Photo:
    return np.asarray(skimage.data.rocket())


def a_pixel() -> Photo:
    return np.zeros((1, 1, 3), np.uint8)


def a_line() -> Photo:
    return np.zeros((2, 3000, 3), np.uint8)


@pytest.mark.parametrize("make", [blank, noise, landscape, a_pixel, a_line])
def test_no_face_where_there_is_none(detector: FaceDetector, make: object) -> None:
    assert callable(make)
    assert detector(make()) == []


def test_a_landmark_model_of_ones_own_gets_sure_boxes_only(astronaut: Photo) -> None:
    asked: list[Box] = []

    def corners(photo: Photo, box: Box, /) -> Landmarks:
        asked.append(box)
        return np.array([[box.x, box.y]] * 5) + np.arange(10).reshape(5, 2)

    faces = FaceDetector(corners)(astronaut)
    assert {round(face.box.x, 6) for face in faces} <= {round(box.x, 6) for box in asked}
    assert faces[0].confidence is None
    assert abs(faces[0].box.x + faces[0].box.width / 2 - 225) < 15


def test_confidence_must_be_a_share() -> None:
    with pytest.raises(InputError, match="0…1"):
        FaceDetector(min_confidence=1.5)


def test_landmarks_of_a_box_and_of_a_turned_box_agree(astronaut: Photo) -> None:
    aligner = load_aligner()
    box = Box(174, 65, 103, 103)
    assert error(aligner(astronaut, box), ASTRONAUT) < 0.1
    landmarks, scores = aligner.locate(astronaut, [box, box], [0.0, 0.2])
    assert error(landmarks[1], landmarks[0]) < 0.08
    assert (scores > 0.5).all()
    none, _ = aligner.locate(astronaut, [])
    assert none.shape == (0, 5, 2)


@pytest.mark.parametrize(
    "box",
    [
        Box(0, 0, 0, 10),
        Box(0, 0, float("nan"), 5),
        Box(9000, 0, 50, 50),
        Box(1e300, 0, 50, 50),
        Box(-1e9, -1e9, 2e9, 2e9),
        Box(0, 0, 1e300, 1e300),
    ],
)
def test_impossible_boxes_are_refused(astronaut: Photo, box: Box) -> None:
    with pytest.raises(InputError, match="box"):
        load_aligner()(astronaut, box)


@pytest.mark.parametrize("angles", [[], [0.0, 0.0], [float("nan")]])
def test_there_is_one_angle_a_box(astronaut: Photo, angles: list[float]) -> None:
    with pytest.raises(InputError, match="one finite angle a box"):
        load_aligner().locate(astronaut, [Box(174, 65, 103, 103)], angles)


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 1), np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((50, 50, 3)),
        np.zeros((50, 50, 3), np.int64),
        np.zeros((0, 5, 3), np.uint8),
        [[1]],
    ],
)
def test_photos_of_another_kind_are_refused(detector: FaceDetector, photo: Photo) -> None:
    with pytest.raises(InputError, match="H×W×3"):
        load_aligner().locate(photo, [Box(0, 0, 40, 40)])
    with pytest.raises(InputError, match="H×W×3"):
        detector(photo)


def test_a_box_many_pixels_wide_gives_the_same_landmarks(astronaut: Photo) -> None:
    aligner, factor = load_aligner(), 12
    crop = Image.fromarray(astronaut[FACE])
    large = np.asarray(crop.resize((200 * factor, 200 * factor), Image.Resampling.BICUBIC))
    landmarks = aligner(large, Box(*(factor * value for value in (49, 45, 103, 103))))
    assert error((landmarks + 0.5) / factor - 0.5, aligner(astronaut[FACE], Box(49, 45, 103, 103))) < 0.02


def test_frames_map_there_and_back() -> None:
    frames = box_frames(
        torch.tensor([[50.0, 60.0], [20.0, 10.0]]),
        torch.tensor([40.0, 30.0]),
        torch.tensor([0.3, -2.0]),
        torch.tensor([False, True]),
    )
    points = torch.rand(2, 5, 2) * 100
    assert torch.allclose(from_crop(to_crop(points, frames), frames), points, atol=1e-4)
    right = from_crop(torch.tensor([[[1.0, 0.0]]] * 2), frames)[:, 0] - frames[:, :, 2]
    assert torch.allclose(right.norm(dim=1), torch.tensor([28.0, 21.0]))


def test_the_fine_frame_puts_the_landmarks_on_the_mean_shape() -> None:
    network = AlignerNetwork(width=4)
    angles, mirrored = torch.tensor([0.5, -0.3]), torch.tensor([False, True])
    frames = box_frames(torch.full((2, 2), 100.0), torch.full((2,), 70.0), angles, mirrored)
    shape = network.mean_shape * 0.6 + torch.tensor([0.1, -0.05])
    points = from_crop(shape.expand(2, 5, 2), frames)
    assert torch.allclose(
        to_crop(points, network.fine_frames(points, frames))[0], network.mean_shape, atol=1e-4
    )
    assert torch.allclose(
        to_crop(points, network.fine_frames(points, frames))[1], network.mean_shape, atol=1e-4
    )


def test_landmarks_follow_the_labels_to_the_right_of_the_image_and_along_the_face() -> None:
    network = AlignerNetwork(width=4).eval()
    angles, mirrored = torch.tensor([0.0, 0.6, 0.0, 0.6]), torch.tensor([False, False, True, True])
    frames = box_frames(torch.full((4, 2), 50.0), torch.full((4,), 70.0), angles, mirrored)

    def step(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return network.mean_shape.expand(len(crops), 5, 2), torch.zeros(len(crops))

    def located() -> torch.Tensor:
        return network.locate(step, torch.zeros(4, 1, 64, 64), frames).points  # type: ignore[arg-type]  # no module

    before = located()
    eyes = (before[:, 1] - before[:, 0]).norm(dim=1)
    with torch.no_grad():
        network.label_offset.copy_(torch.tensor([0.1, 0.05]))
    shift = (located() - before).mean(1) / eyes[:, None]
    angle = torch.complex(shift[:, 0], shift[:, 1]).angle()
    assert torch.allclose(shift.norm(dim=1), torch.full((4,), math.hypot(0.1, 0.05)), atol=1e-3)
    assert torch.allclose(angle, math.atan2(0.05, 0.1) + angles, atol=0.01)


def test_a_turned_face_has_the_landmarks_of_the_face_upright(astronaut: Photo) -> None:
    aligner, box = load_aligner(), Box(49, 45, 103, 103)
    upright = aligner(astronaut[FACE], box)
    middle = np.array([[box.x + box.width / 2 - 0.5, box.y + box.height / 2 - 0.5]])
    for degrees in (-40, 40):
        photo, (place,) = turned(astronaut[FACE], middle, degrees)
        turned_box = Box(
            place[0] + 0.5 - box.width / 2, place[1] + 0.5 - box.height / 2, box.width, box.height
        )
        found, _ = aligner.locate(photo, [turned_box], [math.radians(degrees)])
        assert error(found[0], turned(photo, upright, degrees)[1]) < 0.02


def test_a_fine_frame_never_collapses() -> None:
    network = AlignerNetwork(width=4)
    frames = box_frames(torch.zeros(1, 2), torch.full((1,), 70.0), torch.zeros(1))
    assert network.fine_frames(torch.zeros(1, 5, 2), frames).isfinite().all()


def test_an_aligner_survives_writing_and_reading(tmp_path: Path, astronaut: Photo) -> None:
    shipped = load_aligner()
    save_aligner(shipped.network, tmp_path / "a.safetensors", {"note": "copy"})
    copy = load_aligner(tmp_path / "a.safetensors")
    assert copy.card["training"] == {"note": "copy"}
    assert np.array_equal(copy(astronaut, Box(174, 65, 103, 103)), shipped(astronaut, Box(174, 65, 103, 103)))


def test_the_shipped_aligner_is_small_and_says_where_it_comes_from() -> None:
    aligner = load_aligner()
    assert isinstance(aligner, Aligner)
    assert 2 * sum(p.numel() for p in aligner.network.parameters()) < 1_000_000
    assert aligner.card["training"]["photographs"] > 1500


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_aligner(AlignerNetwork(width=4), tmp_path / "small.safetensors", {})
    return tmp_path / "small.safetensors"


def test_a_truncated_file_is_refused(small_file: Path) -> None:
    small_file.write_bytes(small_file.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_aligner(small_file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="check the path"):
        load_aligner(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "no aligner that this version reads"),
        ({"width": 10**6}, "impossible width"),
        ({"width": "4"}, "impossible width"),
    ],
)
def test_tampered_metadata_is_refused(small_file: Path, change: dict[str, object], message: str) -> None:
    state, metadata = read_weights(small_file)
    metadata["aligner"].update(change)
    write_weights(small_file, state, metadata)
    with pytest.raises(WeightsError, match=message):
        load_aligner(small_file)


def test_weights_of_another_width_are_refused(small_file: Path) -> None:
    state, metadata = read_weights(small_file)
    metadata["aligner"]["width"] = 8
    write_weights(small_file, state, metadata)
    with pytest.raises(LayoutError, match="does not fit AlignerNetwork"):
        load_aligner(small_file)


def test_missing_weights_and_bad_numbers_are_refused(small_file: Path) -> None:
    state, metadata = read_weights(small_file)
    name = next(key for key in state if key.endswith("weight"))
    write_weights(small_file, {**state, name: state[name] * float("nan")}, metadata)
    with pytest.raises(WeightsError, match="not finite"):
        load_aligner(small_file)
    del state[name]
    write_weights(small_file, state, metadata)
    with pytest.raises(LayoutError, match="1 keys missing"):
        load_aligner(small_file)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "other.safetensors", {"weight": torch.zeros(3)}, {"recognizer": {}})
    with pytest.raises(WeightsError, match="no aligner"):
        load_aligner(tmp_path / "other.safetensors")


@pytest.mark.real_data
def test_landmarks_on_photographs_of_unseen_people(detector: FaceDetector, faces_root: Path) -> None:
    people = read_people(faces_root / "peopleDevTest.txt")
    labels = read_landmarks(faces_root / "labels.csv")
    files = [f for f in sorted(labels) if f.split("/")[0] in people and (faces_root / "lfw250" / f).is_file()]
    errors = []
    for file in files[::8][:60]:
        faces = detector(load_photo(faces_root / "lfw250" / file))
        errors += [e for face in faces if (e := error(face.landmarks, labels[file])) < 0.5]
    assert len(errors) >= 57
    assert np.mean(errors) <= 0.045
