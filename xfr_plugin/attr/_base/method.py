"""What an attribution class says about its method, by a decorator in its own file."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from xfr_plugin.base.registry import Registry
from xfr_plugin.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from xfr_plugin.attr._base.pair import PairAttribution
    from xfr_plugin.recognition.black_boxes import Gives
    from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["METHODS", "Method", "Need", "attribution_method"]

Need: TypeAlias = Literal["gradient", "scores", "decoder", "composite", "evidence"]
"""What a method asks of a recognizer: its gradient; nothing but scores (a black box will do); a trained decoder; a
Zennit composite for its network, and so a network of known layers; an evidence network trained for it."""

_QUICK = 10


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        name: key in `METHODS`.
        title: full name.
        cls: the attribution class.
        paper: where it was published.
        year: of publication.
        needs: what it asks of the recognizer.
        cost: passes through the network, for a pair and D channels.
        caveat: what keeps its maps from being taken at face value; goes into every explanation.
        relative_cost: its time in forward passes of a pair, before it has run (`benchmarks/serving_costs.py`).
        batchable: whether a pair has the same maps in a batch as alone. Methods that draw samples for a batch do not.
        preferred: place among those that stand in for others, 1 for the first; None for the rest.
        compared: whether comparisons show it unless methods are named: one or two of each family.
        needs_both_images: whether a probe against an embedding is refused.
        service_options: what differs from the defaults in the service, where time is dear.
        trial_options: small values for a trial: defaults are for photographs, and slow on purpose.
    """

    name: str
    title: str
    cls: type[PairAttribution]
    paper: str
    year: int
    needs: Need
    cost: str
    caveat: str
    _: KW_ONLY
    relative_cost: float = math.inf
    batchable: bool = False
    preferred: int | None = None
    compared: bool = False
    needs_both_images: bool = False
    service_options: Mapping[str, Any] = field(default_factory=dict)
    trial_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quick(self) -> bool:
        """Whether it answers within some ten forward passes of a pair."""
        return self.relative_cost <= _QUICK

    @property
    def summary(self) -> str:
        """The first sentence of its class."""
        return (inspect.getdoc(self.cls) or "").partition("\n\n")[0].replace("\n", " ")

    def options(self) -> dict[str, Any]:
        """Option names and defaults: the keyword-only arguments of the class."""
        parameters = inspect.signature(self.cls).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def fits(self, gives: Gives) -> bool:
        """Whether what a recognizer gives is enough for the method; see `serves`."""
        if gives == "scores":
            return self.needs == "scores" and hasattr(self.cls, "from_scores")
        return gives == "gradient" or self.needs in ("scores", "decoder")

    def serves(self, recognizer: Recognizer) -> bool:
        """Whether the method can explain a recognizer: by what it gives, and by what ships for it."""
        return self.fits(recognizer.gives) and self.cls.available_for(recognizer)

    def build(self, recognizer: Recognizer, threshold: float, **options: Any) -> PairAttribution:
        """Make the attribution for a recognizer.

        Raises:
            InputError: the recognizer does not give what the method needs; an option that the method does not have,
                or a value it does not accept.
        """
        if not self.fits(recognizer.gives):
            raise InputError(self._misfit(recognizer))
        known = self.options()
        for option, value in options.items():
            if option not in known:
                raise UnknownNameError.of(f"option of {self.name}", option, known)
            if isinstance(known[option], bool) and not isinstance(value, bool):  # any text would be true
                raise InputError(f"{option} of {self.name} must be true or false, got {value!r}")
        import torch  # the list of methods does without

        try:
            with torch.inference_mode(False):  # or what is loaded for the method would know no gradients
                if recognizer.gives == "scores":
                    black_box: Any = self.cls
                    made: PairAttribution = black_box.from_scores(recognizer.compare, threshold, **options)
                    return made
                return self.cls(recognizer, threshold, **options)
        except TypeError as error:
            raise InputError(f"{self.name} does not accept these options: {error}") from error

    def _misfit(self, recognizer: Recognizer) -> str:
        gives = recognizer.gives
        serving = [
            method.name for method in METHODS.values() if method.fits(gives) and method.needs == "scores"
        ]
        needed = _NEEDED[self.needs] if gives == "embeddings" else "embeddings"
        given = "no gradient, only embeddings" if gives == "embeddings" else "scores only"
        return (
            f"{self.name} needs {needed}, and recognizer {recognizer.name!r} gives {given}: "
            f"use one of {', '.join(serving)}"
        )


_NEEDED: Mapping[Need, str] = {
    "gradient": "the embedding's gradient",
    "composite": "the layers of a network of torch",
    "evidence": "the feature maps of a network of torch",
    "decoder": "embeddings",
    "scores": "scores",
}


def _listed(method: Method) -> tuple[bool, int]:
    """Our methods and the paper's come before those of others, and of these the newest first."""
    ours = method.cls.__module__.startswith("xfr_plugin.attr.") and ".peers." not in method.cls.__module__
    return not ours, -method.year


METHODS: Registry[Method] = Registry("method", "xfr_plugin.attr", _listed)
"""Method name → method. The modules of `xfr_plugin.attr` are imported when it is first read."""


def _described(cls: type[PairAttribution], /, *, relative_cost: float, **fields: Any) -> Method:
    return Method(cls=cls, relative_cost=relative_cost, **fields)


attribution_method = METHODS.describing(_described)
"""Decorator of attribution classes that puts them into `METHODS`; its arguments are the attributes of `Method`."""
