"""Names that moved: imports of the old ones keep working, and warn.

`MODULES` has modules that moved, `NAMES` single names that moved out of a module or were renamed.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar, cast

__all__ = ["MODULES", "NAMES", "getattr_of", "install", "renamed_arguments", "renamed_method"]

_ROOT = "xfr_plugin"

F = TypeVar("F", bound=Callable[..., Any])

MODULES: dict[str, str] = {
    "api": "explanation.api",
    "attr.captum_methods": "attr.peers.captum_methods",
    "attr.captum_perturbation": "attr.peers.captum_perturbation",
    "attr.corrrise": "attr.peers.corrrise",
    "attr.ebp": "attr.peers.ebp",
    "attr.evidence": "channels.evidence",
    "attr.evidence_model": "attr.amortised.model",
    "attr.evidence_network": "attr.amortised.network",
    "attr.fame": "attr.peers.fame",
    "attr.fggb": "attr.peers.fggb",
    "attr.gradcam": "attr.peers.gradcam",
    "attr.mery": "attr.peers.mery",
    "attr.reconstruction_explainer": "attr.reconstruction.explainer",
    "attr.relevance": "attr.peers.relevance",
    "attr.srise": "attr.peers.srise",
    "attr.xface": "attr.peers.xface",
    "attr.xssab": "attr.peers.xssab",
    "bilrp_command": "cli.bilrp",
    "client": "service.client",
    "comparison": "explanation.comparison",
    "evaluate_command": "cli.evaluate",
    "evaluation.floor_methods": "evaluation.chance_baselines",
    "evaluation.floors": "evaluation.chance_baselines",
    "evaluation.run": "evaluation.engine",
    "evaluation.planted": "evaluation.protocols.planted_evidence.scores",
    "evaluation.planted_protocol": "evaluation.protocols.planted_evidence.protocol",
    "evaluation.planting": "swaps.planting",
    "faces.blending": "swaps.blending",
    "faithfulness": "explanation.faithfulness",
    "files": "base.files",
    "lrp.matches": "explanation.matches",
    "memory": "base.memory",
    "pipeline": "explanation.pipeline",
    "recognition.weights": "base.weights",
    "reconstruction.exchange": "swaps.exchange",
    "reconstruction.losses": "training.losses",
    "reconstruction.population": "swaps.donors",
    "reconstruction.regional_fit": "training.regional_fit",
    "remote_commands": "cli.remote",
    "report.bilrp": "explanation.figures.matches",
    "report.comparison": "explanation.figures.comparison",
    "report.comparison_document": "explanation.comparison_document",
    "report.document": "explanation.document",
    "report.evaluation": "evaluation.report.files",
    "report.evaluation_curves": "evaluation.report.curves",
    "report.evaluation_plots": "evaluation.report.plots",
    "report.evaluation_style": "evaluation.report.style",
    "report.evaluation_tables": "evaluation.report.tables",
    "report.figure": "explanation.figures.explanation",
    "report.reconstruction": "explanation.figures.channels",
    "report.tables": "cli.tables",
    "training.commands": "cli.train",
    "verification": "explanation.verification",
}
"""Old module → new module, below `xfr_plugin`."""

NAMES: dict[str, dict[str, str]] = {
    "attr.amortised": {"AmortisedAnswer": "attr._base.regional:RegionalAnswer"},
    "attr.evidence_network": {
        "Seen": "recognition.features:FaceFeatures",
        "layers_by_size": "recognition.features:layers_by_size",
    },
    "cli": {name: f"cli.xfr:{name}" for name in ("app", "main")},
    "demo": {
        **{name: f"cli.demonstration:{name}" for name in ("EDITS", "run_demo")},
        "main": "cli.demo:demo_command",
    },
    "evaluation": {"MOVED": "swaps.planting:MIN_SCORE_CHANGE"},
    "evaluation.floor_methods": {"FLOORS": "evaluation.chance_baselines:CHANCE_BASELINES"},
    "evaluation.planting": {"region_parts": "swaps.planting:named_regions"},
    "evaluation.planted": {
        "build_pairs": "swaps.planted_pairs:build_pairs",
        "plant": "swaps.planted_pairs:plant",
        "read_face": "faces.photo:read_face",
    },
    "explanation": {
        name: f"explanation.explanation:{name}"
        for name in (
            "Explanation",
            "FaceExplanation",
            "RegionEvidence",
            "error_shares",
            "net_shares",
            "region_evidence",
        )
    },
    "lrp.reconstruction": {
        name: f"attr.reconstruction:{name}" for name in ("ReconstructionAttributor", "SaliencyAttributor")
    },
    "reconstruction": {"fit_regional": "training.regional_fit:fit_regional"},
    "reconstruction.exchange": {"EXCHANGED_REGIONS": "swaps.regions:EXCHANGED_REGIONS"},
    "reconstruction.losses": {"to_input_size": "reconstruction.network:to_input_size"},
    "reconstruction_command": {
        "atlas_command": "cli.atlas:atlas_command",
        "reconstruct_command": "cli.reconstruct:reconstruct_command",
        "write_channel_table": "cli.atlas:write_channel_table",
    },
    "report": {
        "explanation_figure": "explanation.figures.explanation:explanation_figure",
        "read_explanation": "explanation.document:read_explanation",
        "write_explanation": "explanation.document:write_explanation",
    },
    "serving_commands": {
        f"{name}_command": f"cli.{name}:{name}_command" for name in ("package", "serve", "schemas")
    },
}
"""Module → old name → where it is now, as `module:name`, below `xfr_plugin`."""


def install() -> None:
    """Let old modules be found, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def getattr_of(module: str, moved: ModuleType | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a module below `xfr_plugin` that has `NAMES`; `moved` is where all the others are."""

    def find(name: str) -> Any:
        place = NAMES.get(module, {}).get(name)
        if place is None:
            if moved is not None:
                return getattr(moved, name)
            raise AttributeError(f"module '{_ROOT}.{module}' has no attribute {name!r}")
        where, _, now = place.partition(":")
        _warn(f"{_ROOT}.{module}.{name}", f"{_ROOT}.{where}.{now}")
        return getattr(importlib.import_module(f"{_ROOT}.{where}"), now)

    return find


def renamed_arguments(names: Mapping[str, str], values: Mapping[str, str] | None = None) -> Callable[[F], F]:
    """Let a function take keyword arguments by their old names too, with a warning.

    Args:
        names: old name → new name.
        values: old value of such an argument → new value, where values were renamed too.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                warnings.warn(f"the argument {old} is now {names[old]}", DeprecationWarning, stacklevel=2)
                given = kwargs.pop(old)
                kwargs[names[old]] = (values or {}).get(given, given) if isinstance(given, str) else given
            return function(*args, **kwargs)

        return cast(F, call)

    return decorate


def renamed_method(old: str, new: str) -> Callable[..., Any]:
    """A method by its old name: calls the one by its new name, with a warning."""

    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        name = type(self).__name__
        warnings.warn(f"{name}.{old} is now {name}.{new}", DeprecationWarning, stacklevel=2)
        return getattr(self, new)(*args, **kwargs)

    return call


class _Finder(MetaPathFinder, Loader):
    """Finds modules by their old names: stand-ins that ask the new ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, old = fullname.partition(".")
        gone = root == _ROOT and (old in MODULES or old in NAMES)
        return ModuleSpec(fullname, self, is_package=old == "report") if gone else None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.removeprefix(f"{_ROOT}.")
        moved = None
        if old in MODULES:
            new = f"{_ROOT}.{MODULES[old]}"
            _warn(module.__name__, new)
            moved = importlib.import_module(new)
            module.__doc__ = moved.__doc__
        module.__dict__["__getattr__"] = getattr_of(old, moved)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)
