"""Reconstruction: from an embedding back to a face, and which part of the face each channel speaks about."""

from xfr_plugin.reconstruction.atlas import ablated, channel_atlas, channel_differences, normalised_maps
from xfr_plugin.reconstruction.decoder import Decoder, DecoderCard, fingerprint
from xfr_plugin.reconstruction.files import find_decoder, list_decoders, load_decoder, save_decoder
from xfr_plugin.reconstruction.network import DecoderNetwork
from xfr_plugin.reconstruction.regional import RegionalEvidence
from xfr_plugin.reconstruction.regional_fit import fit_regional

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
    "fit_regional",
    "list_decoders",
    "load_decoder",
    "normalised_maps",
    "save_decoder",
]
