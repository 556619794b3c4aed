"""Proof that a refactoring changed nothing: behaviour, numbers and the public API, recorded before and after.

    python benchmarks/equality.py write before            # in the old tree
    python benchmarks/equality.py write after             # in the new one
    python benchmarks/equality.py compare before after

Both run in the root of the tree that they record. `write` runs the package through its public names on fixed inputs
and stores what came out, for each section as soon as it is done: `<section>.json`, a flat table of paths and values,
and `<section>.npz`, the arrays. `--only explain,cli` takes these sections alone, and leaves what the folder holds of
the others. `compare` prints every value that differs and exits with 1 if there is one; `--renamed` takes a JSON
object of keys (or of beginnings of paths, if they hold a slash) that were renamed on purpose, old → new.

Times, memory and versions are no behaviour. Data: the environment variable `XFR_DATA`, or `../shared/data`.
"""

from __future__ import annotations

import argparse
import base64
import csv
import dataclasses
import importlib
import importlib.util
import inspect
import io
import json
import math
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel
from skimage.data import astronaut
from torch import Tensor, nn

import xfr_plugin
from xfr_plugin import attr, channels, evaluation, faces, lrp, recognition, reconstruction, service

DATA = Path(os.environ.get("XFR_DATA", "../shared/data")).resolve()
CROPS, PHOTOS = DATA / "faces" / "lfw112", DATA / "faces" / "lfw250"
SMALL, LARGE = "xfr_compact128", "mobilefacenet_ms1m"

GENUINE = ("Abdullah_Gul/Abdullah_Gul_0013.jpg", "Abdullah_Gul/Abdullah_Gul_0014.jpg")
IMPOSTOR = ("Adel_Al-Jubeir/Adel_Al-Jubeir_0001.jpg", "Elisabeth_Welch/Elisabeth_Welch_0001.jpg")
OTHERS = ("Al_Pacino/Al_Pacino_0001.jpg", "Al_Pacino/Al_Pacino_0002.jpg", "Steve_Cox/Steve_Cox_0001.jpg")
ORIGINALS = ("AJ_Cook/AJ_Cook_0001.jpg", "AJ_Lamas/AJ_Lamas_0001.jpg")

NO_BEHAVIOUR = {
    "timings", "timings_ms", "seconds", "peak_memory", "version", "package", "model_version", "xfr-plugin",
}  # fmt: skip
"""Keys that are left out wherever they are: times, memory, versions."""

QUICKER: dict[str, dict[str, Any]] = {
    "corrrise": {"n_masks": 60},
    "srise": {"n_masks": 60},
    "xface": {"patch_sizes": (28,), "stride": 10},
    "mery_avg": {"stride": 16},
    "minplus": {"stride": 16, "rounds": 2},
    "integrated_gradients": {"n_steps": 8},
    "smoothgrad": {"n_samples": 6},
    "occlusion": {"window": 28, "stride": 14},
    "lime": {"n_parts": 20, "n_samples": 50},
    "kernel_shap": {"n_parts": 20, "n_samples": 50},
    "score_cam": {"max_channels": 32},
    "fame": {"steps": 10},
}
"""Options with which slow methods are quick."""

FEW_PASSES = (
    "amortised", "reconstruction", "xssab", "lrp", "ebp", "input_x_gradient", "deeplift", "gradcam",
    "gradcam_plus_plus",
)  # fmt: skip

VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("amortised", {"level": "score", "regions": "template"}),
    ("leave_one_out", {"regions": "template", "donors": 2}),
    ("reconstruction", {"variant": "paper"}),
    ("reconstruction", {"variant": "paper", "source": "face", "ablation": "mean", "norm": "l2"}),
    ("reconstruction", {"variant": "paper", "source": "face", "ablation": "partner", "level": "score"}),
    ("reconstruction", {"level": "score", "standardised": True}),
    ("fggb", {"embedding": "normalized", "gradient": "signed", "level": "score"}),
    ("xssab", {"arguments": "for", "blur": (5, 1.5)}),
    ("xssab", {"arguments": "against"}),
    ("corrrise", {"n_masks": 40, "correlation": "spearman", "fill": "mean", "seed": 5}),
    ("srise", {"n_masks": 40, "level": "threshold", "fill": "blur", "seed": 5}),
    ("xface", {"patch_sizes": (28,), "stride": 20, "pairing": "same", "blur": None}),
    ("xface", {"patch_sizes": (28,), "stride": 28, "pairing": "all", "fill": 0.5}),
    ("mery_avg", {"stride": 20, "strategy": "removal", "fill": "mean"}),
    ("minplus", {"stride": 20, "rounds": 1, "strategy": "aggregation"}),
    ("lrp", {"composite": "epsilon_gamma_box_face"}),
    ("lrp", {"composite": "excitation_backprop_face", "blur": (5, 1.0)}),
    ("ebp", {"contrast": "contrastive", "arguments": "for"}),
    ("ebp", {"contrast": "truncated", "truncation": 0.3}),
    ("integrated_gradients", {"n_steps": 4, "baseline": "mean", "method": "riemann_trapezoid"}),
    ("smoothgrad", {"n_samples": 4, "gradient": "absolute", "noise_type": "vargrad", "seed": 2}),
    ("deeplift", {"baseline": "blur"}),
    ("occlusion", {"window": 28, "stride": 28, "baseline": "grey"}),
    ("lime", {"n_samples": 40, "parts": "regions", "baseline": "black", "spread": "share"}),
    ("kernel_shap", {"n_samples": 40, "parts": "regions", "baseline": "blur", "spread": "share"}),
    ("gradcam", {"arguments": "for"}),
    ("gradcam_plus_plus", {"arguments": "against", "places": "all"}),
    ("score_cam", {"max_channels": 16, "weights": "increase", "arguments": "for"}),
    ("fame", {"steps": 4, "clip": True, "arguments": "against", "blur": None}),
)
"""Options that are not the defaults."""


class Record:
    """What came out, by path: numbers and words in `values`, arrays in `arrays`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, Any] = {}
        self.arrays: dict[str, NDArray[Any]] = {}

    def put(self, path: str, value: Any) -> None:
        """Take a value apart down to numbers, words and arrays."""
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            self.arrays[path] = value
            return
        parts = _parts(value)
        if parts is None:
            self.values[path] = self._leaf(path, value)
        elif not parts:
            self.values[path] = "(empty)"
        else:
            for name, part in parts:
                if name not in NO_BEHAVIOUR:
                    self._put_part(f"{path}/{name}", part)

    def call(self, path: str, function: Callable[[], Any]) -> Any:
        """Put what a function returns, warns of and raises; return what it returned."""
        seed_all()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = function()
                self.put(path, result)
            except Exception as error:  # an error is behaviour too
                result = None
                self.put(f"{path}/!error", {"kind": type(error).__name__, "message": str(error)})
        ours = [w for w in caught if w.category.__module__.startswith("xfr_plugin")]
        if ours:
            self.put(f"{path}/!warnings", [f"{w.category.__name__}: {w.message}" for w in ours])
        return result

    def _put_part(self, path: str, part: Any) -> None:
        if isinstance(part, str) and path.endswith("_png"):
            part = np.asarray(Image.open(io.BytesIO(base64.b64decode(part))))
        elif isinstance(part, str) and re.search(r"/(float32|embeddings/(probe|reference))$", path):
            part = np.frombuffer(base64.b64decode(part), "<f4")
        self.put(path, part)

    def _leaf(self, path: str, value: Any) -> Any:
        if isinstance(value, (bool, int, float, type(None))):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, (str, Path)):
            return self._without_places(str(value))
        if isinstance(value, type) or callable(value):
            return getattr(value, "__name__", type(value).__name__)
        return f"<{type(value).__name__}>"

    def _without_places(self, text: str) -> str:
        """Words without what is different on every machine."""
        home = str(Path(xfr_plugin.__file__).parent)
        for place, name in ((self.folder, "$TMP"), (DATA, "$XFR_DATA"), (home, "$PACKAGE")):
            text = text.replace(str(place), name)
        return text


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """Names and parts of a value that has any."""
    if isinstance(value, (nn.Module, type)):
        return None
    if isinstance(value, BaseModel):
        return [(str(name), part) for name, part in value.model_dump().items()]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
        return [(name, getattr(value, name)) for name in names]
    if hasattr(value, "_asdict"):
        return list(value._asdict().items())
    if isinstance(value, Mapping):
        return [(str(name), part) for name, part in value.items()]
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return [(str(number), part) for number, part in enumerate(value)]
    return None


def seed_all() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # libraries draw from it
    torch.manual_seed(0)


def crop(name: str) -> str:
    return str(CROPS / name)


def photo(name: str) -> str:
    return str(PHOTOS / name)


def mirrored(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[:, ::-1])


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


@cache
def model(name: str = SMALL) -> xfr_plugin.Recognizer:
    return xfr_plugin.load_recognizer(name)


@cache
def halves() -> faces.RegionMap:
    """Regions that are nobody's: the upper and the lower half of the face."""
    labels = np.where(faces.template_regions((112, 112)).face, 1, 0).astype(np.uint8)
    labels[56:] *= 2
    return faces.RegionMap(labels, ("outside", "upper", "lower"))


def images(*names: str) -> Tensor:
    """Aligned crops as attributions take them, N×3×112×112 in [0, 1]."""
    pixels = np.stack([faces.load_photo(crop(name)) for name in names])
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2) / np.float32(255)).float()


def picture(figure_file: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(figure_file).convert("RGB"))


def plain_text(text: str) -> list[str]:
    """Lines of a terminal's text without boxes and widths."""
    words = [re.sub(r"[\u2500-\u257f\s]+", " ", line).strip() for line in text.splitlines()]
    return [line for line in words if line]


# Sections: each records one side of the package.


def api(record: Record) -> None:
    """Public names, and how they are called."""
    for module in (xfr_plugin, attr, channels, evaluation, faces, lrp, recognition, reconstruction, service):
        public = {name: getattr(module, name) for name in module.__all__}
        record.put(f"{module.__name__}/names", sorted(public))
        for name, thing in public.items():
            record.put(f"{module.__name__}/{name}", _described(thing))
    record.put("errors", {n: _ancestors(getattr(xfr_plugin.errors, n)) for n in xfr_plugin.errors.__all__})
    record.put("schemas", service.json_schemas())
    record.put("methods", {name: _method(method) for name, method in attr.METHODS.items()})
    record.put("protocols", {name: make().settings() for name, make in evaluation.known_protocols().items()})


def _described(thing: Any) -> Any:
    if inspect.isclass(thing) and issubclass(thing, BaseModel):
        return {name: _shown(field.default) for name, field in thing.model_fields.items()}
    if inspect.isclass(thing):
        public = inspect.getmembers(thing, lambda m: inspect.isfunction(m) or isinstance(m, property))
        found = {name: _parameters(part) for name, part in public if not name.startswith("_")}
        own = {name: found[name] for name in found if name not in dir(nn.Module)}
        return {"()": _parameters(thing), "ancestors": _ancestors(thing), **own}
    return _parameters(thing) if inspect.isroutine(thing) else type(thing).__name__


def _parameters(thing: Any) -> Any:
    if isinstance(thing, property):
        return "property"
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return "no signature"
    return [f"{p.kind.name} {p.name} = {_shown(p.default)}" for p in found]


def _shown(default: Any) -> str:
    plain = isinstance(default, (str, int, float, bool, tuple, type(None)))
    return repr(default) if plain else getattr(default, "__name__", type(default).__name__)


def _ancestors(cls: type) -> list[str]:
    """Names of public ancestors: private ones may come and go."""
    return [base.__name__ for base in cls.__mro__ if not base.__name__.startswith("_")]


def _method(method: attr.Method) -> dict[str, Any]:
    return {**vars(method), "cls": method.cls.__name__, "options": method.options()}


def verify(record: Record) -> None:
    """Decisions, by both recognizers."""
    face = astronaut()
    cases: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "genuine": (crop(GENUINE[0]), crop(GENUINE[1]), {}),
        "impostor": (Path(crop(IMPOSTOR[0])), Path(crop(IMPOSTOR[1])), {}),
        "genuine at fmr": (Path(crop(OTHERS[0])).read_bytes(), crop(OTHERS[1]), {"fmr": 0.001}),
        "impostor at threshold": (crop(OTHERS[0]), Image.open(crop(OTHERS[2])), {"threshold": -0.5}),
        "astronaut": (face, mirrored(face), {}),
        "astronaut, crop": (Image.fromarray(face), crop(GENUINE[0]), {"fmr": 0.01}),
        "originals": (photo(ORIGINALS[0]), photo(ORIGINALS[1]), {"alignment": "detect"}),
        "original, aligned": (photo(ORIGINALS[0]), crop(GENUINE[0]), {"alignment": "aligned"}),
        "crop, detected": (crop(GENUINE[0]), crop(GENUINE[1]), {"alignment": "detect"}),
        "two faces": (np.hstack([face, face[:, ::-1] // 2]), face, {"faces": (1, 0)}),
        "tiny": (Image.fromarray(face).resize((120, 120)), face, {}),
    }
    for name in (SMALL, LARGE):
        for case, (a, b, options) in cases.items():
            call = partial(xfr_plugin.verify, a, b, recognizer=model(name), **options)
            record.call(f"{name}/{case}", call)
    record.call("by name", lambda: xfr_plugin.verify(crop(GENUINE[0]), crop(GENUINE[1]), recognizer=LARGE))
    weights = DATA / "weights" / "mobilefacenet_ms1m.pt"
    record.call("by file", lambda: xfr_plugin.verify(*map(crop, GENUINE), recognizer=weights, threshold=0.3))


def errors(record: Record) -> None:
    """Bad input: kinds of errors and their words."""
    a, b = crop(GENUINE[0]), crop(GENUINE[1])
    probe, embedding = images(GENUINE[0]), torch.ones(1, 128)
    flat, out = np.full((112, 112), 0.5), str(record.folder / "none")
    small = model()
    broken = record.folder / "broken.json"
    broken.write_text("{}", encoding="utf-8")
    check = partial(xfr_plugin.check_faithfulness, small)
    evaluate = partial(evaluation.evaluate, CROPS, DATA / "faces" / "pairsDevTest.txt", out)
    cases: dict[str, Callable[[], Any]] = {
        "missing photo": lambda: xfr_plugin.verify("none.jpg", b),
        "no image": lambda: xfr_plugin.verify(b"not an image", b),
        "truncated": lambda: xfr_plugin.verify(Path(a).read_bytes()[:900], b),
        "wrong array": lambda: xfr_plugin.verify(np.zeros((4, 4, 7)), b),
        "wrong source": lambda: xfr_plugin.verify(7, b),
        "no face": lambda: xfr_plugin.verify(np.full((300, 300, 3), 127, np.uint8), b),
        "face number": lambda: xfr_plugin.verify(astronaut(), b, faces=(9, 0)),
        "threshold": lambda: xfr_plugin.verify(a, b, threshold=2.0),
        "threshold and fmr": lambda: xfr_plugin.verify(a, b, threshold=0.2, fmr=0.01),
        "fmr": lambda: xfr_plugin.verify(a, b, fmr=1e-9),
        "alignment": lambda: xfr_plugin.verify(a, b, alignment="maybe"),
        "recognizer": lambda: xfr_plugin.verify(a, b, recognizer="xfr_compact12"),
        "weight file": lambda: xfr_plugin.verify(a, b, recognizer="none.pt"),
        "no weights": lambda: xfr_plugin.verify(a, b, recognizer=a),
        "architecture": lambda: xfr_plugin.load_recognizer(
            DATA / "weights" / "faceid_plain.pt", architecture="compact"
        ),
        "device": lambda: xfr_plugin.verify(a, b, device="cuda:77"),
        "not calibrated": lambda: xfr_plugin.verify(a, b, recognizer=uncalibrated(), fmr=0.01),
        "no threshold": lambda: xfr_plugin.verify(a, b, recognizer=uncalibrated()),
        "method": lambda: xfr_plugin.explain(a, b, method="fgbb"),
        "option": lambda: xfr_plugin.explain(a, b, method="fggb", options={"gradients": "signed"}),
        "option value": lambda: xfr_plugin.explain(a, b, method="fggb", options={"gradient": "odd"}),
        "option type": lambda: xfr_plugin.explain(a, b, method="lime", options={"n_samples": "many"}),
        "composite": lambda: xfr_plugin.explain(a, b, method="lrp", options={"composite": "none"}),
        "regions of another size": lambda: xfr_plugin.explain(
            a, b, method="xssab", regions=faces.template_regions((56, 56))
        ),
        "no decoder": lambda: xfr_plugin.explain(a, b, method="reconstruction", recognizer="faceid_plain"),
        "compare nothing": lambda: xfr_plugin.compare(a, b, methods=[]),
        "compare unknown": lambda: xfr_plugin.compare(a, b, methods=["xssab", "odd"]),
        "compare options": lambda: xfr_plugin.compare(a, b, methods=["xssab"], options={"fggb": {}}),
        "compare smoothing": lambda: xfr_plugin.compare(a, b, smoothing=2),
        "check maps": lambda: check((probe, probe), (flat[:50], flat), 0.2),
        "check nan": lambda: check((probe, probe), (flat * np.nan, flat), 0.2),
        "target": lambda: attr.Xssab(small).attribute((probe, probe), target=0),
        "no partner": lambda: attr.Xssab(small).attribute(probe),
        "unequal": lambda: attr.Xssab(small).attribute((probe, probe[:, :, :50])),
        "no pair": lambda: attr.Xssab(small).attribute((probe[:0], probe[:0])),
        "amortised alone": lambda: attr.Amortised(small).attribute(probe, additional_forward_args=embedding),
        "attribution threshold": lambda: attr.Xssab(lambda x: x),
        "region": lambda: faces.template_regions().mask("ear"),
        "embeddings": lambda: channels.channel_regions(reconstruction.find_decoder(small), embedding),
        "missing explanation": lambda: xfr_plugin.Explanation.load(out),
        "broken explanation": lambda: xfr_plugin.Explanation.load(broken),
        "broken comparison": lambda: xfr_plugin.Comparison.load(broken),
        "missing pairs": lambda: evaluation.read_pair_list(Path("none.txt")),
        "broken pairs": lambda: evaluation.read_pair_list(broken),
        "protocol": lambda: evaluate(protocols=["odd"]),
        "no protocol": lambda: evaluate(protocols=[]),
        "evaluate options": lambda: evaluate(methods=["xssab"], options={"fggb": {}}),
        "no faces": lambda: evaluation.evaluate("none", DATA / "faces" / "pairsDevTest.txt", out),
        "deployment": lambda: service.read_deployment({"treshold": 0.2}),
        "deployment method": lambda: service.read_deployment({"methods": ["nonesuch"]}),
    }
    for case, function in cases.items():
        record.call(case, function)


def uncalibrated() -> xfr_plugin.Recognizer:
    return recognition.Recognizer(model().network, name="bare")


def explain(record: Record) -> None:
    """Every method, on a genuine pair and an impostor one."""
    for method in attr.METHODS:
        for pair in (GENUINE, IMPOSTOR):
            options = QUICKER.get(method, {})
            _explained(record, f"{SMALL}/{method}/{pair[1]}", pair, method=method, options=options)
    for method in ("auto", *FEW_PASSES):
        _explained(record, f"{LARGE}/{method}", GENUINE, recognizer=model(LARGE), method=method)


def variants(record: Record) -> None:
    """Options that are not the defaults; checks, regions, photographs that need detection; files."""
    for method, options in VARIANTS:
        named = ",".join(f"{key}={value}" for key, value in options.items())
        _explained(record, f"{method}/{named}", GENUINE, method=method, options=options)
    _explained(record, "checked", IMPOSTOR, check=True)
    _explained(record, "checked, xssab", GENUINE, method="xssab", check=True, fmr=0.001)
    _explained(record, "checked, regions", GENUINE, method="xssab", check=True, regions=halves())
    _explained(record, "regions", GENUINE, regions=halves())
    _explained(record, "regions, leave_one_out", GENUINE, method="leave_one_out", regions=halves())
    _explained(record, "threshold", IMPOSTOR, method=None, threshold=0.5)
    made = record.call("originals", lambda: xfr_plugin.explain(*map(photo, ORIGINALS), check=True))
    _saved(record, "saved", made)
    small, pair = model(), (images(GENUINE[0]), images(GENUINE[1]))
    maps = [face.saliency for face in (made.probe, made.reference)]
    record.call("check", lambda: xfr_plugin.check_faithfulness(small, pair, maps, 0.3))
    alone = (pair[0], small.embed(pair[1]))
    record.call("check, embedding", lambda: xfr_plugin.check_faithfulness(small, alone, maps[:1], 0.3))


def _explained(record: Record, path: str, pair: Sequence[str], **options: Any) -> None:
    given = {"recognizer": model(), **options}
    record.call(path, lambda: xfr_plugin.explain(*map(crop, pair), **given))


def _saved(record: Record, path: str, made: Any) -> None:
    """Files of an explanation or comparison, and what is read back from them."""
    drawn, document = dataclasses.replace(made, timings={}, version="").save(record.folder, stem="saved")
    record.put(f"{path}/picture", picture(drawn))
    record.put(f"{path}/document", json.loads(document.read_text(encoding="utf-8")))
    record.call(f"{path}/read", lambda: type(made).load(document))


def attribute(record: Record) -> None:
    """Attribution classes as Captum's are used: batches, and a probe against an embedding."""
    small = model()
    probes, references = images(GENUINE[0], IMPOSTOR[0]), images(GENUINE[1], IMPOSTOR[1])
    units = small.embed(references)
    for name, method in attr.METHODS.items():
        made = method.build(small, small.threshold, **QUICKER.get(name, {}))
        traits = ("multiplies_by_inputs", "reads_both_faces", "threshold")
        record.put(f"{name}/traits", {trait: getattr(made, trait) for trait in traits})
        record.put(f"{name}/has_convergence_delta", made.has_convergence_delta())
        alone = partial(made.attribute, probes[:1], additional_forward_args=units[0])
        record.call(f"{name}/alone", alone)
        if name in FEW_PASSES or name == "leave_one_out":
            record.call(f"{name}/batch", partial(made.attribute, (probes, references)))
            batch = partial(made.attribute, probes, additional_forward_args=(units,))
            record.call(f"{name}/alone, batch", batch)
        if made.has_convergence_delta():
            delta = partial(made.attribute, (probes, references), return_convergence_delta=True)
            record.call(f"{name}/delta", delta)
    record.put("default", {name: attr.default_method(model(name)) for name in (SMALL, LARGE)})
    record.put("fast", {name: attr.fast_method(model(name)) for name in (SMALL, LARGE)})
    _own_calls(record, probes, references, units)


def _own_calls(record: Record, probes: Tensor, references: Tensor, units: Tensor) -> None:
    """What single classes have beside `attribute`."""
    small = model()
    pair = (probes, references)

    def score(a: Tensor, b: Tensor) -> Tensor:
        return (small.embed(a) * (small.embed(b) if b.ndim == 4 else b)).sum(dim=1)

    record.call("leave_one_out/regional", lambda: attr.LeaveOneOut(small, donors=2).regional(pair))
    record.call("amortised/regional", lambda: attr.Amortised(small).regional(pair))
    gallery = small.embed(images(*GENUINE, *OTHERS))
    corrrise = attr.CorrRise(small, n_masks=30)
    record.call("corrrise/gallery", lambda: corrrise.attribute_gallery(probes, gallery, top_k=2))
    for cls, options in (
        (attr.CorrRise, {"n_masks": 20}),
        (attr.MeryAvg, {"stride": 30}),
        (attr.LeaveOneOut, {"donors": 1}),
    ):
        blind = cls.from_scores(score, 0.2, **options)
        record.call(f"from_scores/{cls.__name__}", partial(blind.attribute, (probes[:1], references[:1])))
    for cls in (attr.Xssab, attr.PairDeepLift, attr.Fggb, attr.GradCam, attr.LrpSaliency):
        bare = cls(small.network, threshold=0.2)
        record.call(f"bare network/{cls.__name__}", partial(bare.attribute, pair))
    for output in ("cosine", "margin", "distance"):
        head = attr.CosineHead(small, output=output)
        record.call(f"head/{output}", partial(head, probes, units))
        record.call(f"head/{output}, images", partial(head, *pair))
    bound = attr.CosineHead(small, reference=units[0])
    record.call("head/bound", lambda: bound(probes))
    own = small.embed(probes)
    record.call("reconstruction/evidence", lambda: attr.ReconstructionSaliency(small).evidence(own, units))
    record.call("evidence/similarity", lambda: attr.channel_similarity(own, units))
    for level in ("threshold", "score", "odd"):
        record.call(f"evidence/{level}", partial(attr.channel_evidence, own, units, 0.2, level))
    record.call("evidence network", lambda: attr.find_evidence(small).card)


def channel_maps(record: Record) -> None:
    """Channels of embeddings: decoder, explainer, atlas, regions; BiLRP; rules of relevance."""
    small, face = model(), images(*GENUINE)
    decoder = reconstruction.find_decoder(small)
    units = small.embed(images(*GENUINE, *OTHERS))
    record.put(
        "decoder", {"card": decoder.card, "atlas": decoder.atlas[::16], "face": decoder.faces(units[:2])}
    )
    record.put("decoders", reconstruction.list_decoders())
    record.put("fingerprints", {name: reconstruction.fingerprint(model(name)) for name in (SMALL, LARGE)})
    for options in (
        {}, {"norm": "l2"}, {"norm": "none", "signed": True}, {"ablation": "mean"}, {"ablation": "partner"},
        {"response": "gradient"}, {"response": "gradient", "signed": True}, {"source": "atlas"},
    ):  # fmt: skip
        named = ",".join(f"{key}={value}" for key, value in options.items()) or "default"
        made = attr.ReconstructionExplainer(small, **options)
        partner = units[2] if options.get("ablation") == "partner" else None
        for target in (0, [5, 77]):
            call = partial(made.attribute, face, target=target, additional_forward_args=partner)
            record.call(f"explainer/{named}/{target}", call)
        call = partial(made.strongest_channels, face, 4, additional_forward_args=partner)
        record.call(f"explainer/{named}/strongest", call)
        some = torch.tensor([3, 9, 100])
        call = partial(made.embedding_maps, units[:2], some, (40, 30), units[2])
        record.call(f"explainer/{named}/embedding_maps", call)
        record.call(f"explainer/{named}/dwelling", partial(made.dwelling, units[:1], units[1:3]))
    made = attr.ReconstructionExplainer(small)
    record.call("explainer/all", lambda: made.all_channels(face[:1])[:, ::16])
    record.call("explainer/reconstruct", lambda: made.reconstruct(face))
    record.call("explainer/embedding", lambda: made.explain_embedding(units[0])[::16])
    record.call("explainer/no channel", lambda: made.attribute(face, target=128))
    record.call("explainer/no decoder", lambda: attr.ReconstructionExplainer(model("faceid_plain")))
    _regions_of_channels(record, decoder, units)
    _relevance(record)


def _regions_of_channels(record: Record, decoder: reconstruction.Decoder, units: Tensor) -> None:
    for name, people in (("atlas", None), ("people", units[:4])):
        matrix = record.call(f"regions/{name}", partial(channels.channel_regions, decoder, people))
        record.put(f"regions/{name}/lift", matrix.lift)
        record.put(f"regions/{name}/density", matrix.density)
        record.call(f"regions/{name}/top", partial(matrix.top, "nose", 5))
        record.call(f"regions/{name}/intervals", matrix.intervals)
        record.call(f"regions/{name}/deviation", matrix.deviation)
        record.call(f"regions/{name}/spread", partial(matrix.spread, 0.1, 0.5))
        record.call(f"regions/{name}/merged", partial(matrix.merged, eyes=("left_eye", "right_eye")))
    halved = partial(channels.channel_regions, decoder, units[:3], halves(), confidence=0.9)
    record.call("regions/halves", halved)
    record.call("shares", lambda: channels.region_shares(decoder, units[:1], halves(), response="gradient"))
    changes = partial(channels.decoded_changes, decoder, units[:1], torch.tensor([[1, 2]]), signed=True)
    record.call("changes", changes)
    record.call("sized", lambda: channels.sized_maps(decoder.atlas[:2][None], (112, 112), "l2"))
    dwelling = partial(channels.dwelling, decoder, units[:2], weight="absolute", source="atlas")
    record.call("dwelling", dwelling)
    record.call("ablated", lambda: reconstruction.ablated(units[0], 0.5)[:3])
    differences = record.call(
        "differences", lambda: reconstruction.channel_differences(decoder, units[0])[::32]
    )
    record.call("normalised", lambda: reconstruction.normalised_maps(differences, 2))
    record.call("channel_atlas", lambda: reconstruction.channel_atlas(decoder, units[:2])[::32])


def _relevance(record: Record) -> None:
    for name in (SMALL, LARGE):
        for cls in (lrp.EpsilonPlusFlatFace, lrp.EpsilonGammaBoxFace, lrp.ExcitationBackpropFace):
            record.call(
                f"rules/{name}/{cls.__name__}", lambda n=name, c=cls: lrp.coverage(model(n).network, c())
            )


def commands_of_channels(record: Record) -> None:
    """The commands `bilrp`, `reconstruct` and `atlas`: tables and pictures."""
    out = record.folder / "channels"
    pair = [crop(name) for name in GENUINE]
    few = record.folder / "people"
    for name in (*GENUINE, *OTHERS):
        target = few / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(crop(name)).read_bytes())
    run_cli(record, "bilrp", "bilrp", *pair, "--out", out / "1")
    run_cli(
        record, "bilrp, gamma", "bilrp", *pair, "--composite", "epsilon_gamma_box_face", "--threshold", "0.9",
        "--out", out / "2",
    )  # fmt: skip
    run_cli(record, "bilrp, impostor", "bilrp", *map(crop, IMPOSTOR), "--fmr", "0.01", "--out", out / "3")
    run_cli(record, "bilrp, composite", "bilrp", *pair, "--composite", "odd", "--out", out / "4")
    run_cli(record, "reconstruct", "reconstruct", pair[0], "--out", out / "5", "--channels", 3)
    run_cli(
        record, "reconstruct, face", "reconstruct", photo(ORIGINALS[0]), "--out", out / "6", "--channels", 3,
        "--reconstruction",
    )  # fmt: skip
    run_cli(record, "atlas", "atlas", "--out", out / "7")
    run_cli(record, "atlas, people", "atlas", "--out", out / "8", "--faces", few, "--people", 3)
    run_cli(record, "atlas, one", "atlas", "--out", out / "9", "--faces", few / "Al_Pacino")
    for file in sorted(out.glob("*/*")):
        path = f"files/{file.parent.name}/{file.name}"
        record.put(path, picture(file) if file.suffix == ".png" else _table(file))


def _table(file: Path) -> dict[str, Any]:
    """A table by columns: arrays of numbers, where there are only numbers."""
    with file.open(encoding="utf-8", newline="") as opened:
        header, *rows = csv.reader(opened)
    columns = [[_number(text) for text in column] for column in zip(*rows, strict=True)]
    numeric = [all(isinstance(value, float) for value in column) for column in columns]
    return {
        name: np.array(column) if only else " ".join(map(str, column))
        for name, column, only in zip(header, columns, numeric, strict=True)
    }


def _number(text: str) -> float | str:
    try:
        return float(text or "nan")
    except ValueError:
        return text


def compare(record: Record) -> None:
    """Several methods on one pair."""
    methods = ["amortised", "reconstruction", "xssab", "gradcam"]
    cases: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
        "genuine": ([crop(name) for name in GENUINE], {"methods": methods}),
        "impostor, checked": ([crop(name) for name in IMPOSTOR], {"methods": methods[:3], "check": True}),
        "originals": (
            [photo(name) for name in ORIGINALS],
            {"methods": methods[1:], "smoothing": 0, "options": {"xssab": {"arguments": "for"}}, "fmr": 0.01},
        ),
        "one fails": ([crop(name) for name in GENUINE], {"methods": methods, "recognizer": model(LARGE)}),
        "regions": ([crop(name) for name in GENUINE], {"methods": methods[1:3], "regions": halves()}),
    }
    for case, (pair, options) in cases.items():
        seen: list[tuple[str, int, int]] = []
        call = partial(xfr_plugin.compare, *pair, progress=partial(_noted, seen), **options)
        made = record.call(case, call)
        record.put(f"{case}/progress", seen)
        record.put(f"{case}/with others", [made.agreement.with_others(m) for m in made.agreement.methods])
        record.put(f"{case}/explanations", list(made.explanations))
        timeless = [dataclasses.replace(r, seconds=1.0, peak_memory=None) for r in made.results]
        _saved(record, f"{case}/saved", dataclasses.replace(made, results=tuple(timeless)))


def _noted(seen: list[tuple[str, int, int]], *step: Any) -> None:
    seen.append(step)


def planted(record: Record) -> None:
    """Planted evidence, of few plantings; and what it is made of."""
    results = evaluation.evaluate(
        CROPS, DATA / "faces" / "peopleDevTest.txt", record.folder / "planted",
        methods=["amortised", "reconstruction", "xssab", "gradcam"], plan=evaluation.PlantedPlan(count=6),
        half="report",
    )  # fmt: skip
    _results(record, "run", results)
    leads = partial(results.leads, "amortised", "planted", "similar", "auc")
    record.call("leads", leads)
    _planted_by_hand(record, results)
    labels, rng = faces.template_regions(), np.random.default_rng(0)
    noise, face = rng.standard_normal((112, 112)), rng.random((112, 112, 3)).astype(np.float32)
    mask = labels.mask("nose")
    for function in (evaluation.pixel_auc, evaluation.energy_ratio, evaluation.points_inside):
        record.put(function.__name__, function(noise, mask, labels.face))
    masks = {name: labels.mask(name) for name in labels.names[1:]}
    record.put("most_salient_region", evaluation.most_salient_region(noise, masks))
    record.put("bootstrap", evaluation.bootstrap_mean(list(noise[0]), seed=3))
    for blending in ("feather", "poisson"):
        record.call(blending, partial(evaluation.blend_region, face, face[::-1], mask, blending, 0.7))


def _planted_by_hand(record: Record, results: evaluation.Results) -> None:
    """The same from its parts: plantings, pairs, maps, scores, floors."""
    people = ("Abdullah_Gul", "Al_Pacino", "Adel_Al-Jubeir", "Alan_Greenspan")
    files = {name: sorted(f"{name}/{file.name}" for file in (CROPS / name).iterdir()) for name in people}
    plantings = record.call("plantings", lambda: evaluation.plan_plantings(files, 3, seed=1))
    kept = record.folder / "plantings.json"
    evaluation.write_plantings(plantings, kept)
    record.put("plantings/again", evaluation.read_plantings(kept) == plantings)
    record.call("pair list", lambda: evaluation.read_pair_list(kept))
    pairs = evaluation.build_pairs(model(), CROPS, plantings)
    record.put("pairs", {"clean": pairs.clean, "planted": pairs.planted, "probes": pairs.probes})
    maps = evaluation.maps_of(attr.Xssab(model()).attribute, pairs, model())
    record.put("maps", maps)
    scores = evaluation.score_maps("xssab", maps[0], pairs)
    record.put("scores", scores)
    record.put("summary", evaluation.summarise(scores))
    record.put("floors/random", evaluation.random_maps(pairs, seed=2))
    record.put("floors/centre", evaluation.centre_prior(pairs)[0])
    record.put("floors/average", evaluation.average_maps(maps[0], pairs))


def protocols(record: Record) -> None:
    """Every other protocol, on few pairs."""
    names = ("pairsDevTest.txt", "pairs")
    listed = evaluation.read_pair_list(DATA / "faces" / names[0])
    record.put(
        names[1], {"pairs": len(listed.pairs), "people": len(listed.people), "first": listed.pairs[:3]}
    )
    for protocol in evaluation.known_protocols():
        if protocol != "planted":
            results = evaluation.evaluate(
                CROPS, listed, record.folder / protocol, methods=["reconstruction", "xssab"],
                protocols=[protocol], limit=2, floors=protocol == "deletion",
            )  # fmt: skip
            _results(record, protocol, results)
    again = partial(
        evaluation.evaluate, CROPS, listed, record.folder / "deletion", methods=["reconstruction", "xssab"],
        protocols=["deletion"], limit=2,
    )  # fmt: skip
    record.put("only report", len(again(only_report=True).records))
    record.call("another run", lambda: again(seed=1))


def _results(record: Record, path: str, results: evaluation.Results) -> None:
    """Numbers, summary and tables of a run, without its costs."""
    costless = [r for r in results.records if r.protocol != "cost"]
    timeless = tuple(r if r.protocol != "cost" else r._replace(value=1.0) for r in results.records)
    numbers = {"|".join(map(str, r[:-1])): r.value for r in costless}
    record.put(f"{path}/numbers", numbers)
    record.put(f"{path}/count", len(costless))
    record.put(f"{path}/costs", sorted({r.metric for r in results.records if r.protocol == "cost"}))
    record.put(f"{path}/facts", results.facts)
    record.put(f"{path}/failures", results.failures)
    manifest = {key: value for key, value in results.manifest.model_dump().items() if key != "versions"}
    record.put(f"{path}/manifest", manifest)
    rows = [row for row in results.summary() if row.protocol != "cost"]
    record.put(f"{path}/summary", {"|".join(map(str, row[:6])): row[6:] for row in rows})
    same = results.manifest.model_copy(update={"versions": {"xfr-plugin": "0", "torch": "0"}})
    written = dataclasses.replace(results, records=timeless, manifest=same, _cache={}).save(
        record.folder / "tables" / path
    )
    record.put(f"{path}/files", sorted(file.name for file in written))
    record.put(f"{path}/tables", written[0].read_text(encoding="utf-8").splitlines())


def serving(record: Record) -> None:
    """The service in process: answers and refusals."""
    settings = service.Deployment(methods=tuple(attr.METHODS), reconstructions=True, embeddings=True)
    served = service.ExplanationService(settings)
    traits = ("method", "input_size", "embedding_dim", "versions")
    record.put("service", {trait: getattr(served, trait) for trait in traits})
    for case, document in _requests().items():
        record.call(case, lambda d=document: _answered(served, d))
    batch = [service.parse_request(_pair(a, b, id=f"{a}{b}")) for a, b in ((0, 1), (2, 3), (0, 3), (1, 1))]
    batch += [service.parse_request(_pair(0, 2, method=m)) for m in ("xssab", "fggb", "lrp", "xssab")]
    batch += [service.parse_request(d) for d in ({"probe": b"odd", "reference": crops()[0]}, _pair(0, 0))]
    replies = served.answer_all(batch, [True] * 9 + [False])
    record.put("batch", replies)
    record.put("batch/read", [service.reply_from_json(r.model_dump_json()) == r for r in replies])
    record.call("self-test", lambda: [a.decision for a in service.self_test(served, served.input_size)])
    _strict(record)


@cache
def crops() -> list[bytes]:
    return [Path(crop(name)).read_bytes() for name in (*GENUINE, *IMPOSTOR)]


def _pair(a: int, b: int, **more: Any) -> dict[str, Any]:
    return {"probe": crops()[a], "reference": crops()[b], **more}


def _requests() -> dict[str, dict[str, Any]]:
    """Requests by what is asked in them."""
    rows = model().embed(images(*GENUINE, *IMPOSTOR, *OTHERS)).numpy()
    stored = [row.tolist() for row in rows]
    gallery = {"embeddings": stored, "ids": [f"p{i}" for i in range(len(stored))], "top": 3}
    every = ["regions", "maps", "overlay", "words", "faithfulness", "reconstructions", "embeddings"]
    face = astronaut()
    methods = {
        f"method {name}": _pair(0, 1, method=name, returns=["regions", "words"])
        for name in ("amortised", "leave_one_out", "reconstruction", "xssab", "fggb", "lrp", "gradcam")
    }
    return {
        "genuine": _pair(0, 1, id="one"),
        "impostor": _pair(2, 3),
        "decision only": _pair(0, 1, explain=False, fmr=0.001),
        "everything": _pair(0, 1, returns=every),
        "everything, impostor": _pair(2, 3, returns=every, map_format="float32", threshold=0.1),
        "photographs": {"probe": encoded(face, "JPEG"), "reference": encoded(mirrored(face) // 2, "JPEG")},
        "several faces": {"probe": encoded(np.hstack([face, face])), "reference": crops()[0]},
        "face number": {"probe": {"image": encoded(face), "face": 3}, "reference": crops()[0]},
        "two embeddings": {"probe": stored[0], "reference": {"embedding": rows[1].tobytes()}},
        "image, embedding": {
            "probe": crops()[0],
            "reference": stored[1],
            "method": "xssab",
            "returns": every,
        },
        "embedding, image": {"probe": stored[0], "reference": crops()[1], "returns": ["regions", "maps"]},
        "two embeddings, gradient": {"probe": stored[0], "reference": stored[1], "method": "xssab"},
        "gallery": {"probe": crops()[0], "gallery": gallery},
        "gallery, method": {"probe": crops()[2], "gallery": gallery, "method": "gradcam"},
        "gallery, embedding": {"probe": stored[0], "gallery": {"embeddings": rows.tobytes(), "top": 2}},
        "gallery, wrong length": {"probe": stored[0], "gallery": {"embeddings": [[1.0, 2.0]]}},
        "wrong length": {"probe": [1.0, 2.0], "reference": crops()[0]},
        "zero": {"probe": [0.0] * 128, "reference": crops()[0]},
        "dark": {"probe": encoded(faces.load_photo(crop(GENUINE[0])) // 8), "reference": crops()[1]},
        "no image": {"probe": b"odd", "reference": crops()[0]},
        "no face": {"probe": encoded(np.full((300, 300, 3), 127, np.uint8)), "reference": crops()[0]},
        "no reference": {"probe": crops()[0]},
        "both": _pair(0, 1, gallery=gallery),
        "unknown field": _pair(0, 1, treshold=0.1),
        "unknown method": _pair(0, 1, method="odd"),
        "nan": _pair(0, 1, threshold=float("nan")),
        "threshold and fmr": _pair(0, 1, threshold=0.1, fmr=0.1),
        "unknown fmr": _pair(0, 1, fmr=1e-9),
        "not base64": {"probe": "photo.jpg", "reference": crops()[0]},
        "unknown return": _pair(0, 1, returns=["odd"]),
        "late": _pair(0, 1, deadline_ms=1),
        **methods,
    }


def _answered(served: service.ExplanationService, document: dict[str, Any]) -> Any:
    """The answer, or the body of the error."""
    try:
        return served.answer(service.parse_request(document), explain=True)
    except service.ServiceError as error:
        return error.body(document.get("id"))


def _strict(record: Record) -> None:
    """A deployment that allows little."""
    limits = service.Limits(gallery=2, pixels=13_000, image_bytes=20_000)
    settings = service.Deployment(
        callers_choose_threshold=False,
        faithfulness=False,
        detector=False,
        method="xssab",
        fmr=0.01,
        limits=limits,
    )
    served = service.ExplanationService(settings)
    row = [1.0] * 128
    asked: dict[str, dict[str, Any]] = {
        "plain": _pair(0, 1),
        "reconstructions": _pair(0, 1, returns=["reconstructions"]),
        "embeddings": _pair(0, 1, returns=["embeddings"]),
        "faithfulness": _pair(0, 1, returns=["faithfulness"]),
        "method": _pair(0, 1, method="fggb"),
        "fmr": _pair(0, 1, fmr=0.01),
        "detect": _pair(0, 1, alignment="detect"),
        "gallery": {"probe": row, "gallery": {"embeddings": [row] * 3}},
        "pixels": {"probe": encoded(astronaut(), "JPEG"), "reference": row},
        "bytes": {"probe": encoded(astronaut()), "reference": row},
    }
    for case, document in asked.items():
        record.call(f"strict/{case}", lambda d=document: _answered(served, d))


def wire(record: Record) -> None:
    """What the server's handler makes of bodies: JSON, forms, images alone, KServe's two versions."""
    handler = _handler(methods="all", embeddings=True)
    text = [base64.b64encode(data).decode() for data in crops()]
    pair = {"probe": text[0], "reference": text[1]}
    rows = model().embed(images(*GENUINE)).tolist()
    v2 = {"name": "probe", "datatype": "BYTES", "shape": [2], "data": text[:2]}
    v2_rows = {"name": "reference", "datatype": "FP32", "shape": [2, 128], "data": rows}
    form = {"probe": bytearray(crops()[0]), "reference": bytearray(crops()[3])}
    header = {"x-xfr-request": json.dumps({"reference": rows[1]})}
    cases: dict[str, tuple[Any, bool, dict[str, str]]] = {
        "json": (pair, True, {}),
        "json, decision": (pair, False, {}),
        "json, broken": (b"{broken", True, {}),
        "json, empty": (b"", True, {}),
        "json, list": ([1, 2], True, {}),
        "json, malformed": ({"probe": 7}, True, {}),
        "image alone": (crops()[0], True, header),
        "image, no header": (crops()[0], True, {}),
        "image, wrong header": (crops()[0], True, {"X-XFR-Request": "[]"}),
        "v1": ({"instances": [pair, {"probe": "?"}, pair]}, False, {}),
        "v1, explained": ({"instances": [pair]}, True, {}),
        "v1, empty": ({"instances": []}, True, {}),
        "v1, many": ({"instances": [pair] * 17}, True, {}),
        "v2": ({"id": "x", "inputs": [v2, v2_rows], "parameters": {"returns": "regions"}}, True, {}),
        "v2, gallery": (
            {"inputs": [v2, {**v2_rows, "name": "gallery"}], "parameters": {"top": 1}},
            False,
            {},
        ),
        "v2, wrong name": ({"inputs": [{**v2, "name": "odd"}]}, True, {}),
        "v2, no pairs": ({"inputs": [v2]}, True, {}),
        "v2, shape": ({"inputs": [v2, {**v2_rows, "shape": [3, 128]}]}, True, {}),
    }
    items: list[tuple[dict[str, Any], bool, dict[str, str]]] = [
        ({"body": _body(body)}, explained, headers) for body, explained, headers in cases.values()
    ]
    items.append((form, True, {}))
    items.append(({**form, "method": b"xssab", "returns": b"regions,maps", "explain": b"True"}, False, {}))
    items.append(({**form, "threshold": b"odd"}, False, {}))
    for case, item in zip([*cases, "form", "form, options", "form, odd"], items, strict=True):
        record.call(case, lambda i=item: _handled(handler, [i]))
    record.call("batch", lambda: _handled(handler, items))
    record.call("wrong settings", lambda: _handler(treshold=1))


def _body(body: Any) -> Any:
    return bytearray(body) if isinstance(body, bytes) else json.dumps(body).encode()


class Context:
    """As much of TorchServe's context as a handler uses."""

    def __init__(self, **settings: Any) -> None:
        self.model_yaml_config = {"handler": settings}
        self.system_properties = {"model_dir": "."}
        self.manifest: dict[str, Any] = {}
        self.metrics = self
        self.headers: list[dict[str, str]] = []
        self.seen: dict[str, Any] = {}

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self.headers[index]

    def set_response_status(self, status: int, phrase: str, index: int) -> None:
        self.seen[f"status {index}"] = f"{status} {phrase}"

    def set_response_content_type(self, index: int, value: str) -> None:
        self.seen[f"type {index}"] = value

    def add_counter(self, name: str, value: float, dimensions: Iterable[object] = (), **_more: Any) -> None:
        self.seen[f"{name} {' '.join(map(str, dimensions))}"] = value

    def add_time(self, name: str, _value: float, dimensions: Iterable[object] = (), **_more: Any) -> None:
        self.seen[f"{name} {' '.join(map(str, dimensions))}"] = "a time"


def _handler(**settings: Any) -> Any:
    """The handler that the server loads; stand-ins for TorchServe's base class and context."""
    stubs = {"ts.context": "Context", "ts.torch_handler.base_handler": "BaseHandler"}
    for name, cls in stubs.items():
        sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[name], cls, type(cls, (), {}))
    package = Path(xfr_plugin.__file__).parent
    files = [package.parent / "handlers" / "xfr_handler.py", *package.rglob("xfr_handler.py")]
    spec = importlib.util.spec_from_file_location("xfr_handler", next(filter(Path.is_file, files)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.XfrHandler()
    made.initialize(Context(**settings))
    torch.set_num_threads(1)
    return made


def _handled(handler: Any, items: Sequence[tuple[dict[str, Any], bool, dict[str, str]]]) -> dict[str, Any]:
    context = Context()
    context.headers = [{**headers, "explain": str(explained)} for _, explained, headers in items]
    bodies = [json.loads(body) for body in handler.handle([fields for fields, _, _ in items], context)]
    for body in bodies:
        for output in body.get("outputs", []):
            if output["name"] == "answer":
                output["data"] = [json.loads(answer) for answer in output["data"]]
    return {"bodies": bodies, "seen": context.seen}


def cli(record: Record) -> None:
    """The command line: exit codes, what is printed, what is written."""
    a, b = (crop(name) for name in GENUINE)
    c, out = crop(IMPOSTOR[1]), record.folder / "cli"
    blank = record.folder / "blank.png"
    blank.write_bytes(encoded(np.full((150, 200, 3), 127, np.uint8)))
    commands: dict[str, list[Any]] = {
        "version": ["--version"],
        "methods": ["methods"],
        "methods, json": ["methods", "--json"],
        "recognizers": ["recognizers"],
        "verify": ["verify", a, b],
        "verify, json": ["verify", a, c, "--json", "--fmr", "0.01"],
        "verify, originals": ["verify", *map(photo, ORIGINALS), "-r", LARGE, "--json"],
        "verify, missing": ["verify", "none.jpg", a],
        "verify, blank": ["verify", blank, a],
        "verify, alignment": ["verify", a, b, "--alignment", "maybe"],
        "verify, threshold": ["verify", a, b, "--threshold", "3"],
        "verify, recognizer": ["verify", a, b, "-r", "odd"],
        "verify, server": ["verify", a, b, "--server", "http://x", "-r", LARGE],
        "explain": ["explain", a, b, "--out", out / "1"],
        "explain, json": [
            "explain", a, c, "-m", "xssab", "-o", "arguments=for", "-o", "blur=[5, 1.5]", "--check", "--json",
            "--out", out / "2",
        ],
        "explain, method": ["explain", a, b, "--method", "fgbb", "--out", out],
        "explain, option": ["explain", a, b, "-o", "blur", "--out", out],
        "explain, option value": ["explain", a, b, "-m", "fggb", "-o", "gradient=odd", "--out", out],
        "compare, json": ["compare", a, b, "-m", "reconstruction,xssab", "--json", "--out", out / "3"],
        "compare, options": [
            "compare", a, b, "-m", "xssab,lrp", "-o", "xssab.arguments=for", "--check", "--json", "--out", out / "4",
        ],
        "compare, option": ["compare", a, b, "-m", "xssab", "-o", "arguments=for", "--out", out],
        "compare, unknown": ["compare", a, b, "-m", "odd", "--out", out],
        "evaluate": [
            "evaluate", "--faces", CROPS, "--pairs", DATA / "faces" / "pairsDevTest.txt", "--limit", 2, "-m",
            "xssab,reconstruction", "-p", "deletion,symmetry", "-o", "xssab.arguments=for", "--no-floors", "--out",
            out / "5",
        ],
        "evaluate, half": ["evaluate", "--faces", CROPS, "--pairs", "none", "--half", "odd"],
        "evaluate, strengths": ["evaluate", "--faces", CROPS, "--pairs", "none", "--strengths", "2"],
        "evaluate, pairs": ["evaluate", "--faces", CROPS, "--pairs", "none"],
        "schemas": ["schemas", "--out", out / "6"],
        "download": ["download", "faceid_plain"],
        "one photo": ["verify", a],
        "nonsense": ["nonsense"],
    }  # fmt: skip
    for case, arguments in commands.items():
        run_cli(record, case, *arguments)
    for command in (
        "", "verify", "explain", "compare", "methods", "recognizers", "download", "bilrp", "reconstruct", "atlas",
        "evaluate", "package", "serve", "schemas", "train",
    ):  # fmt: skip
        _helped(record, command)
    for file in sorted(out.rglob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        if file.name != "manifest.json":
            record.put(f"files/{file.parent.name}/{file.name}", content)
    record.put("files", sorted(str(file.relative_to(out)) for file in out.rglob("*.*")))
    lines = (out / "5" / "results.csv").read_text(encoding="utf-8").splitlines()
    record.put("evaluate/results", [re.split(r",(?=[^,]*$)", line) for line in lines if ",cost," not in line])


def run_cli(record: Record, path: str, *arguments: Any) -> None:
    """Run a command in this process."""
    code, printed, warned = _ran(*arguments)
    record.put(f"{path}/exit", code)
    complaints = [line for line in plain_text(warned) if not re.match(r"\d+ of \d+", line)]
    record.put(f"{path}/stderr", complaints)
    if "--json" in arguments:
        record.put(f"{path}/stdout", json.loads(printed))
    else:
        record.put(f"{path}/stdout", plain_text(printed))


def _ran(*arguments: Any) -> tuple[Any, str, str]:
    from xfr_plugin.cli import main  # it is slow to import

    out, err, given = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["xfr", *map(str, arguments)]
    seed_all()
    code: Any = None
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as done:
        code = done.code
    finally:
        sys.argv = given
    return code, out.getvalue(), err.getvalue()


def _helped(record: Record, command: str) -> None:
    """Options of a command, whatever the layout of its help."""
    code, printed, _ = _ran(*filter(None, [command]), "--help")
    record.put(f"help/{command or 'xfr'}", {"exit": code, "lines": sorted(plain_text(printed))})


SECTIONS: dict[str, Callable[[Record], None]] = {
    "explain": explain,
    "protocols": protocols,
    "variants": variants,
    "attribute": attribute,
    "planted": planted,
    "service": serving,
    "cli": cli,
    "wire": wire,
    "channels": channel_maps,
    "channel_commands": commands_of_channels,
    "compare": compare,
    "verify": verify,
    "errors": errors,
    "api": api,
}
"""Sections by name, the longest first, so that two processes end together."""


def run_section(name: str, folder: Path) -> str:
    """Record one section into a folder, single-threaded, so that sums have one order; what to say about it."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        record = Record(Path(scratch).resolve())
        try:
            SECTIONS[name](record)
        except Exception as error:  # what was recorded before it is still of use
            traceback.print_exc()
            record.put("!section", {"kind": type(error).__name__, "message": str(error)})
    text = json.dumps(dict(sorted(record.values.items())), indent=0, ensure_ascii=False)
    np.savez_compressed(folder / f"{name}.npz", **record.arrays)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    failed = sum(path.endswith("!error/kind") for path in record.values)
    spent = f"{time.perf_counter() - start:.0f} s, {time.process_time():.0f} s of CPU"
    broken = " BROKEN" if "!section/kind" in record.values else ""
    return (
        f"{name}: {len(record.values)} values, {len(record.arrays)} arrays, {failed} errors; {spent}{broken}"
    )


def write(options: argparse.Namespace) -> int:
    """Record sections into a folder; those that are not run stay as they are."""
    home = Path(xfr_plugin.__file__).parents[1]
    if home != Path.cwd():
        print(f"this would record the package in {home}: go there, or set PYTHONPATH")
        return 2
    if not CROPS.is_dir():
        print(f"no faces at {CROPS}: set XFR_DATA")
        return 2
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.update({"COLUMNS": "500", "TERMINAL_WIDTH": "500", "NO_COLOR": "1", "MPLBACKEND": "Agg"})
    options.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in SECTIONS if name in (options.only or SECTIONS)]
    fresh, broken = multiprocessing.get_context("spawn"), False
    with ProcessPoolExecutor(options.jobs, mp_context=fresh, max_tasks_per_child=1) as pool:
        for said in pool.map(partial(run_section, folder=options.out), names):
            print(said, flush=True)
            broken = broken or said.endswith("BROKEN")
    return int(broken)


def read(folder: Path, only: Sequence[str] | None) -> dict[str, Any]:
    """What a folder holds, of some sections or all."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.json")):
        if not only or file.stem in only:
            parts = json.loads(file.read_text(encoding="utf-8"))
            with np.load(file.with_suffix(".npz")) as arrays:
                parts |= dict(arrays)
            found |= {f"{file.stem}/{path}": value for path, value in parts.items()}
    return found


def compare_folders(options: argparse.Namespace) -> int:
    """Print what differs; 1 if anything does."""
    renamed = json.loads(options.renamed.read_text(encoding="utf-8")) if options.renamed else {}
    before, after = (read(folder, options.only) for folder in (options.before, options.after))
    before = {new_path(path, renamed): value for path, value in before.items()}
    if not before or not after:
        print("nothing to compare: is there a recording in both folders?")
        return 1
    found: dict[str, str] = dict.fromkeys(before.keys() - after.keys(), "is gone")
    found |= dict.fromkeys(after.keys() - before.keys(), "is new")
    for path in before.keys() & after.keys():
        said = difference(before[path], after[path], options.tolerance)
        if said is not None:
            found[path] = said
    for path in sorted(found)[: options.show]:
        print(f"{path}: {found[path]}")
    if len(found) > options.show:
        print(f"… and {len(found) - options.show} more (--show)")
    print(
        f"{len(before.keys() & after.keys())} compared, {len(found)} differ, tolerance {options.tolerance:g}"
    )
    return int(bool(found))


def new_path(path: str, renamed: Mapping[str, str]) -> str:
    """A path of the old recording, by its new name."""
    for old, new in renamed.items():
        if "/" in old and path.startswith(old):
            path = new + path[len(old) :]
    return "/".join(renamed.get(part, part) for part in path.split("/"))


def difference(old: Any, new: Any, tolerance: float) -> str | None:
    """How two values differ, in words; None if they do not."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        return _array_difference(old, new, tolerance)
    numbers = [isinstance(x, (int, float)) and not isinstance(x, bool) for x in (old, new)]
    if all(numbers):
        close = abs(old - new) <= tolerance * max(1, abs(old)) or (math.isnan(old) and math.isnan(new))
        return None if close or old == new else f"{old!r} → {new!r}"
    if type(old) is type(new) and old == new:
        return None
    return f"{_brief(old)} → {_brief(new)}"


def _array_difference(old: NDArray[Any], new: NDArray[Any], tolerance: float) -> str | None:
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"{old.dtype}{list(old.shape)} → {new.dtype}{list(new.shape)}"
    if np.array_equal(old, new):
        return None
    a, b = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b) / np.maximum(1, np.abs(a)))
    wrong = ~(apart <= tolerance)
    if not wrong.any():
        return None
    return f"{wrong.sum()} of {wrong.size} elements differ, by {np.nanmax(apart):.3g} at most"


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def names_of(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no section {unknown[0]!r}: there are {', '.join(SECTIONS)}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("write", help="record what the package does")
    one.add_argument("out", type=Path)
    one.add_argument("--jobs", type=int, default=2, help="sections at a time")
    one.set_defaults(do=write)
    two = commands.add_parser("compare", help="compare two recordings")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    two.add_argument("--tolerance", type=float, default=1e-6, help="times the larger of 1 and the number")
    two.add_argument("--renamed", type=Path, help="JSON object of renamed keys, old → new")
    two.add_argument("--show", type=int, default=200, help="differences that are printed, at most")
    two.set_defaults(do=compare_folders)
    for command in (one, two):
        command.add_argument("--only", type=names_of, help=f"sections, with commas: {','.join(SECTIONS)}")
    options = parser.parse_args()
    return int(options.do(options))


if __name__ == "__main__":
    sys.exit(main())
