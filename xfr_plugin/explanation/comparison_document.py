"""A comparison as a file: one JSON document that holds everything, and the grid beside it."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.documents import Document
from xfr_plugin.explanation.comparison import Agreement, Comparison, MethodResult
from xfr_plugin.explanation.document import (
    Base64,
    MapDocument,
    decode_image,
    decode_map,
    decode_regions,
    encode_image,
    encode_map,
    encode_regions,
    read_saved,
    write_both,
)
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, RegionEvidence
from xfr_plugin.explanation.faithfulness import Faithfulness
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.recognition.calibration import Calibration

__all__ = ["ComparisonDocument", "read_comparison", "to_comparison_document", "write_comparison"]

_DPI = 110


class SideDocument(Document):
    """One face under one method: signed map and evidence by region."""

    saliency: MapDocument
    regions: tuple[RegionEvidence, ...]
    labels_png: Base64


class AnswerDocument(Document):
    """What a method answered."""

    options: dict[str, Any]
    notes: tuple[str, ...]
    probe: SideDocument
    reference: SideDocument
    faithfulness: Faithfulness | None = None


class ResultDocument(Document):
    """One method: its answer or its error, and what it cost; memory in bytes."""

    method: str
    seconds: float
    peak_memory: int | None
    error: str | None
    answer: AnswerDocument | None


class AgreementDocument(Document):
    """Rank correlations, row by row; null where undefined."""

    methods: tuple[str, ...]
    smoothing: float
    probe: list[list[float | None]]
    reference: list[list[float | None]]


class ComparisonDocument(Document):
    """The JSON form of a `Comparison`."""

    format: Literal["xfr-comparison/1"] = "xfr-comparison/1"
    version: str
    verification: Verification
    timings: dict[str, float]
    notes: tuple[str, ...]
    calibration: Calibration | None = None
    probe_png: Base64
    reference_png: Base64
    agreement: AgreementDocument
    results: tuple[ResultDocument, ...]


def write_comparison(comparison: Comparison, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write picture and document; see `Comparison.save`."""
    from xfr_plugin.explanation.figures.comparison import comparison_figure  # Matplotlib is slow to import

    picture = io.BytesIO()
    comparison_figure(comparison).savefig(picture, dpi=_DPI)
    return write_both(picture.getvalue(), to_comparison_document(comparison), folder / stem)


def read_comparison(path: Path) -> Comparison:
    """Read a document; see `Comparison.load`."""
    return read_saved(
        "comparison", path, lambda text: _from_document(ComparisonDocument.model_validate_json(text))
    )


def to_comparison_document(comparison: Comparison) -> ComparisonDocument:
    """Turn a comparison into its JSON form."""
    agreement = comparison.agreement
    return ComparisonDocument(
        version=comparison.version,
        verification=comparison.verification,
        timings=dict(comparison.timings),
        notes=comparison.notes,
        calibration=next((e.calibration for e in comparison.explanations.values()), None),
        probe_png=encode_image(comparison.faces[0]),
        reference_png=encode_image(comparison.faces[1]),
        agreement=AgreementDocument(
            methods=agreement.methods,
            smoothing=agreement.smoothing,
            probe=_rows(agreement.probe),
            reference=_rows(agreement.reference),
        ),
        results=tuple(_result_document(result) for result in comparison.results),
    )


def _result_document(result: MethodResult) -> ResultDocument:
    return ResultDocument(
        method=result.method,
        seconds=result.seconds,
        peak_memory=result.peak_memory,
        error=result.error,
        answer=None if result.explanation is None else _answer_document(result.explanation),
    )


def _answer_document(explanation: Explanation) -> AnswerDocument:
    return AnswerDocument(
        options=dict(explanation.options),
        notes=explanation.notes,
        probe=_side_document(explanation.probe),
        reference=_side_document(explanation.reference),
        faithfulness=explanation.faithfulness,
    )


def _side_document(face: FaceExplanation) -> SideDocument:
    labels = encode_regions(face.region_map)
    return SideDocument(saliency=encode_map(face.saliency), regions=face.regions, labels_png=labels)


def _rows(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    return [[value if math.isfinite(value) else None for value in row] for row in matrix.tolist()]


def _matrix(rows: list[list[float | None]], methods: tuple[str, ...]) -> NDArray[np.float64]:
    if [len(row) for row in rows] != [len(methods)] * len(methods):
        raise ValueError("agreement must be given for every two methods")
    return np.array(rows, dtype=np.float64).reshape(len(methods), len(methods))


def _from_document(document: ComparisonDocument) -> Comparison:
    faces = decode_image(document.probe_png), decode_image(document.reference_png)
    agreement = document.agreement
    return Comparison(
        verification=document.verification,
        faces=faces,
        results=tuple(_result(result, document, faces) for result in document.results),
        agreement=Agreement(
            methods=agreement.methods,
            probe=_matrix(agreement.probe, agreement.methods),
            reference=_matrix(agreement.reference, agreement.methods),
            smoothing=agreement.smoothing,
        ),
        notes=document.notes,
        timings=document.timings,
        version=document.version,
    )


def _result(
    result: ResultDocument,
    document: ComparisonDocument,
    faces: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> MethodResult:
    answer, explanation = result.answer, None
    if answer is not None:
        sides = [
            FaceExplanation(
                image, decode_map(side.saliency), side.regions, decode_regions(side.labels_png, side.regions)
            )
            for image, side in zip(faces, (answer.probe, answer.reference), strict=True)
        ]
        explanation = Explanation(
            verification=document.verification,
            probe=sides[0],
            reference=sides[1],
            method=result.method,
            options=answer.options,
            timings={"explain": result.seconds},
            notes=answer.notes,
            version=document.version,
            faithfulness=answer.faithfulness,
            calibration=document.calibration,
        )
    return MethodResult(result.method, explanation, result.seconds, result.peak_memory, result.error)
