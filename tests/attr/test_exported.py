"""Networks that `torch.export` gave: explained as what they were exported from, or refused with one error."""

from __future__ import annotations

import pytest
import torch
from helpers.small_net import SmallNet
from torch import Tensor, nn

from xfr_plugin.attr import METHODS
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer

SIZE = (24, 20)
HOOKED = ("lrp", "channel_relevance", "ebp", "deeplift", "gradcam", "gradcam_plus_plus", "score_cam")


def program_of(network: nn.Module, any_number: bool = True) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("n")},) if any_number else None
    return torch.export.export(network, (torch.rand(2, 3, *SIZE),), dynamic_shapes=shapes)


def recognizer_of(network: nn.Module | torch.export.ExportedProgram) -> Recognizer:
    recognizer = Recognizer(network, input_size=SIZE, threshold=0.1)
    recognizer.tested = True
    return recognizer


@pytest.fixture(scope="module")
def both() -> tuple[Recognizer, Recognizer]:
    """A recognizer, and one of the same network, exported."""
    torch.manual_seed(0)
    network = SmallNet().eval()
    return recognizer_of(network), recognizer_of(program_of(network))


def pair() -> tuple[Tensor, Tensor]:
    return tuple(torch.rand(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", ["fggb", "xssab", "integrated_gradients", "input_x_gradient", "mery_avg"])
def test_maps_are_those_of_the_network(both: tuple[Recognizer, Recognizer], name: str) -> None:
    options = {"stride": 6} if name == "mery_avg" else METHODS[name].trial_options
    expected, found = (METHODS[name].build(one, 0.1, **options).attribute(pair()) for one in both)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
    assert both[1].gives == "gradient"


@pytest.mark.parametrize("name", HOOKED)
def test_methods_that_hook_layers_are_refused(both: tuple[Recognizer, Recognizer], name: str) -> None:
    with pytest.raises(InputError, match=r"no rule|no layer"):
        METHODS[name].build(both[1], 0.1).attribute(pair())


def test_the_module_of_a_program_is_as_good(both: tuple[Recognizer, Recognizer]) -> None:
    found = recognizer_of(program_of(both[0].network).module())
    faces = torch.cat((*pair(), pair()[0]))
    torch.testing.assert_close(found.embed(faces), both[0].embed(faces))


def test_a_fixed_number_of_images_is_refused(both: tuple[Recognizer, Recognizer]) -> None:
    with pytest.raises(InputError, match="exported for 2 images at a time"):
        Recognizer(program_of(both[0].network, any_number=False), input_size=SIZE)
