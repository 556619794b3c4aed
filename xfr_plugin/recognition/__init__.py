"""Recognizers: preprocessing, network, normalised embedding, threshold; the zoo; calibration."""

from xfr_plugin.recognition.calibration import Calibration, OperatingPoint, calibrate
from xfr_plugin.recognition.networks import ARCHITECTURES, build_network
from xfr_plugin.recognition.recognizer import Provenance, Recognizer
from xfr_plugin.recognition.zoo import (
    RecognizerCard,
    list_recognizers,
    load_recognizer,
    save_recognizer,
    zoo_card,
)

__all__ = [
    "ARCHITECTURES",
    "Calibration",
    "OperatingPoint",
    "Provenance",
    "Recognizer",
    "RecognizerCard",
    "build_network",
    "calibrate",
    "list_recognizers",
    "load_recognizer",
    "save_recognizer",
    "zoo_card",
]
