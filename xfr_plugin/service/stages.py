"""A request's way: what it asks for, its faces, their embeddings, the decision, the explanation, the answer.

The work is done by `explanation.pipeline`; what is added is what a service needs: limits, deadlines, prices, and
answers in the form that was asked for. Each stage makes a new value of the last one's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.registry import get_method
from xfr_plugin.explanation.explanation import region_evidence
from xfr_plugin.explanation.gallery import contrast, nearest
from xfr_plugin.explanation.pipeline import (
    SIDES,
    Face,
    FacePair,
    PairMaps,
    Side,
    check_pair,
    decide_pair,
    embed_faces,
    find_pair_regions,
)
from xfr_plugin.explanation.verification import choose_threshold
from xfr_plugin.explanation.words import sentences
from xfr_plugin.faces import AlignedFace, template_regions
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import Decoder
from xfr_plugin.service.answers import (
    Answer,
    Candidate,
    Decision,
    ExplanationAnswer,
    Replacement,
    Versions,
    Warned,
)
from xfr_plugin.service.batch import Clock
from xfr_plugin.service.costs import CostBook
from xfr_plugin.service.decoding import FaceSettings, decode_embedding, decode_face, decode_gallery
from xfr_plugin.service.deployment import Deployment
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.explaining import Explainers
from xfr_plugin.service.rendering import embedding_text, face_reasons
from xfr_plugin.service.requests import FaceInput, Request

__all__ = [
    "Models",
    "answer",
    "decide_together",
    "explain_together",
    "keep_deadline",
    "open_inputs",
    "plan",
    "price",
]

_CHECK_FORWARDS = 66.0
"""Forward passes of a pair that the check of faithfulness takes, about."""


@dataclass(frozen=True)
class Models:
    """Everything that the stages work with.

    Attributes:
        deployment: what the operator decided.
        recognizer: whose scores are answered.
        embedder: the same, or a copy that embeds the same in less time: no one changes its weights while it serves.
        decoder: of the recognizer, if there is one.
        explainers: its attribution methods.
        costs: time that the methods take, by which deadlines are kept.
        cpu_costs: CPU time that they take, by which neighbours are.
        faces: how images become aligned faces.
        method: what `auto` stands for.
        embedding_dim: length of an embedding.
        forward_seconds: time of a forward pass of a pair.
        versions: of all these.
    """

    deployment: Deployment
    recognizer: Recognizer
    embedder: Recognizer
    decoder: Decoder | None
    explainers: Explainers
    costs: CostBook
    cpu_costs: CostBook
    faces: FaceSettings
    method: str
    embedding_dim: int
    forward_seconds: float
    versions: Versions


@dataclass(frozen=True)
class Task:
    """A request that is allowed.

    Attributes:
        request: what is asked.
        clock: its time.
        threshold: to decide at, and where it comes from, in words.
        method: that explains; None if reasons are not asked for.
        replaced: why it is not the one that was asked for.
    """

    request: Request
    clock: Clock
    threshold: tuple[float, str]
    method: str | None
    replaced: Replacement | None


@dataclass(frozen=True, eq=False)
class Opened:
    """A task and what it brings: images and stored embeddings by side, and a gallery N×D instead of a reference."""

    task: Task
    aligned: Mapping[Side, AlignedFace]
    stored: Mapping[Side, Face]
    gallery: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Decided:
    """A task and its decisions.

    Attributes:
        task: what is asked, and how it is answered.
        faces: by side.
        pairs: one; of a gallery one for each candidate, best first, and for the runner-up of the last one.
        candidates: of a gallery.
        maps: of each pair, once they are explained.
    """

    task: Task
    faces: Mapping[Side, Face]
    pairs: list[FacePair]
    candidates: tuple[Candidate, ...] | None = None
    maps: tuple[PairMaps, ...] = ()


def plan(models: Models, request: Request, explain: bool, clock: Clock) -> Task:
    """Check what is asked against the deployment, and choose threshold and method.

    Args:
        models: of the deployment.
        request: what is asked.
        explain: whether to say why, if the request leaves it open.
        clock: of the request.
    """
    wanted = explain if request.explain is None else request.explain
    _check_allowed(models.deployment, request)
    chosen = request if request.threshold is not None or request.fmr is not None else models.deployment
    threshold = choose_threshold(models.recognizer, chosen.threshold, chosen.fmr)
    return Task(request, clock, threshold, *_method(models, request) if wanted else (None, None))


def open_inputs(models: Models, task: Task) -> Opened:
    """Decode faces, embeddings and gallery."""
    request, clock, dim = task.request, task.clock, models.embedding_dim
    if dim == 0 and (request.gallery or any(face.image is None for face in _given(request).values())):
        raise ServiceError(
            "unusable", "this recognizer compares images and has no embeddings: send two images"
        )
    aligned: dict[Side, AlignedFace] = {}
    stored: dict[Side, Face] = {}
    gallery = None
    images = sum(face.image is not None for face in _given(request).values())
    for name, given in _given(request).items():
        if given.image is not None:
            alignment = request.alignment if models.deployment.detector else "aligned"
            with clock.timed("faces"):
                left = images - len(aligned)
                aligned[name] = decode_face(given.image, models.faces, alignment, given.face, left)
        elif given.embedding is not None:
            with clock.timed("decode"):
                stored[name] = Face(torch.from_numpy(decode_embedding(given.embedding, dim)))
    if request.gallery is not None:
        with clock.timed("decode"):
            gallery = decode_gallery(request.gallery, dim, models.deployment.limits)
    return Opened(task, aligned, stored, gallery)


def decide_together(models: Models, batch: list[Opened]) -> list[Decided]:
    """Embed all images of a batch in one forward pass, and decide on each pair, or rank each gallery.

    The pass keeps the feature maps that methods will ask for.
    """
    start = time.perf_counter()
    aligned = [face for opened in batch for face in opened.aligned.values()]
    embedded: list[Face] = []
    if aligned:
        methods = {method for opened in batch if (method := opened.task.method)}
        layers = models.explainers.layers(methods)
        embedded = embed_faces(models.recognizer if layers else models.embedder, aligned, layers)
    spent, remaining = time.perf_counter() - start, iter(embedded)
    decided = []
    for opened in batch:
        own = {side: next(remaining) for side in opened.aligned}
        if own:
            opened.task.clock.spent("embed", spent)
        with opened.task.clock.timed("decide"):
            decided.append(_decided(models, opened, {**own, **opened.stored}))
    return decided


def keep_deadline(models: Models, decided: Decided) -> Decided:
    """Take a faster method if the chosen one cannot keep the deadline."""
    task, method, count = decided.task, decided.task.method, len(decided.pairs)
    if method is None:
        return decided
    check = _CHECK_FORWARDS * models.forward_seconds if task.request.wants("faithfulness") else 0.0
    left = (task.clock.seconds_left() - check) / count
    gallery = decided.candidates is not None
    if models.costs.fits(method, left, gallery):
        return decided
    others = [name for name in _possible(models, task.request) if name != method]
    faster = models.costs.faster(others, left, gallery)
    if faster is None:
        raise ServiceError(
            "deadline", "no method of this deployment explains within the deadline: allow more time"
        )
    expected = 1000 * models.costs.estimate(method, gallery) * count
    reason = f"{method} takes about {expected:.0f} ms and would not keep the deadline: {faster} answered"
    asked = task.replaced.asked if task.replaced else method
    replaced = Replacement(asked=asked, used=faster, reason=reason)
    return replace(decided, task=replace(task, method=faster, replaced=replaced))


def price(models: Models, task: Task) -> float:
    """Seconds of CPU time that a request's reasons are expected to take, as far as its deadline lets them."""
    if task.method is None:
        return 0.0
    gallery = task.request.gallery
    pairs = 1 if gallery is None else min(gallery.top, models.deployment.limits.top) + 1
    each = models.cpu_costs.estimate(task.method, gallery is not None)
    check = _CHECK_FORWARDS * models.forward_seconds if task.request.wants("faithfulness") else 0.0
    return min(each * pairs + check, max(task.clock.seconds_left(), 0.0))


def explain_together(models: Models, batch: list[Decided]) -> list[Decided]:
    """Explain requests that one method was chosen for, in shared passes."""
    method = batch[0].task.method
    if method is None:
        return batch
    start = time.perf_counter()
    pairs = find_pair_regions([pair for decided in batch for pair in decided.pairs])
    found_regions = time.perf_counter()
    computed = time.thread_time()
    maps = iter(models.explainers.maps(method, pairs))
    computed, end = time.thread_time() - computed, time.perf_counter()
    kinds = {decided.candidates is not None for decided in batch}
    if len(kinds) == 1:
        models.costs.learn(method, (end - found_regions) / len(pairs), *kinds)
        models.cpu_costs.learn(method, computed / len(pairs), *kinds)
    for decided in batch:
        decided.task.clock.spent("explain", end - start)
    remaining = iter(pairs)
    return [
        replace(
            decided,
            pairs=[next(remaining) for _ in decided.pairs],
            maps=tuple(next(maps) for _ in decided.pairs),
        )
        for decided in batch
    ]


def answer(models: Models, decided: Decided, batch_size: int) -> Answer:
    """Put decision and reasons into the form that was asked for."""
    task, best = decided.task, decided.pairs[0].verification
    candidates, explanation = decided.candidates, None
    if decided.maps and candidates is None:
        explanation = _explanation(models, task, decided.pairs[0], decided.maps[0])
    elif decided.maps and candidates is not None:
        candidates = tuple(_explained(models, decided, place) for place in range(len(candidates)))
    aligned = {side: face.aligned for side in SIDES if (face := decided.faces.get(side)) and face.aligned}
    warnings = [Warned(**vars(caution)) for caution in decided.pairs[0].cautions()]
    explained = explanation is not None or any(candidate.explanation for candidate in candidates or ())
    if explained and task.replaced is not None:
        warnings.append(Warned(code="method_replaced", message=task.replaced.reason))
    has_embeddings = models.embedding_dim > 0
    embeddings: dict[str, str] = {
        side: embedding_text(decided.faces[side].unit) for side in aligned if has_embeddings
    }
    return Answer(
        id=task.request.id,
        decision=Decision.of(best),
        candidates=candidates,
        explanation=explanation,
        embeddings=embeddings if task.request.wants("embeddings") else None,
        versions=models.versions,
        timings_ms=task.clock.timings,
        batch_size=batch_size,
        warnings=tuple(warnings),
    )


def _given(request: Request) -> dict[Side, FaceInput]:
    """Faces that were given, by side."""
    given: dict[Side, FaceInput | None] = {"probe": request.probe, "reference": request.reference}
    return {name: face for name, face in given.items() if face is not None}


def _check_allowed(deployment: Deployment, request: Request) -> None:
    for what, allowed in (
        ("reconstructions", deployment.reconstructions),
        ("embeddings", deployment.embeddings),
        ("faithfulness", deployment.faithfulness),
    ):
        if what in request.returns and not allowed:
            raise ServiceError("not_allowed", f"this deployment does not return {what}")
    if (request.threshold is not None or request.fmr is not None) and not deployment.callers_choose_threshold:
        raise ServiceError("not_allowed", "this deployment decides at its own threshold: leave it out")
    longest = deployment.limits.deadline_ms
    if longest is not None and (request.deadline_ms or 0) > longest:
        raise ServiceError("not_allowed", f"deadline_ms must be at most {longest} here")


def _possible(models: Models, request: Request) -> list[str]:
    """Methods that are allowed, and can explain what was given."""
    images = sum(face.image is not None for face in _given(request).values())
    return models.explainers.possible(models.deployment.methods, images)


def _method(models: Models, request: Request) -> tuple[str, Replacement | None]:
    """The method that was asked for; for `auto` another, if it cannot explain what was given."""
    is_auto = request.method == "auto"
    asked = models.method if is_auto else get_method(request.method).name
    if asked not in models.deployment.methods:
        allowed = ", ".join(models.deployment.methods)
        raise ServiceError("not_allowed", f"this deployment does not explain by {asked}: it allows {allowed}")
    possible = _possible(models, request)
    if asked in possible:
        return asked, None
    if not is_auto or not possible:
        raise ServiceError(
            "unusable",
            f"{asked} cannot explain these inputs: it needs an image, or a decoder (reconstruction), or "
            "a network (amortised), or another recognizer (see `xfr methods`)",
        )
    # one that needs no image explains both sides, and in no time
    other = next((name for name in possible if models.explainers.can(name, 0)), possible[0])
    reason = f"{asked} cannot explain what was given: {other} answered"
    return other, Replacement(asked=asked, used=other, reason=reason)


def _decided(models: Models, opened: Opened, faces: dict[Side, Face]) -> Decided:
    task, gallery, asked = opened.task, opened.gallery, opened.task.request.gallery
    if gallery is None or asked is None:
        pair = decide_pair(models.recognizer, (faces["probe"], faces["reference"]), task.threshold)
        return Decided(task, faces, [pair])
    top = min(asked.top, models.deployment.limits.top)
    scores, ranked = nearest(faces["probe"].unit.float().cpu().numpy(), gallery, top + 1)
    pairs = [
        decide_pair(
            models.recognizer,
            (faces["probe"], Face(torch.from_numpy(gallery[index]))),
            task.threshold,
            float(score),
        )
        for index, score in zip(ranked, scores, strict=True)
    ]
    candidates = []
    for place, index in enumerate(ranked[:top].tolist()):
        after = int(ranked[place + 1]) if place + 1 < len(ranked) else None
        candidates.append(
            Candidate(
                index=index,
                id=None if asked.ids is None else asked.ids[index],
                decision=Decision.of(pairs[place].verification),
                lead=None if after is None else float(scores[place] - scores[place + 1]),
                against=after,
            )
        )
    return Decided(task, faces, pairs, tuple(candidates))


def _explained(models: Models, decided: Decided, place: int) -> Candidate:
    """A candidate of a gallery, with what argues for it rather than for its runner-up."""
    assert decided.candidates is not None
    candidate = decided.candidates[place]
    if candidate.against is None:
        return candidate
    maps = contrast(decided.maps[place], decided.maps[place + 1])
    found = _explanation(models, decided.task, decided.pairs[place], maps)
    return candidate.model_copy(update={"explanation": found})


def _explanation(models: Models, task: Task, pair: FacePair, maps: PairMaps) -> ExplanationAnswer:
    request, clock, entry = task.request, task.clock, get_method(task.method or "")
    likenesses: Mapping[str, Tensor] = {}
    if request.gallery is None and request.wants("reconstructions"):
        with clock.timed("reconstruct"):
            likenesses = _likenesses(models, pair)
    with clock.timed("render"):
        tables = [
            None
            if values is None
            else region_evidence(values, face.regions or template_regions(values.shape), errors)
            for face, values, errors in zip(pair.faces, maps.sides, maps.errors or (None, None), strict=True)
        ]
        images = [None if face.aligned is None else face.aligned.image for face in pair.faces]
        probe, reference = face_reasons(request, maps, tables, images, likenesses)
    checked = None
    if request.wants("faithfulness"):
        with clock.timed("check"):
            checked = check_pair(models.recognizer, pair, maps)
    words = sentences(pair.verification, tables, pair.notes(), (f"{entry.name}: {entry.caveat}",), checked)
    return ExplanationAnswer(
        method=entry.name,
        title=entry.title,
        paper=entry.paper,
        options={**entry.options(), **models.explainers.given(entry.name)},
        caveat=entry.caveat,
        replaced=task.replaced,
        probe=probe,
        reference=reference,
        words=words if request.wants("words") else None,
        faithfulness=checked,
    )


@torch.no_grad()
def _likenesses(models: Models, pair: FacePair) -> dict[str, Tensor]:
    """Faces that the decoder makes of the embeddings, by side."""
    if models.decoder is None:
        raise ServiceError(
            "unusable", "no decoder is deployed for this recognizer: there are no reconstructions"
        )
    units = torch.stack([face.unit for face in pair.faces]).to(models.decoder.mean_embedding)
    return dict(zip(SIDES, models.decoder.faces(units), strict=True))
