"""Faces: from a photo to an aligned face, and its named regions."""

from xfr_plugin.faces.alignment import ARCFACE_TEMPLATE, Landmarks, align, fit_aligned, template
from xfr_plugin.faces.detection import Box, DetectedFace, Detector, LandmarkModel
from xfr_plugin.faces.photo import MAX_PIXELS, PhotoSource, load_photo
from xfr_plugin.faces.preparation import AlignedFace, Alignment, prepare_face
from xfr_plugin.faces.regions import REGION_NAMES, RegionMap, mesh_regions, template_regions

__all__ = [
    "ARCFACE_TEMPLATE",
    "MAX_PIXELS",
    "REGION_NAMES",
    "AlignedFace",
    "Alignment",
    "Box",
    "DetectedFace",
    "Detector",
    "LandmarkModel",
    "Landmarks",
    "PhotoSource",
    "RegionMap",
    "align",
    "fit_aligned",
    "load_photo",
    "mesh_regions",
    "prepare_face",
    "template",
    "template_regions",
]
