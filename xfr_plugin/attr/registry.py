"""The list of attribution methods: what a name on the command line stands for."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from xfr_plugin.attr._base.pair import PairAttribution
from xfr_plugin.attr.amortised.attribution import Amortised
from xfr_plugin.attr.amortised.model import evidence_file
from xfr_plugin.attr.counterfactual.attribution import Counterfactual
from xfr_plugin.attr.counterfactual.exchange import Exchange
from xfr_plugin.attr.counterfactual.replacement import Replacement
from xfr_plugin.attr.peers.captum_methods import (
    PairDeepLift,
    PairInputXGradient,
    PairIntegratedGradients,
    PairSmoothGrad,
)
from xfr_plugin.attr.peers.captum_perturbation import PairKernelShap, PairLime, PairOcclusion
from xfr_plugin.attr.peers.corrrise import CorrRise
from xfr_plugin.attr.peers.ebp import Ebp
from xfr_plugin.attr.peers.fame import Fame
from xfr_plugin.attr.peers.fggb import Fggb
from xfr_plugin.attr.peers.gradcam import GradCam, GradCamPlusPlus, ScoreCam
from xfr_plugin.attr.peers.mery import MeryAvg, MinPlus
from xfr_plugin.attr.peers.relevance import ChannelRelevanceSaliency, LrpSaliency
from xfr_plugin.attr.peers.srise import SRise
from xfr_plugin.attr.peers.xface import XFace
from xfr_plugin.attr.peers.xssab import Xssab
from xfr_plugin.attr.reconstruction.saliency import ReconstructionSaliency
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.reconstruction.files import find_decoder

__all__ = [
    "AUTO",
    "METHODS",
    "Method",
    "Need",
    "chosen_method",
    "default_method",
    "fast_method",
    "get_method",
]

AUTO = "auto"
"""Instead of a method's name: the default method of the recognizer."""

Need: TypeAlias = Literal["gradient", "scores", "decoder", "composite", "evidence"]
"""What a method asks of a recognizer: its gradient; nothing but scores (a black box will do); a trained decoder; a
Zennit composite for its network, and so a network of known layers; an evidence network trained for it."""


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        name: key in `METHODS`.
        title: full name.
        cls: the attribution class.
        paper: where it was published.
        year: of publication.
        needs: what it asks of the recognizer.
        cost: passes through the network, for a pair and D channels.
        caveat: what keeps its maps from being taken at face value; goes into every explanation.
    """

    name: str
    title: str
    cls: type[PairAttribution]
    paper: str
    year: int
    needs: Need
    cost: str
    caveat: str

    def options(self) -> dict[str, Any]:
        """Option names and defaults: the keyword-only arguments of the class."""
        parameters = inspect.signature(self.cls).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def build(self, recognizer: Recognizer, threshold: float, **options: Any) -> PairAttribution:
        """Make the attribution for a recognizer.

        Raises:
            InputError: an option that the method does not have, or a value it does not accept.
        """
        for option in options:
            if option not in self.options():
                raise UnknownNameError.of(f"option of {self.name}", option, self.options())
        try:
            return self.cls(recognizer, threshold, **options)
        except TypeError as error:
            raise InputError(f"{self.name} does not accept these options: {error}") from error


_NOT_VALIDATED = "its maps are not yet validated on known evidence, and can point at the wrong region"

_MASKED = (
    "its maps say what masking a region does to the score, which includes that masked faces are unlike any face that "
    "the recognizer was trained on; they are not yet validated on known evidence"
)

_AGAINST_BASELINE = (
    "its maps explain the difference to a black image, so black pixels get nothing, and an image like no face that "
    "the recognizer was trained on is the measure; they are not yet validated on known evidence"
)

_BRIGHTER = (
    "the sign of its maps says whether brighter pixels raise the score, not whether they argue for a match; they are "
    "not yet validated on known evidence"
)

_SAMPLED = (
    "its maps are estimates from few samples of a face with parts removed, which is unlike any face that the "
    "recognizer was trained on; they are not yet validated on known evidence"
)

_COARSE = (
    "its maps are as coarse as the layer that they come from (7×7 places at the end of most face networks); they are "
    "not yet validated on known evidence"
)

_ADVERSARIAL = (
    "its maps show where small changes of the pixels move the score most, as an adversarial perturbation does; they "
    "are not yet validated on known evidence"
)

_REGIONAL = (
    "it divides the score among eight regions by how embeddings respond to them, and where it is known which region "
    "decides it names the right one in a quarter to a half of the cases (docs/planted_evidence.md)"
)

_COUNTERFACTUAL = (
    "it tells what the score would do with other regions; docs/results.md says how often it names the right one "
    "where that is known, and a region that differs much can hide another"
)

_AMORTISED = (
    "a network trained for this recognizer says what planting regions would show, without planting them; "
    "docs/results.md says how often it names the right one where that is known, and a region that differs much can "
    "hide another"
)

_EXCHANGED = (
    "its maps say where the partner's pixels raise the score, so nearly all of them is negative, and only "
    "differences within a map mean anything"
)

_REPLACED = (
    "its maps say where pixels of nobody lower the score; seams do so, too, and where the faces differ there is "
    "nothing to lose"
)

_EXCITED = (
    "its plain maps are high wherever the network is excited, for a match or not, and its contrastive ones are small "
    "differences of two such maps; they are not yet validated on known evidence"
)

_ALL = (
    Method(
        name="amortised",
        title="Amortised evidence of regions",
        cls=Amortised,
        paper="ours",
        year=2026,
        needs="evidence",
        cost="2 forward a face",
        caveat=_AMORTISED,
    ),
    Method(
        name="counterfactual",
        title="Counterfactual evidence of regions",
        cls=Counterfactual,
        paper="ours",
        year=2026,
        needs="scores",
        cost="150 forward",
        caveat=_COUNTERFACTUAL,
    ),
    Method(
        name="exchange",
        title="Exchange with the partner's pixels",
        cls=Exchange,
        paper="ours, after Goyal et al., arXiv 1904.07451",
        year=2026,
        needs="scores",
        cost="1 + 366 forward a face (112×112)",
        caveat=_EXCHANGED,
    ),
    Method(
        name="replacement",
        title="Replacement by faces of nobody",
        cls=Replacement,
        paper="ours, after Goyal et al., arXiv 1904.07451",
        year=2026,
        needs="scores",
        cost="1 + 340 forward a face (112×112)",
        caveat=_REPLACED,
    ),
    Method(
        name="reconstruction",
        title="Reconstruction saliency",
        cls=ReconstructionSaliency,
        paper="after Xu, Lu and Ebrahimi, arXiv 2306.00402",
        year=2023,
        needs="decoder",
        cost="1 forward",
        caveat=_REGIONAL,
    ),
    Method(
        name="fggb",
        title="Feature-guided gradient backpropagation",
        cls=Fggb,
        paper="Lu, Xu and Ebrahimi, arXiv 2403.04549",
        year=2024,
        needs="gradient",
        cost="1 forward, D backward",
        caveat=_NOT_VALIDATED,
    ),
    Method(
        name="xssab",
        title="Similarity score argument backpropagation",
        cls=Xssab,
        paper="Huber, Luu, Terhörst and Damer, arXiv 2304.13409",
        year=2024,
        needs="gradient",
        cost="1 forward, 2 backward",
        caveat=_NOT_VALIDATED,
    ),
    Method(
        name="corrrise",
        title="Correlation with random masks",
        cls=CorrRise,
        paper="Lu, Xu and Ebrahimi, arXiv 2305.08546",
        year=2024,
        needs="scores",
        cost="1 + 500 forward a face",
        caveat=_MASKED,
    ),
    Method(
        name="srise",
        title="Similarity-weighted random masks",
        cls=SRise,
        paper="Lu and Ebrahimi, arXiv 2304.06118",
        year=2023,
        needs="scores",
        cost="1 + 500 forward a face",
        caveat=_MASKED,
    ),
    Method(
        name="xface",
        title="Systematic occlusion",
        cls=XFace,
        paper="Knoche, Teepe, Hörmann and Rigoll, arXiv 2211.13735",
        year=2023,
        needs="scores",
        cost="1 + 1249 forward a face (112×112)",
        caveat=_MASKED,
    ),
    Method(
        name="mery_avg",
        title="Removal and aggregation of regions",
        cls=MeryAvg,
        paper="Mery and Morris, WACV 2022",
        year=2022,
        needs="scores",
        cost="1 + 394 forward a face (112×112)",
        caveat=_MASKED,
    ),
    Method(
        name="minplus",
        title="Greedy removal and aggregation of regions",
        cls=MinPlus,
        paper="Mery, CVPRW 2022",
        year=2022,
        needs="scores",
        cost="1 + 1182 forward a face (112×112)",
        caveat=_MASKED,
    ),
    Method(
        name="lrp",
        title="Layer-wise relevance of the cosine score",
        cls=LrpSaliency,
        paper="Bach et al., PLOS ONE 2015; Zennit, arXiv 2106.13200",
        year=2015,
        needs="composite",
        cost="1 forward, 1 relevance pass",
        caveat=_NOT_VALIDATED,
    ),
    Method(
        name="channel_relevance",
        title="Saliency from channel maps by relevance",
        cls=ChannelRelevanceSaliency,
        paper="after Xu, Lu and Ebrahimi, arXiv 2306.00402",
        year=2023,
        needs="composite",
        cost="1 forward, D relevance passes",
        caveat=_NOT_VALIDATED,
    ),
    Method(
        name="ebp",
        title="Excitation backpropagation",
        cls=Ebp,
        paper="Williford, May and Byrne, arXiv 2008.00916",
        year=2020,
        needs="composite",
        cost="1 forward, 1 relevance pass (2 with contrast)",
        caveat=_EXCITED,
    ),
    Method(
        name="integrated_gradients",
        title="Integrated gradients",
        cls=PairIntegratedGradients,
        paper="Sundararajan, Taly and Yan, arXiv 1703.01365",
        year=2017,
        needs="gradient",
        cost="1 forward; 50 forward and backward a face",
        caveat=_AGAINST_BASELINE,
    ),
    Method(
        name="input_x_gradient",
        title="Input times gradient",
        cls=PairInputXGradient,
        paper="Shrikumar, Greenside, Shcherbina and Kundaje, arXiv 1605.01713",
        year=2016,
        needs="gradient",
        cost="1 forward; 1 forward and backward a face",
        caveat=_AGAINST_BASELINE,
    ),
    Method(
        name="smoothgrad",
        title="SmoothGrad",
        cls=PairSmoothGrad,
        paper="Smilkov, Thorat, Kim, Viégas and Wattenberg, arXiv 1706.03825",
        year=2017,
        needs="gradient",
        cost="1 forward; 50 forward and backward a face",
        caveat=_BRIGHTER,
    ),
    Method(
        name="deeplift",
        title="DeepLift, rescale rule",
        cls=PairDeepLift,
        paper="Shrikumar, Greenside and Kundaje, arXiv 1704.02685",
        year=2017,
        needs="gradient",
        cost="1 forward; 2 forward and backward a face",
        caveat=_AGAINST_BASELINE,
    ),
    Method(
        name="occlusion",
        title="Occlusion",
        cls=PairOcclusion,
        paper="Zeiler and Fergus, arXiv 1311.2901",
        year=2014,
        needs="scores",
        cost="1 + 226 forward a face",
        caveat=_MASKED,
    ),
    Method(
        name="lime",
        title="LIME on superpixels",
        cls=PairLime,
        paper="Ribeiro, Singh and Guestrin, arXiv 1602.04938",
        year=2016,
        needs="scores",
        cost="1 + 200 forward a face",
        caveat=_SAMPLED,
    ),
    Method(
        name="kernel_shap",
        title="KernelSHAP on superpixels",
        cls=PairKernelShap,
        paper="Lundberg and Lee, arXiv 1705.07874",
        year=2017,
        needs="scores",
        cost="1 + 200 forward a face",
        caveat=_SAMPLED,
    ),
    Method(
        name="gradcam",
        title="Grad-CAM of the cosine, both signs",
        cls=GradCam,
        paper="Selvaraju et al., arXiv 1610.02391",
        year=2017,
        needs="gradient",
        cost="2 forward; 1 forward and backward a face",
        caveat=_COARSE,
    ),
    Method(
        name="gradcam_plus_plus",
        title="Grad-CAM++ of the cosine, both signs",
        cls=GradCamPlusPlus,
        paper="Chattopadhay, Sarkar, Howlader and Balasubramanian, arXiv 1710.11063",
        year=2018,
        needs="gradient",
        cost="2 forward; 1 forward and backward a face",
        caveat=_COARSE,
    ),
    Method(
        name="score_cam",
        title="Score-CAM of the cosine, both signs",
        cls=ScoreCam,
        paper="Wang et al., arXiv 1910.01279",
        year=2020,
        needs="gradient",
        cost="a forward for each channel of a layer, a face",
        caveat=_COARSE,
    ),
    Method(
        name="fame",
        title="Feature changes by small gradient steps",
        cls=Fame,
        paper="arXiv 2605.12017",
        year=2026,
        needs="gradient",
        cost="1 forward; 150 forward and backward a face",
        caveat=_ADVERSARIAL,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Method name → method."""


def default_method(recognizer: Recognizer) -> str:
    """Name of the method that explains unless another is asked for.

    On evidence whose place is known `amortised` points best (docs/results.md); it is the default where an evidence
    network ships for the recognizer. Otherwise `counterfactual`, which needs nothing but scores and takes 150 forward
    passes; see `fast_method` for one or two.
    """
    return "counterfactual" if evidence_file(recognizer) is None else "amortised"


def fast_method(recognizer: Recognizer) -> str:
    """Name of the method to take where `counterfactual` is too slow.

    `amortised` where an evidence network ships for the recognizer, or else `reconstruction` where a decoder with
    regional evidence does: of the methods that take a few passes these point best (docs/results.md). Otherwise
    `xssab`, which needs nothing but the network.
    """
    if evidence_file(recognizer) is not None:
        return "amortised"
    try:
        decoder = find_decoder(recognizer)
    except InputError:
        return "xssab"
    return "xssab" if decoder.regional is None else "reconstruction"


def get_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        UnknownNameError: no method of this name.
    """
    if name not in METHODS:
        raise UnknownNameError.of("method", name, METHODS)
    return METHODS[name]


def chosen_method(name: str | None, recognizer: Recognizer) -> Method:
    """Return a method by name; the recognizer's default method for `auto` or None.

    Raises:
        UnknownNameError: no method of this name.
    """
    return get_method(default_method(recognizer) if name in (None, AUTO) else name)
