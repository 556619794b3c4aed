"""The plugin of xaitk-saliency: found by its mechanism, held to its interface's contract, and right about a map."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xfr_plugin.errors import InputError

pytest.importorskip("xaitk_saliency", reason="xaitk-saliency is not installed")

from smqtk_core.configuration import configuration_test_helper
from smqtk_descriptors.interfaces.image_descriptor_generator import ImageDescriptorGenerator
from xaitk_saliency import GenerateImageSimilarityBlackboxSaliency

from xfr_plugin.explanation.xaitk import FaceSimilaritySaliency


class Corner(ImageDescriptorGenerator):
    """Sees nothing but the mean colours of the upper left quarter."""

    def generate_arrays_from_images(
        self, img_mat_iter: Iterable[NDArray[Any] | None]
    ) -> Iterable[NDArray[Any]]:
        for image in img_mat_iter:
            assert image is not None
            self.seen = image.dtype, image.ndim
            corner = image[: image.shape[0] // 2, : image.shape[1] // 2].reshape(
                -1, 1 if image.ndim == 2 else 3
            )
            yield np.array([*(corner.mean(axis=0) - 100), 5.0])

    def get_config(self) -> dict[str, Any]:
        return {}


def photo(height: int = 24, width: int = 20, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


OPTIONS = {
    "occlusion": {"window": 6, "stride": 6},
    "mery_avg": {"stride": 4},
}


@pytest.mark.filterwarnings("ignore")  # of the plugins of others, which are all imported
def test_the_entry_point_names_the_module_and_the_interface_finds_the_class() -> None:
    (entry,) = (e for e in metadata.entry_points(group="smqtk_plugins") if e.value.startswith("xfr_plugin"))
    assert entry.value == FaceSimilaritySaliency.__module__
    assert FaceSimilaritySaliency in GenerateImageSimilarityBlackboxSaliency.get_impls()


def test_its_configuration_makes_it_again() -> None:
    made = FaceSimilaritySaliency("corrrise", {"n_masks": 16}, 0.25)
    for again in configuration_test_helper(made):
        assert (again.method, again.options, again.threshold) == ("corrrise", {"n_masks": 16}, 0.25)


def test_maps_have_the_form_that_the_interface_asks_for() -> None:
    """As the interface's own tests of implementations: queries of other sizes and of one colour, a map for each."""
    box = Corner()
    queries = [photo(27, 28, 1), photo(24, 20, 2)]
    maps = FaceSimilaritySaliency("corrrise", {"n_masks": 16})(photo(25, 32), queries, box)
    assert maps.shape == (2, 25, 32)
    assert np.issubdtype(maps.dtype, np.floating)
    assert np.abs(maps).max() == 1
    assert box.seen == (np.uint8, 3)
    grey = FaceSimilaritySaliency("corrrise", {"n_masks": 16})(photo()[:, :, 0], [photo()[:, :, 0]], box)
    assert grey.shape == (1, 24, 20)
    assert box.seen == (np.uint8, 2)
    assert FaceSimilaritySaliency()(photo(), [], box).shape == (0, 24, 20)


@pytest.mark.parametrize("method", OPTIONS)
def test_what_the_black_box_looks_at_is_what_is_shown(method: str) -> None:
    bright = np.clip(photo().astype(int) + 80, 0, 255).astype(np.uint8)
    (found,) = FaceSimilaritySaliency(method, OPTIONS[method])(bright, [bright], Corner())
    inside = np.abs(found[:12, :10]).mean()
    assert inside > 2 * np.abs(found[12:, 10:]).mean()


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(InputError, match="needs more than scores"):
        FaceSimilaritySaliency("fggb")
    with pytest.raises(InputError, match="one colour or three, not 4"):
        FaceSimilaritySaliency()(np.zeros((8, 8, 4), np.uint8), [photo()], Corner())
    with pytest.raises(ValueError, match="unexpected number of dimensions"):
        FaceSimilaritySaliency()(np.zeros(8, np.uint8), [photo()], Corner())
