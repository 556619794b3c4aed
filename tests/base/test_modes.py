"""Whatever mode of torch a caller is in: decisions and reasons are those of the recognizer, and the mode stays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import xfr_plugin
from xfr_plugin.recognition import Recognizer, load_recognizer

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
}


def modes() -> tuple[object, ...]:
    return (
        torch.is_autocast_enabled("cpu"), torch.get_default_device(), torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["leave_one_out", "xssab"])
def test_a_callers_mode_changes_nothing(
    recognizer: Recognizer, face_photo: NDArray[np.uint8], mode: str, method: str
) -> None:
    photos = face_photo, np.ascontiguousarray(face_photo[:, ::-1] // 2)

    def told() -> xfr_plugin.Explanation:
        return xfr_plugin.explain(
            *photos, recognizer=recognizer, method=method, alignment="aligned", check=True
        )

    expected = told()
    with MODES[mode]():
        before = modes()
        found = told()
        verified = xfr_plugin.verify(*photos, recognizer=recognizer, alignment="aligned")
        compared = xfr_plugin.compare(
            *photos, recognizer=recognizer, methods=[method], alignment="aligned"
        ).explanations[method]
        assert modes() == before
    assert verified.score == pytest.approx(expected.verification.score, abs=1e-6)
    scale = np.abs(expected.probe.saliency).max()
    for one in (found, compared):
        assert one.verification.score == pytest.approx(expected.verification.score, abs=1e-6)
        np.testing.assert_allclose(one.probe.saliency, expected.probe.saliency, atol=1e-4 * scale)
        np.testing.assert_allclose(one.reference.saliency, expected.reference.saliency, atol=1e-4 * scale)
    assert found.faithfulness is not None
    assert found.faithfulness.statistic == pytest.approx(expected.faithfulness.statistic, abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_loaded_in_a_mode_is_as_elsewhere(mode: str) -> None:
    with MODES[mode]():
        loaded = load_recognizer("xfr_compact128")
    expected = load_recognizer("xfr_compact128").network.state_dict()
    for name, values in loaded.network.state_dict().items():
        assert not values.is_inference()
        assert torch.equal(values, expected[name])
