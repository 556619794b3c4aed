"""Runs the example in the docstring of an attribution class."""

from __future__ import annotations

import doctest
import io
import warnings
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers.serving_faces import crops
from xfr_plugin.attr import Method
from xfr_plugin.recognition import load_recognizer


def run_example(method: Method) -> None:
    """Run it with what `xfr_plugin.attr` says that examples suppose, and small values for options that it leaves out.

    Raises:
        AssertionError: there is none, or it does not say what is true.
    """
    name, told = method.cls.__name__, io.StringIO()
    test = doctest.DocTestParser().get_doctest(
        method.cls.__doc__ or "", {**_supposed(), name: _tried(method)}, name, None, None
    )
    assert any(name in example.source for example in test.examples), f"{name} has no example"
    with warnings.catch_warnings():
        for message in ("Setting backward hooks", "Input Tensor"):  # what Captum tells its users each time
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        failures = doctest.DocTestRunner().run(test, out=told.write).failed
    assert not failures, told.getvalue()


def _tried(method: Method) -> Any:
    tried: Any = partial(method.cls, **method.trial_options)
    if hasattr(method.cls, "from_scores"):
        tried.from_scores = partial(method.cls.from_scores, **method.trial_options)
    return tried


@cache
def _supposed() -> dict[str, Any]:
    faces = [np.asarray(Image.open(io.BytesIO(crop)), dtype=np.float32) / 255 for crop in crops(2)]
    probe, reference = (torch.from_numpy(face).permute(2, 0, 1)[None] for face in faces)
    recognizer = load_recognizer("xfr_compact128")
    return {"torch": torch, "recognizer": recognizer, "probe": probe, "reference": reference}
