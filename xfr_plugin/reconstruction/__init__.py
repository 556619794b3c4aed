"""Reconstruction: from an embedding back to a face, and which part of the face each channel speaks about."""

from xfr_plugin.reconstruction.decoder import Decoder, DecoderCard
from xfr_plugin.reconstruction.files import find_decoder, list_decoders, load_decoder, save_decoder
from xfr_plugin.reconstruction.network import DecoderNetwork
from xfr_plugin.reconstruction.regional import RegionalEvidence

__all__ = [
    "Decoder",
    "DecoderCard",
    "DecoderNetwork",
    "RegionalEvidence",
    "find_decoder",
    "list_decoders",
    "load_decoder",
    "save_decoder",
]
