"""What a channel of an embedding says about the face, seen through the decoder.

The face reconstruction-based explanation module, after Xu, Lu and Ebrahimi (MMSP 2023, arXiv 2306.00402).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.base.captum import (
    Attribution,
    _format_additional_forward_args,
    _format_output,
    _select_targets,
    log_usage,
)
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.channels.decoded import MapNorm, Response, decoded_changes, sized_maps
from xfr_plugin.channels.dwelling import Dwelling, dwelling
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.reconstruction.decoder import Decoder
from xfr_plugin.reconstruction.files import find_decoder, load_decoder

__all__ = ["Ablation", "DecoderSource", "ReconstructionExplainer", "StrongestChannels", "open_decoder"]

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])

Target: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None

Ablation: TypeAlias = Literal["zero", "mean", "partner"]
"""What replaces a channel: zero, its mean over the decoder's training faces, or the partner's value."""

DecoderSource: TypeAlias = Decoder | str | os.PathLike[str] | None
"""A decoder, what `load_decoder` takes, or None for the one that ships for the recognizer."""


@dataclass(frozen=True)
class StrongestChannels:
    """The channels whose replacement changes the decoded face most, strongest first.

    Attributes:
        channels: indices, N×n.
        values: of the unit embeddings there, N×n.
        changes: mean magnitude of the change over the decoded face's pixels and colours (0…1), N×n.
    """

    channels: Tensor
    values: Tensor
    changes: Tensor


class ReconstructionExplainer(Attribution):  # type: ignore[misc]  # Captum is not typed for mypy here
    """Where on the face a channel of its embedding lives: M_k = mean over RGB of |D(e) − D(e without channel k)|.

    D is the recognizer's decoder and e the unit embedding. The target is the channel. Maps have the input's shape and
    are resized from the decoder's size before they are normalised; the map of the pixels is the sum over colours,
    each of which holds an equal part. No gradient of the recognizer is computed, and none of the decoder but for
    `response="gradient"`, which works without autograd too (forward mode).

    The map describes an embedding, as the decoder paints it; that it describes what the recognizer looked at is an
    assumption. There is no convergence delta: nothing says what a channel's map should add up to.

    Args:
        forward_func: maps images N×C×H×W (and further arguments) to embeddings N×D, normalised or not.
        decoder: see `DecoderSource`. One that is named is checked to belong to a `Recognizer`; a `Decoder` is
            taken as it is. Computes where it is and in its own type.
        ablation: see `Ablation`. With `partner`, the first of the further arguments is the partner's embedding.
        response: `ablation`, or `gradient`: |∂D/∂e_k|, the limit of small replacements. A channel whose
            value is near its replacement has an ablation map of little but rounding errors; its gradient is sound.
        norm: of the map, at the input's size: `l1` (magnitudes add up to one), `l2`, or `none` (units of
            intensity, 0…1).
        source: this `face`'s embedding, or the `atlas`, the average over training faces (no decoding, the same
            map for every face; made by zero ablation, with each face's maps L1-normalised).
        signed: the change itself: positive where the channel's being there (or growing) makes the face brighter.
            Says nothing about arguing for a match.
        batch_size: how many faces to decode at once; bounds memory.

    Raises:
        InputError: an unknown option, options that exclude each other, or no decoder for this recognizer.
        WeightsError: the decoder's file cannot be used.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        decoder: DecoderSource = None,
        *,
        ablation: Ablation = "zero",
        response: Response = "ablation",
        norm: MapNorm = "l1",
        source: Literal["face", "atlas"] = "face",
        signed: bool = False,
        batch_size: int = 64,
    ) -> None:
        super().__init__(forward_func)
        if response == "gradient" and ablation != "zero":
            raise InputError("response='gradient' replaces nothing: leave ablation out")
        if source == "atlas" and (signed or ablation != "zero" or response != "ablation"):
            raise InputError("the atlas holds magnitudes by zero ablation: use source='face' for other maps")
        self.decoder = open_decoder(decoder, forward_func)
        self.ablation: Ablation = checked_choice("ablation", ablation, "zero", "mean", "partner")
        self.response: Response = checked_choice("response", response, "ablation", "gradient")
        self.norm: MapNorm = checked_choice("norm", norm, "l1", "l2", "none")
        self.source = checked_choice("source", source, "face", "atlas")
        self.signed = signed
        self.batch_size = checked_at_least("batch_size", batch_size, 1)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether maps carry the factor input − baseline (Captum); these do not."""
        return False

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # Captum, as above
    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: object | None = None,
    ) -> Inputs:
        """Map one channel of each face's embedding.

        Args:
            inputs: faces, N×C×H×W, or a tuple of one such tensor.
            target: the channel: one for all faces (int, tuple of one int, tensor of one value) or one for each
                (list, tensor).
            additional_forward_args: further arguments of the forward function; with `ablation="partner"` after
                the partner's embedding N×D (or D, or 1×D, for all).

        Returns:
            Maps: a tensor or tuple like `inputs`, on its device and of its type.

        Raises:
            AssertionError: no target, or one that Captum refuses for outputs N×D.
            InputError: a channel that does not exist, or inputs that make no sense.
        """
        images = _one_input(inputs)
        channels = self._channels(target, len(images))[:, None]
        if self.source == "atlas":
            maps = self.decoder.atlas[channels]
        else:
            maps = self._changes(*self._read(images, additional_forward_args), channels)
        sized = sized_maps(maps, _size(images), self.norm).to(images) / images.shape[1]
        output: Inputs = _format_output(isinstance(inputs, tuple), (sized.expand_as(images).contiguous(),))
        return output

    def all_channels(self, inputs: Tensor, additional_forward_args: object | None = None) -> Tensor:
        """Maps of all channels of faces N×C×H×W, summed over colours: N×D×H×W; see `attribute` for arguments."""
        images = _one_input(inputs)
        if self.source == "atlas":
            return self._atlas(_size(images)).to(images).expand(len(images), -1, -1, -1)
        return self._every_map(*self._read(images, additional_forward_args), _size(images)).to(images)

    def explain_embedding(self, embedding: Tensor, partner: Tensor | None = None) -> Tensor:
        """Maps of all channels from embeddings alone, at the recognizer's input size.

        Args:
            embedding: N×D or D, normalised or not.
            partner: embeddings N×D (or D, or 1×D, for all), for `ablation="partner"`.

        Returns:
            N×D×H×W, or D×H×W for one embedding D; on the decoder's device.
        """
        maps = self.embedding_maps(embedding, None, self.decoder.card.input_size, partner)
        return maps[0] if embedding.ndim == 1 else maps

    def embedding_maps(
        self,
        embeddings: Tensor,
        channels: Tensor | None,
        size: tuple[int, int],
        partner: Tensor | None = None,
    ) -> Tensor:
        """Maps of the same channels K (all, if None) of embeddings N×D, at any size: N×K×H×W."""
        units, partners = self._read(embeddings, partner)
        if self.source == "atlas":
            atlas = self._atlas(size)
            return (atlas if channels is None else atlas[channels]).expand(len(units), -1, -1, -1)
        return self._every_map(units, partners, size, channels)

    def reconstruct(self, faces: Tensor, additional_forward_args: object | None = None) -> Tensor:
        """Decode faces N×3×H×W, or embeddings N×D or D, to N×3×H×W in [0, 1] at the recognizer's input size.

        A reconstruction is a likeness of the person: see the warning at `Decoder`.
        """
        units, _ = self._read(faces, additional_forward_args)
        with torch.no_grad():
            return torch.cat([self.decoder.faces(chunk) for chunk in units.split(self.batch_size)])

    def strongest_channels(
        self, faces: Tensor, n: int = 8, additional_forward_args: object | None = None
    ) -> StrongestChannels:
        """Find the channels that the decoded face depends on most, by this explainer's ablation or gradient.

        Args:
            faces: N×3×H×W, or embeddings N×D or D.
            n: how many channels.
            additional_forward_args: see `attribute`.

        Raises:
            InputError: n is not between 1 and D, or the explainer reads the atlas.
        """
        if self.source == "atlas":
            raise InputError("the atlas does not know how strong a channel is in a face: use source='face'")
        if not 1 <= n <= self.decoder.card.embedding_dim:
            raise InputError(f"n must be between 1 and {self.decoder.card.embedding_dim}, got {n}")
        units, partners = self._read(faces, additional_forward_args)
        # magnitudes: with signs, brighter and darker places would cancel
        means = [
            self._changes(unit, partner, signed=False).mean(dim=(2, 3))
            for unit, partner in _one_by_one(units, partners)
        ]
        best = torch.cat(means).topk(n, dim=1)
        return StrongestChannels(best.indices, units.gather(1, best.indices), best.values)

    def dwelling(
        self,
        faces: Tensor,
        population: Tensor | None = None,
        regions: RegionMap | None = None,
        additional_forward_args: object | None = None,
    ) -> Dwelling:
        """Which regions the faces' own embeddings dwell on, by zero ablation or the atlas; see `channels.dwelling`.

        Args:
            faces: N×3×H×W, or embeddings N×D or D.
            population: embeddings P×D of other people to compare with.
            regions: at the recognizer's input size; those of the template, if left out.
            additional_forward_args: see `attribute`.
        """
        units, _ = self._read(faces, additional_forward_args)
        people = None if population is None else self._units(population)
        return dwelling(self.decoder, units, people, regions, source=self.source, batch_size=self.batch_size)

    def _channels(self, target: Target, count: int) -> Tensor:
        """Index of each face's channel, N, selected by Captum's own rules."""
        dim = self.decoder.card.embedding_dim
        grid = torch.arange(dim).expand(count, -1)
        try:
            channels: Tensor = _select_targets(grid, target.cpu() if isinstance(target, Tensor) else target)
        except (IndexError, RuntimeError) as error:
            raise InputError(
                f"target must name channels of the embedding, 0 to {dim - 1}: {error}"
            ) from error
        # Captum's own kind of error for a target that is missing or selects more than one output
        assert channels.ndim == 1, (
            f"target {target!r} does not select one channel of the embedding for each face"
        )
        return channels

    def _read(self, faces: Tensor, arguments: object | None) -> tuple[Tensor, Tensor | None]:
        """Unit embeddings of faces (or of embeddings, given as they are), and of their partners."""
        further: tuple[Any, ...] = _format_additional_forward_args(arguments) or ()
        partner = None
        if self.ablation == "partner" and further:
            partner, further = further[0], further[1:]
        if not isinstance(faces, Tensor):
            raise InputError(f"faces N×3×H×W or embeddings N×D must be a tensor, not {type(faces).__name__}")
        with torch.no_grad():
            units = self._units(self.forward_func(faces, *further) if faces.ndim == 4 else faces)
        return units, None if partner is None else self._partners(partner, units)

    def _units(self, embeddings: Tensor) -> Tensor:
        dim = self.decoder.card.embedding_dim
        rows = embeddings[None] if embeddings.ndim == 1 else embeddings
        if rows.ndim != 2 or rows.shape[1] != dim or not len(rows):
            raise InputError(
                f"decoder {self.decoder.card.name!r} decodes embeddings N×{dim}, got shape {tuple(embeddings.shape)}"
            )
        if not bool(rows.isfinite().all() and rows.any(dim=1).all()):
            raise InputError("an embedding is zero, not a number or infinite, and so is of no face")
        return functional.normalize(rows.detach().to(self.decoder.mean_embedding), dim=1)

    def _partners(self, partner: object, units: Tensor) -> Tensor:
        rows = self._units(partner) if isinstance(partner, Tensor) else None
        if rows is None or len(rows) not in (1, len(units)):
            raise InputError(
                f"the partner must be an embedding for each of {len(units)} faces, or one for all"
            )
        return rows.expand_as(units)

    def _changes(
        self,
        units: Tensor,
        partners: Tensor | None,
        channels: Tensor | None = None,
        signed: bool | None = None,
    ) -> Tensor:
        """Changes N×K×h×w at the decoder's size, of some channels N×K or all."""
        every = torch.arange(units.shape[1]).expand(len(units), -1)
        replacement: Tensor | float | None = {"mean": self.decoder.mean_embedding, "partner": partners}.get(
            self.ablation, 0.0
        )
        if replacement is None:
            raise InputError(
                "ablation='partner' needs the partner's embedding (N×D) as the first of additional_forward_args"
            )
        return decoded_changes(
            self.decoder,
            units,
            every if channels is None else channels,
            replacement,
            response=self.response,
            signed=self.signed if signed is None else signed,
            batch_size=self.batch_size,
        )

    def _every_map(
        self,
        units: Tensor,
        partners: Tensor | None,
        size: tuple[int, int],
        channels: Tensor | None = None,
    ) -> Tensor:
        chosen = None if channels is None else channels[None]
        faces = _one_by_one(units, partners)
        return torch.cat([sized_maps(self._changes(*face, chosen), size, self.norm) for face in faces])

    def _atlas(self, size: tuple[int, int]) -> Tensor:
        return sized_maps(self.decoder.atlas, size, self.norm)


def open_decoder(decoder: DecoderSource, function: Callable[..., Tensor]) -> Decoder:
    """Open a decoder for a forward function, see `DecoderSource`.

    Raises:
        InputError: none is given, and none ships for the function.
        WeightsError: the decoder's file cannot be used.
    """
    if isinstance(decoder, Decoder):
        return decoder
    recognizer = function if isinstance(function, Recognizer) else None
    if decoder is not None:
        return load_decoder(decoder, recognizer, "cpu" if recognizer is None else recognizer.device)
    if recognizer is None:
        raise InputError("pass decoder=…: only for a Recognizer is one looked up")
    return find_decoder(recognizer)


def _one_input(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    images = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(images) != 1 or not isinstance(images[0], Tensor) or images[0].ndim != 4 or not len(images[0]):
        raise InputError("inputs must be faces N×C×H×W, as one tensor or a tuple of one")
    if not images[0].is_floating_point():
        raise InputError(f"faces must be of floats, as their maps are, not {images[0].dtype}: divide by 255")
    return images[0]


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _one_by_one(units: Tensor, partners: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Face by face, so that memory does not grow with faces × channels."""
    return [(units[i : i + 1], None if partners is None else partners[i : i + 1]) for i in range(len(units))]
