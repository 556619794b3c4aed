"""Writing and reading decoders, and finding the one that belongs to a recognizer."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from xfr_plugin.base.devices import check_device
from xfr_plugin.base.randomness import seeded
from xfr_plugin.base.weights import (
    load_state_dict_into,
    parse_card,
    read_weights,
    shipped_documents,
    write_weights,
)
from xfr_plugin.errors import InputError, LayoutError, WeightsError
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.reconstruction.decoder import Decoder, DecoderCard
from xfr_plugin.reconstruction.regional import RegionalEvidence

__all__ = ["find_decoder", "list_decoders", "load_decoder", "save_decoder"]

_CARD_KEY = "decoder"
_EXTRAS = ("atlas", "mean_embedding", "mean_face")
_REGIONAL = ("shifts", "moments", "maps", "areas")
_NETWORK = "network."


def save_decoder(decoder: Decoder, path: str | os.PathLike[str]) -> None:
    """Write a decoder in 16 bits (BatchNorm in 32), with atlas and card, whole or not at all.

    Raises:
        InputError: the suffix is not `.safetensors`.
    """
    state = {name: value.half() if value.ndim > 1 else value for name, value in decoder.state_dict().items()}
    # halving alone would push the atlas' small values, which sum to one, below the normal 16-bit range
    for name in ("atlas", "regional.maps"):
        if name in state:
            maps = decoder.get_buffer(name)
            state[name] = (maps / maps.max().clamp_min(1e-12)).half()
    if decoder.regional is not None:
        state["regional.moments"] = decoder.regional.moments
    write_weights(path, state, {_CARD_KEY: decoder.card.model_dump(mode="json")})


def load_decoder(
    source: str | os.PathLike[str], recognizer: Recognizer | None = None, device: str | torch.device = "cpu"
) -> Decoder:
    """Load a decoder by name (see `list_decoders`) or from a file.

    Args:
        source: name or path.
        recognizer: the recognizer whose embeddings are to be decoded; the decoder must be its own.
        device: where to compute.

    Raises:
        WeightsError: the file is missing, damaged, no decoder, or (`LayoutError`) does not fit its card.
        InputError: the decoder was trained for another recognizer, or the device does not exist here.
    """
    path = list_decoders().get(os.fspath(source), Path(source))
    state, metadata = read_weights(path)
    if _CARD_KEY not in metadata:
        raise WeightsError(f"{path.name} holds no decoder: train one with `xfr train decoder`")
    card = parse_card(DecoderCard, metadata[_CARD_KEY], path.name)
    with seeded(0):  # networks are born with random weights
        network = card.build_network()
    own = {name.removeprefix(_NETWORK): v.float() for name, v in state.items() if name.startswith(_NETWORK)}
    load_state_dict_into(network, own, path.name)
    extras = _extras(state, card, path)
    extras["atlas"] = extras["atlas"] / extras["atlas"].sum(dim=(1, 2), keepdim=True)
    regional = _regional(state, path)
    decoder = Decoder(network.requires_grad_(False), card, **extras, regional=regional)
    decoder.to(check_device(device))
    if recognizer is not None:
        decoder.check_recognizer(recognizer)
    return decoder


def find_decoder(recognizer: Recognizer) -> Decoder:
    """The decoder that ships with the package for this recognizer, on the recognizer's device.

    Raises:
        InputError: there is none.
    """
    wanted = fingerprint(recognizer)
    for path, card in _shipped_cards().items():
        if card.recognizer_sha256 == wanted:
            return load_decoder(path, device=recognizer.device)
    raise InputError(
        f"no decoder ships for recognizer {recognizer.name!r}: train one with `xfr train decoder --recognizer …` "
        "and pass it as decoder=…"
    )


def list_decoders() -> dict[str, Path]:
    """Files of the decoders that ship with the package, by name."""
    return {card.name: path for path, card in _shipped_cards().items()}


def _shipped_cards() -> dict[Path, DecoderCard]:
    documents = shipped_documents(_CARD_KEY)
    return {path: parse_card(DecoderCard, document, path.name) for path, document in documents.items()}


def _extras(state: dict[str, Tensor], card: DecoderCard, path: Path) -> dict[str, Tensor]:
    shapes = {"mean_embedding": (card.embedding_dim,), "mean_face": (3, *card.output_size)}
    for name in _EXTRAS:
        if name not in state:
            raise LayoutError(f"{path.name} lacks the decoder's {name}: get the file again")
        found = tuple(state[name].shape)
        if found != shapes.get(name, (card.embedding_dim, *found[1:])) or (
            name == "atlas" and len(found) != 3
        ):
            raise LayoutError(f"{path.name}: {name} has shape {found}, which does not fit its card")
    return {name: state[name].float() for name in _EXTRAS}


def _regional(state: dict[str, Tensor], path: Path) -> RegionalEvidence | None:
    tensors = {name: state[key].float() for name in _REGIONAL if (key := f"regional.{name}") in state}
    if not tensors:
        return None
    if len(tensors) < len(_REGIONAL):
        raise LayoutError(f"{path.name} holds only a part of its regional evidence: get the file again")
    try:
        return RegionalEvidence(**tensors)
    except InputError as error:
        raise LayoutError(f"{path.name}: {error}") from error
