"""The stages of a batch: prepare faces, embed, decide, choose a method, explain."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.registry import get_method
from xfr_plugin.explanation.explanation import region_evidence
from xfr_plugin.explanation.faithfulness import check_faithfulness
from xfr_plugin.explanation.verification import choose_threshold, decide
from xfr_plugin.faces import RegionMap, template_regions
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.features import reading
from xfr_plugin.reconstruction import Decoder
from xfr_plugin.service.answers import Candidate, Decision, ExplanationAnswer, Replacement
from xfr_plugin.service.costs import CostBook
from xfr_plugin.service.decoding import FaceSettings, decode_embedding, decode_face, decode_gallery
from xfr_plugin.service.deployment import Deployment
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.explaining import OPTIONS, Explainers, Maps, Question, Side
from xfr_plugin.service.gallery import contrast, rank
from xfr_plugin.service.guard import NETWORKS
from xfr_plugin.service.quality import Name, decision_warnings, face_warnings
from xfr_plugin.service.rendering import embedding_text, face_reasons, sentences
from xfr_plugin.service.work import Work, attempt

__all__ = ["Models", "choose_method", "decide_all", "embed_all", "explain_all", "prepare"]

_NAMES: tuple[Name, ...] = ("probe", "reference")
_CHECK_FORWARDS = 55.0
"""Forward passes of a pair that the check of faithfulness takes, about."""


@dataclass(frozen=True)
class Models:
    """Everything that the stages work with."""

    deployment: Deployment
    recognizer: Recognizer
    decoder: Decoder | None
    explainers: Explainers
    costs: CostBook
    faces: FaceSettings
    method: str
    embedding_dim: int

    def embeddings(self, work: Work) -> dict[str, str] | None:
        """Embeddings of the images of a request, if they are wanted."""
        if not work.request.wants("embeddings"):
            return None
        return {
            name: embedding_text(side.unit) for name, side in work.sides.items() if side.image is not None
        }


def prepare(models: Models, work: Work) -> None:
    """Check what is asked against the deployment, and decode faces and embeddings."""
    _check_allowed(models.deployment, work)
    work.threshold, work.threshold_source = _threshold(models, work)
    dim = models.embedding_dim
    for name, given in work.inputs.items():
        if given.embedding is not None:
            with work.timed("decode"):
                work.sides[name] = Side(torch.from_numpy(decode_embedding(given.embedding, dim)))
            continue
        assert given.image is not None  # made sure by the request
        alignment = work.request.alignment if models.deployment.detector else "aligned"
        with work.timed("faces"):
            work.faces[name] = decode_face(given.image, models.faces, alignment, given.face)
    if work.request.gallery is not None:
        with work.timed("decode"):
            work.gallery = decode_gallery(work.request.gallery, dim, models.deployment.limits)


def embed_all(models: Models, batch: list[Work]) -> None:
    """Embed all images of a batch in one forward pass."""
    owners = [(work, name, face) for work in batch for name, face in work.faces.items()]
    if not owners:
        return
    start = time.perf_counter()
    stacked = np.stack([face.image for _, _, face in owners]).transpose(0, 3, 1, 2)
    recognizer = models.recognizer
    images = torch.from_numpy(stacked / np.float32(255)).to(recognizer.device, recognizer.dtype)
    layers = _layers_to_keep(models, batch)
    with NETWORKS.exclusive() if layers else NETWORKS.shared(), reading(recognizer.network, layers) as kept:
        units = recognizer.embed(images, batch_size=len(images))
    spent = time.perf_counter() - start
    for place, (work, name, _) in enumerate(owners):
        maps = tuple(kept[layer][place] for layer in layers)
        work.sides[name] = Side(units[place], images[place], maps)
    for work in batch:
        if work.faces:
            work.spent("embed", spent)


def _layers_to_keep(models: Models, batch: list[Work]) -> tuple[str, ...]:
    """Layers whose feature maps will be asked for again, by amortised evidence."""
    evidence = models.explainers.evidence
    asked = {work.request.method for work in batch if work.explain}
    is_auto = models.method == "amortised" and "auto" in asked
    return evidence.layers if evidence is not None and (is_auto or "amortised" in asked) else ()


def decide_all(models: Models, batch: list[Work]) -> None:
    """Decide on every pair, and rank galleries."""
    for work in batch:
        with attempt(work), work.timed("decide"):
            if work.gallery is None:
                sides = work.sides["probe"], work.sides["reference"]
                score = float(sides[0].unit.double() @ sides[1].unit.double())
                work.decision = _decision(models, work, score)
                work.questions = [Question(*sides, work.threshold)]
            else:
                _search(models, work)
            _warn(models, work)


def choose_method(models: Models, work: Work) -> None:
    """Choose the method that explains: the one asked for, or a faster one if it cannot keep the deadline."""
    if not work.explain:
        return
    asked = models.method if work.request.method == "auto" else get_method(work.request.method).name
    if asked not in models.deployment.methods:
        allowed = ", ".join(models.deployment.methods)
        raise ServiceError("not_allowed", f"this deployment does not explain by {asked}: it allows {allowed}")
    images = sum(side.image is not None for side in work.sides.values())
    possible = models.explainers.possible(models.deployment.methods, images)
    if asked not in possible:
        asked = _instead(work, asked, possible)
    work.asked = work.asked or asked
    work.method = asked
    left = (work.seconds_left() - _check_seconds(models, work)) / len(work.questions)
    if models.costs.fits(asked, left):
        return
    faster = models.costs.faster([name for name in possible if name != asked], left)
    if faster is None:
        raise ServiceError(
            "deadline", "no method of this deployment explains within the deadline: allow more time"
        )
    expected = 1000 * models.costs.estimate(asked) * len(work.questions)
    work.method = faster
    work.reason = f"{asked} takes about {expected:.0f} ms and would not keep the deadline: {faster} answered"


def explain_all(models: Models, batch: list[Work]) -> None:
    """Explain: questions to one method share passes; quick methods come first."""
    explained = [work for work in batch if work.method is not None]
    explained.sort(key=lambda work: (models.costs.estimate(work.method or ""), work.method or ""))
    for method, group in groupby(explained, key=lambda work: work.method or ""):
        members = list(group)
        for work, maps in zip(members, _shared_maps(models, method, members), strict=True):
            if work.error is None:
                with attempt(work):
                    _finish(models, work, method, maps)


def _shared_maps(models: Models, method: str, members: list[Work]) -> list[list[Maps]]:
    """Maps of each member's questions; if the shared passes fail, each tries alone and keeps its own error."""
    if method == "amortised":
        for work in members:
            _label(models, work)
    questions = [question for work in members for question in work.questions]
    start = time.perf_counter()
    try:
        together = models.explainers.maps(method, questions)
    except Exception:
        return [_maps_alone(models, method, work) for work in members]
    spent = time.perf_counter() - start
    models.costs.learn(method, spent / len(questions))
    found = iter(together)
    for work in members:
        work.spent("explain", spent)
    return [[next(found) for _ in work.questions] for work in members]


def _label(models: Models, work: Work) -> None:
    """Find the regions of both faces before they are asked for, once."""
    with attempt(work), work.timed("explain"):
        work.labels = _regions(work, models.recognizer.input_size)
        probe, reference = (
            replace(work.sides[name], labels=labels) for name, labels in zip(_NAMES, work.labels, strict=True)
        )
        work.questions = [replace(q, probe=probe, reference=reference) for q in work.questions]


def _maps_alone(models: Models, method: str, work: Work) -> list[Maps]:
    with attempt(work), work.timed("explain"):
        return models.explainers.maps(method, work.questions)
    return []


def _finish(models: Models, work: Work, method: str, maps: list[Maps]) -> None:
    if work.gallery is not None:
        with work.timed("render"):
            _explain_candidates(models, work, method, maps)
        return
    _decode_likenesses(models, work)
    with work.timed("render"):
        assert work.decision is not None
        explanation = _explanation(models, work, method, maps[0], work.decision)
    if work.request.wants("faithfulness"):
        with NETWORKS.exclusive(), work.timed("check"):
            found = check_faithfulness(models.recognizer, *_checkable(work, maps[0]), work.threshold)
            explanation = explanation.model_copy(update={"faithfulness": found})
    work.explanation = explanation


def _explanation(
    models: Models, work: Work, method: str, maps: Maps, decision: Decision
) -> ExplanationAnswer:
    entry = get_method(method)
    images = _images(work)
    regions = work.labels or _regions(work, models.recognizer.input_size)
    probe, reference = face_reasons(
        maps, work.request, (regions[0], regions[1]), (images[0], images[1]), work.likenesses
    )
    words = None
    if work.request.wants("words"):
        tables = tuple(
            None if m is None else region_evidence(m, labels) for m, labels in zip(maps, regions, strict=True)
        )
        words = sentences(decision, tables, method, entry.caveat)
    replaced = None
    if work.asked is not None and work.asked != method:
        replaced = Replacement(asked=work.asked, used=method, reason=work.reason)
    return ExplanationAnswer(
        method=method,
        title=entry.title,
        paper=entry.paper,
        options={**entry.options(), **OPTIONS.get(method, {})},
        caveat=entry.caveat,
        replaced=replaced,
        probe=probe,
        reference=reference,
        words=words,
    )


def _images(work: Work) -> list[NDArray[np.uint8] | None]:
    return [work.faces[name].image if name in work.faces else None for name in _NAMES]


def _regions(work: Work, size: tuple[int, int]) -> list[RegionMap]:
    """Each face's own named regions; the template's where none are found, and of a stored embedding's likeness."""
    images = _images(work)
    shown = [torch.tensor(image).permute(2, 0, 1) / 255 for image in images if image is not None]
    with NETWORKS.shared():  # the outline finder is a network too
        found = iter(find_regions(torch.stack(shown)) if shown else ())
    return [template_regions(size) if image is None else next(found) for image in images]


def _explain_candidates(models: Models, work: Work, method: str, maps: list[Maps]) -> None:
    assert work.candidates is not None
    explained = []
    for place, candidate in enumerate(work.candidates):
        if candidate.against is not None:
            found = _explanation(models, work, method, contrast(maps, place), candidate.decision)
            candidate = candidate.model_copy(update={"explanation": found})
        explained.append(candidate)
    work.candidates = tuple(explained)


def _search(models: Models, work: Work) -> None:
    gallery, asked = work.gallery, work.request.gallery
    assert gallery is not None
    assert asked is not None
    top = min(asked.top, models.deployment.limits.top)
    probe = work.sides["probe"]
    scores, ranked = rank(probe.unit.float().cpu().numpy(), gallery, top)
    candidates = []
    for place, index in enumerate(ranked[:top]):
        after = ranked[place + 1] if place + 1 < len(ranked) else None
        candidates.append(
            Candidate(
                index=index,
                id=None if asked.ids is None else asked.ids[index],
                decision=_decision(models, work, float(scores[index])),
                lead=None if after is None else float(scores[index] - scores[after]),
                against=after,
            )
        )
    work.candidates, work.decision = tuple(candidates), candidates[0].decision
    work.questions = [Question(probe, Side(torch.from_numpy(gallery[i])), work.threshold) for i in ranked]


def _decision(models: Models, work: Work, score: float) -> Decision:
    made = decide(models.recognizer, score, work.threshold, work.threshold_source)
    return Decision(
        match=made.match,
        score=made.score,
        threshold=made.threshold,
        threshold_source=made.threshold_source,
        margin=made.margin,
        log_likelihood_ratio=made.log_likelihood_ratio,
    )


def _warn(models: Models, work: Work) -> None:
    for name in _NAMES:
        if name in work.faces:
            work.warnings += face_warnings(name, work.faces[name])
    assert work.decision is not None
    given = work.threshold_source == "given"
    work.warnings += decision_warnings(work.decision, models.recognizer, given)


def _decode_likenesses(models: Models, work: Work) -> None:
    if not work.request.wants("reconstructions"):
        return
    if models.decoder is None:
        raise ServiceError(
            "unusable", "no decoder is deployed for this recognizer: there are no reconstructions"
        )
    with work.timed("reconstruct"), torch.no_grad():
        units = torch.stack([work.sides[name].unit for name in _NAMES]).to(models.decoder.mean_embedding)
        with NETWORKS.shared():
            faces = models.decoder.faces(units)
        work.likenesses = dict(zip(_NAMES, faces, strict=True))


def _checkable(work: Work, maps: Maps) -> tuple[tuple[Tensor, Tensor], list[NDArray[np.float32]]]:
    """Inputs and maps as the check takes them: a pair of images, or an image and an embedding."""
    named = [(work.sides[name], values) for name, values in zip(_NAMES, maps, strict=True)]
    named.sort(key=lambda pair: pair[0].image is None)  # the image first: the score is symmetric
    if named[0][0].image is None:
        raise ServiceError("malformed", "faithfulness is checked by changing images, and there is none")
    inputs = [side.unit if side.image is None else side.image[None] for side, _ in named]
    values = [v for side, v in named if side.image is not None and v is not None]
    return (inputs[0], inputs[1]), values


def _check_allowed(deployment: Deployment, work: Work) -> None:
    request = work.request
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


def _threshold(models: Models, work: Work) -> tuple[float, str]:
    request, deployment = work.request, models.deployment
    if request.threshold is not None or request.fmr is not None:
        return choose_threshold(models.recognizer, request.threshold, request.fmr)
    return choose_threshold(models.recognizer, deployment.threshold, deployment.fmr)


def _instead(work: Work, asked: str, possible: list[str]) -> str:
    """Of a method that cannot explain these inputs: another for `auto`, and an error else."""
    if work.request.method == "auto" and possible:
        # of stored embeddings it explains both sides, and in no time
        other = "reconstruction" if "reconstruction" in possible else possible[0]
        work.asked = asked
        work.reason = f"{asked} cannot explain what was given: {other} answered"
        return other
    raise ServiceError(
        "unusable",
        f"{asked} cannot explain these inputs: it needs an image, or two (amortised), or a decoder (reconstruction)",
    )


def _check_seconds(models: Models, work: Work) -> float:
    if not work.request.wants("faithfulness"):
        return 0.0
    return _CHECK_FORWARDS * models.costs.estimate("xssab") / 5
