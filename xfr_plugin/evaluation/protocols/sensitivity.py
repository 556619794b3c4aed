"""Sensitivity: how far the map moves with a little noise on the face. (Captum's metric)"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor

from xfr_plugin.attr.registry import Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import Attributions, generator_for, probe_maps

__all__ = ["Sensitivity"]


class Sensitivity(MethodProtocol):
    """Captum's `sensitivity_max` (Yeh et al., NeurIPS 2019, arXiv 1901.09392) of the probe's map.

    Noise, uniform in ± radius and clipped to [0, 1], is put on the probe a few times, and the probe explained
    against the unchanged embedding of the reference. Measured: `sensitivity_max`, the greatest distance (Euclidean)
    of the map of pixels from the unchanged one, over the norm of the unchanged one, as Captum normalises; 0 is best.
    Whether the decision stays is not asked, see `stability` for that.

    1 forward and 1 + `samples` explanations of the probe; 3 by default.

    Args:
        samples: how often noise is drawn.
        radius: of the noise, in [0, 1] of the pixels' range; Captum's own by default.
        at_once: faces that are explained together, which bounds the memory.

    Raises:
        InputError: an option out of range.
    """

    name = "sensitivity"
    title = "Sensitivity"
    higher_is_better: ClassVar[dict[str, bool]] = {"sensitivity_max": False}
    sides: Literal["both", "probe"] = "probe"
    options = ("samples", "radius")

    def __init__(self, *, samples: int = 2, radius: float = 0.02, at_once: int = 2) -> None:
        if samples < 1 or not 0 < radius < 1 or at_once < 1:
            raise InputError(
                f"samples ≥ 1, radius in 0 … 1 and at_once ≥ 1 are needed, got {samples}, {radius:g}, {at_once}"
            )
        self.samples, self.radius, self.at_once = samples, float(radius), at_once
        self._attributions = Attributions()

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Explain noisy probes."""
        from captum.metrics import sensitivity_max  # takes its time to import

        probe, reference = pair.images(setting.recognizer)
        attribution, rng = self._attributions.of(method, setting), generator_for(setting, pair, self.name)
        partner = setting.embed(reference)

        def explain(images: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
            faces = images if isinstance(images, Tensor) else images[0]
            found = probe_maps(attribution, faces, reference, partner)
            return (found.sum(dim=1, keepdim=True),)  # a bare tensor would be taken for a tuple of its rows

        def noisy(images: Tensor, radius: float) -> Tensor:
            noise = torch.from_numpy(rng.uniform(-radius, radius, images.shape)).to(images)
            return (images + noise).clamp(0, 1)

        value = sensitivity_max(
            explain,
            probe,
            perturb_func=noisy,
            perturb_radius=self.radius,
            n_perturb_samples=self.samples,
            max_examples_per_batch=min(self.at_once, self.samples),  # it warns of more
        )
        yield Measurement("", "sensitivity_max", float(value))
