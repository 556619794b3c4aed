"""What each region of a face does to its embedding: computed once a face, and then every partner is one product.

The score is a cosine, linear in the embedding of one face when the other stays. So the game that the regions play can
be played for all D numbers of the embedding at once. From the effects E (R×D) of a face follow, exactly,

- its regions' values against any partner b: E b, for a gallery of n partners one product more;
- which region of A goes with which of B, E_A E_Bᵀ, of R×R numbers that add up;
- which channels of the embedding a region stands for, and the other way round.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL
from xfr_plugin.attr.intervention.attribution import RegionIntervention, Side
from xfr_plugin.base.files import make_folder
from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["FaceEffects", "interactions", "region_effects"]


@dataclass(frozen=True, eq=False)
class FaceEffects:
    """What each region does to the embedding of one face.

    Attributes:
        players: names of the regions, R.
        effects: mean over donors, R×D; zero for regions that the face does not show.
        whole: unit embedding of the face, D.
    """

    players: tuple[str, ...]
    effects: Tensor
    whole: Tensor

    @property
    def empty(self) -> Tensor:
        """What is left of the embedding when the effects are taken off, D."""
        return self.whole - self.effects.sum(dim=0)

    def values(self, partners: Tensor) -> Tensor:
        """Values of the regions against unit embeddings of partners, D or n×D: R, or n×R."""
        return partners.to(self.effects) @ self.effects.T


def interactions(probe: FaceEffects, reference: FaceEffects) -> Tensor:
    """How much each region of a probe brings to the score together with each one of a reference, R×R.

    They sum to v(N,N) − v(N,∅) − v(∅,N) + v(∅,∅), where v(S,T) is the expected score when only S of the probe and
    T of
    the reference are known: all 2^2R coalitions of both faces, exactly, by one product. Donors of the two faces
    should be different people (`donors_from` of `region_effects`), or two emptied faces are one person.
    """
    return probe.effects @ reference.effects.to(probe.effects).T


@torch.no_grad()
def region_effects(
    attribution: RegionIntervention,
    images: Tensor,
    *,
    regions: Sequence[RegionMap] | None = None,
    donors_from: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> list[FaceEffects]:
    """Play the game of an attribution for the embeddings of faces.

    Args:
        attribution: says which game, with which donors; of a `Recognizer`, or of any function to embeddings.
        images: N×C×H×W in [0, 1].
        regions: named regions of the faces, if they are known.
        donors_from: leave out so many composite faces, so that others stand for strangers.
        cache: folder in which effects of a recognizer's faces are kept, a file each, by what they follow from.

    Raises:
        InputError: a function that gives scores alone; a cache for anything but a recognizer.
        OutputError: the folder cannot be made.
    """
    if attribution.scores_only or attribution.operator == "partner":
        raise InputError(
            "effects on embeddings need embeddings, and removal that does not depend on a partner"
        )
    kept = None if cache is None else _Cache(Path(cache), attribution, donors_from)
    found = [None if kept is None else kept.read(image) for image in images]
    missing = [place for place, effects in enumerate(found) if effects is None]
    if missing:
        known = None if regions is None else [regions[place] for place in missing]
        for place, effects in zip(
            missing, _computed(attribution, images[missing], known, donors_from), strict=True
        ):
            found[place] = effects
            if kept is not None:
                kept.write(images[place], effects)
    return [effects for effects in found if effects is not None]


def _computed(
    attribution: RegionIntervention, images: Tensor, regions: Sequence[RegionMap] | None, donors_from: int
) -> list[FaceEffects]:
    limit = PERTURBATIONS_PER_EVAL
    embed = attribution._embed_rows(Pair(images, None, ()), limit)
    removal = attribution._removal(images, donors_from)
    result = []
    for place, own in enumerate(attribution._players(images, regions)):

        def read(faces: Tensor, place: int = place) -> Tensor:
            return embed(faces, torch.full((len(faces),), place, device=faces.device))

        whole = read(images[place][None])[0]
        values = attribution._values(Side(images[place], own, whole), None, removal, limit, read, whole)
        result.append(FaceEffects(own.names, values.mean(dim=0), whole))
    return result


class _Cache:
    """Effects in files named by a checksum of what they follow from."""

    def __init__(self, folder: Path, attribution: RegionIntervention, donors_from: int) -> None:
        if not isinstance(attribution.forward_func, Recognizer):
            raise InputError(
                "effects are kept for recognizers only: of another function nothing says what it is"
            )
        make_folder(folder)
        self.folder = folder
        self._settings = json.dumps(
            [fingerprint(attribution.forward_func), attribution.settings(), donors_from]
        )

    def read(self, image: Tensor) -> FaceEffects | None:
        path = self._path(image)
        if not path.is_file():
            return None
        try:
            state, metadata = read_weights(path)
            return FaceEffects(tuple(metadata["players"]), state["effects"], state["whole"])
        except (WeightsError, KeyError):
            return None  # half a file, or another's: it is computed again

    def write(self, image: Tensor, effects: FaceEffects) -> None:
        state = {"effects": effects.effects.cpu(), "whole": effects.whole.cpu()}
        write_weights(self._path(image), state, {"players": list(effects.players)})

    def _path(self, image: Tensor) -> Path:
        digest = hashlib.sha256(self._settings.encode())
        digest.update(image.detach().cpu().contiguous().numpy().tobytes())
        return self.folder / f"{digest.hexdigest()}.safetensors"
