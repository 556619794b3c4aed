"""Reconstruction: from an embedding back to a face, and which part of the face each channel speaks about."""

from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.reconstruction.atlas import ablated, channel_atlas, channel_differences, normalised_maps
from xfr_plugin.reconstruction.decoder import Decoder, DecoderCard
from xfr_plugin.reconstruction.files import find_decoder, list_decoders, load_decoder, save_decoder
from xfr_plugin.reconstruction.network import DecoderNetwork
from xfr_plugin.reconstruction.regional import RegionalEvidence

__all__ = [
    "Decoder",
    "DecoderCard",
    "DecoderNetwork",
    "RegionalEvidence",
    "ablated",
    "channel_atlas",
    "channel_differences",
    "find_decoder",
    "fingerprint",
    "list_decoders",
    "load_decoder",
    "normalised_maps",
    "save_decoder",
]
