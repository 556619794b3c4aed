"""Hair, ears, bare skin and background around a face."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.draw import ellipse

from xfr_plugin.errors import InputError
from xfr_plugin.faces import RegionMap, fit_aligned, template_regions
from xfr_plugin.faces.surroundings import (
    KINDS,
    described,
    load_classifier,
    placed,
    reduced,
    with_surroundings,
)

SKIN, HAIR, BLUE = (205, 160, 135), (50, 35, 25), (70, 90, 170)


def drawn_head(size: tuple[int, int] = (112, 112)) -> NDArray[np.uint8]:
    """A face on blue, with dark hair around its upper half and ears; the template's oval."""
    image = np.empty((112, 112, 3), np.uint8)
    image[:] = BLUE
    image[ellipse(52, 56, 52, 50, shape=(112, 112))] = HAIR
    image[58:] = BLUE
    for column in (12, 100):
        image[ellipse(64, column, 14, 7, shape=(112, 112))] = SKIN
    image[ellipse(69, 56, 52, 40, shape=(112, 112))] = SKIN
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    return fit_aligned(np.clip(image + noise, 0, 255).astype(np.uint8), size)


@pytest.mark.parametrize("size", [(112, 112), (160, 150), (250, 301), (64, 64)])
def test_hair_ears_and_background_of_a_drawn_head(size: tuple[int, int]) -> None:
    regions = with_surroundings(template_regions(size), drawn_head(size))
    assert regions.size == size

    def at(row: int, column: int) -> str:
        scale, margin = size[0] / 112, (size[1] - size[0]) / 2
        return regions.names[regions.labels[int(row * scale), int(column * scale + margin)]]

    assert at(8, 56) == at(25, 14) == at(25, 97) == "hair"
    assert at(105, 6) == at(105, 105) == "background"
    assert (at(66, 11), at(66, 100)) == ("right_ear", "left_ear")


def test_the_face_stays_and_floats_are_bytes() -> None:
    before, image = template_regions(), drawn_head()
    after = with_surroundings(before, image)
    np.testing.assert_array_equal(after.labels[before.face], before.labels[before.face])
    again = with_surroundings(before, (image / 255).astype(np.float32))
    assert (again.labels == after.labels).mean() > 0.999


def test_a_mirrored_head_has_mirrored_surroundings() -> None:
    regions = with_surroundings(template_regions(), drawn_head())
    mirrored = RegionMap(template_regions().labels[:, ::-1], regions.names)
    swap = [regions.names.index(_other_side(name)) for name in regions.names]
    swapped = RegionMap(np.array(swap, np.uint8)[mirrored.labels], regions.names)
    found = with_surroundings(swapped, drawn_head()[:, ::-1])
    assert (np.array(swap)[found.labels[:, ::-1]] == regions.labels).mean() > 0.99


def _other_side(name: str) -> str:
    side = name.split("_")[0]
    return name.replace(side, {"right": "left", "left": "right"}.get(side, side))


@pytest.mark.parametrize("size", [(112, 112), (24, 20), (6, 6), (1, 1)])
def test_grey_plain_and_tiny_images_have_an_answer(size: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (*size, 1), np.uint8).repeat(3, axis=2)
    for image in (grey, np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)):
        regions = with_surroundings(template_regions(size), image)
        assert regions.size == size


def test_a_head_that_is_turned_far_has_no_ear_on_the_far_side() -> None:
    straight = template_regions()
    labels = np.where(straight.face, straight.names.index("left_cheek"), straight.labels)
    for name in ("nose", "mouth", "right_brow"):  # as if the nose pointed to the left of the subject
        labels = np.where(np.roll(straight.mask(name), 24, axis=1), straight.names.index(name), labels)
    found = with_surroundings(RegionMap(labels.astype(np.uint8), straight.names), drawn_head())
    assert not found.mask("left_ear").any()
    assert found.mask("right_ear").any()


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="the regions"):
        with_surroundings(template_regions(), np.zeros((24, 20, 3), np.uint8))


def test_the_shipped_weights_fit_what_is_described() -> None:
    small = reduced(template_regions())
    place = placed(small)
    assert place is not None
    terms = described(small, np.zeros((*small.size, 3)), place)
    classifier = load_classifier()
    assert classifier.place.shape == (place.shape[2], len(KINDS))
    assert classifier.whole.shape == (terms.shape[2], len(KINDS))
