"""The pipeline: nothing is computed twice, and a batch gives each pair what it would get alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from helpers.counting import counted
from helpers.serving_faces import crops
from PIL import Image

import xfr_plugin
from xfr_plugin.attr import Amortised, LeaveOneOut, ReconstructionSaliency, Xssab
from xfr_plugin.attr._base.prepared import Prepared
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.pipeline import (
    Face,
    FacePair,
    attribute_pairs,
    check_pair,
    decide_pair,
    embed_faces,
    find_pair_regions,
)
from xfr_plugin.faces import AlignedFace
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.backends import PAYS

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

THRESHOLD = (0.22, "given")


@pytest.fixture(scope="module")
def shipped() -> Recognizer:
    recognizer = load_recognizer("xfr_compact128")
    recognizer.self_test()  # once a recognizer, else at its first use
    return recognizer


@pytest.fixture(scope="module")
def faces() -> list[AlignedFace]:
    return [AlignedFace(np.asarray(Image.open(io.BytesIO(crop)).convert("RGB"))) for crop in crops(4)]


def pairs_of(
    recognizer: Recognizer, faces: list[AlignedFace], layers: tuple[str, ...] = ()
) -> list[FacePair]:
    a, b, c, d = embed_faces(recognizer, faces, layers)
    return find_pair_regions([decide_pair(recognizer, pair, THRESHOLD) for pair in ((a, b), (c, d))])


def test_many_decisions_are_made_by_another_runtime(faces: list[AlignedFace]) -> None:
    """A long-lived process: the first ones by torch, the others by what is faster, and all the same."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    recognizer = load_recognizer("xfr_compact128")
    first = embed_faces(recognizer, faces)
    assert recognizer.for_forward_passes(0) is recognizer
    for _ in range(PAYS // len(faces)):
        last = embed_faces(recognizer, faces)
    assert recognizer.for_forward_passes(0) is not recognizer
    for a, b in zip(first, last, strict=True):
        assert float(a.unit @ first[0].unit) == pytest.approx(float(b.unit @ last[0].unit), abs=1e-5)
    assert embed_faces(recognizer, faces[:1], ("conv2",))[0].maps, "maps are torch's"


def test_explain_computes_nothing_twice(
    shipped: Recognizer, faces: list[AlignedFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both faces pass the recognizer once, for `amortised` too, and the rest is done once."""
    counts = counted(monkeypatch)
    xfr_plugin.explain(faces[0].image, faces[1].image, recognizer=shipped, method="amortised")
    assert counts == {"passes": 1, "images": 2, "outlines": 1, "fingerprints": 1, "predicted": 1}


def test_reconstruction_explains_from_the_embeddings_of_the_decision(
    shipped: Recognizer, faces: list[AlignedFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted(monkeypatch)
    xfr_plugin.explain(faces[0].image, faces[1].image, recognizer=shipped, method="reconstruction")
    assert counts == {"passes": 1, "images": 2, "outlines": 1, "fingerprints": 1}


def test_regions_of_a_batch_are_found_at_once(
    shipped: Recognizer, faces: list[AlignedFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted(monkeypatch)
    (a, b), (_, d) = (pair.faces for pair in pairs_of(shipped, faces))
    assert counts["outlines"] == 1
    assert a.regions is not None
    shared = find_pair_regions([decide_pair(shipped, pair, THRESHOLD) for pair in ((a, b), (a, d))])
    assert shared[0].faces[0] is shared[1].faces[0], "a face of two pairs is one face"


@pytest.mark.parametrize("cls", [Amortised, LeaveOneOut, ReconstructionSaliency, Xssab])
def test_what_is_known_changes_no_map(
    cls: type[Amortised | LeaveOneOut | ReconstructionSaliency | Xssab],
    shipped: Recognizer,
    faces: list[AlignedFace],
) -> None:
    """Maps and errors from kept embeddings, feature maps and regions are those from the images alone."""
    attribution = cls(shipped, THRESHOLD[0])
    together = attribute_pairs(attribution, pairs_of(shipped, faces, attribution.layers), errors=True)
    for pair, found in zip(pairs_of(shipped, faces), together, strict=True):
        alone = attribution.explain_prepared(
            Prepared(pair.images[:1]), Prepared(pair.images[1:]), errors=True
        )
        for side, values in zip((alone.probes, alone.references), found.sides, strict=True):
            assert side is not None
            expected = side[0].sum(dim=0).numpy()
            np.testing.assert_allclose(values, expected, atol=2e-4 * np.abs(expected).max())
        assert (alone.errors is None) == (found.errors is None)
        for known, own in zip(alone.errors[0] if alone.errors else (), found.errors or (), strict=True):
            assert own == pytest.approx(known, abs=1e-4)


@pytest.mark.parametrize("cls", [LeaveOneOut, Xssab])
def test_a_stored_embedding_on_either_side(
    cls: type[LeaveOneOut | Xssab], shipped: Recognizer, faces: list[AlignedFace]
) -> None:
    """The face is explained against the embedding, on whichever side it is, and can be checked."""
    face, other = embed_faces(shipped, faces[:2])
    stored = Face(other.unit)
    attribution = cls(shipped, THRESHOLD[0])
    first, second = (decide_pair(shipped, pair, THRESHOLD) for pair in ((face, stored), (stored, face)))
    assert first.verification.score == pytest.approx(second.verification.score, abs=1e-6)
    assert first.notes()[-1] == "probe taken as already aligned"
    assert all(caution.face in (None, "probe") for caution in first.cautions())
    (maps,), (swapped,) = attribute_pairs(attribution, [first]), attribute_pairs(attribution, [second])
    assert maps.sides[1] is None
    assert swapped.sides[0] is None
    np.testing.assert_array_equal(maps.sides[0], swapped.sides[1])
    checks = check_pair(shipped, first, maps), check_pair(shipped, second, swapped)
    assert checks[0] == checks[1]


def test_embeddings_alone(shipped: Recognizer, faces: list[AlignedFace]) -> None:
    """They are explained by what needs no image, as their images are; and cannot be checked."""
    a, b = embed_faces(shipped, faces[:2])
    pair = decide_pair(shipped, (Face(a.unit), Face(b.unit)), THRESHOLD)
    reconstruction = ReconstructionSaliency(shipped, THRESHOLD[0])
    (maps,), (expected,) = (
        attribute_pairs(reconstruction, [asked]) for asked in (pair, decide_pair(shipped, (a, b), THRESHOLD))
    )
    np.testing.assert_allclose(maps.sides[0], expected.sides[0], atol=1e-7)
    with pytest.raises(InputError, match="needs an image"):
        attribute_pairs(Xssab(shipped, THRESHOLD[0]), [pair])
    with pytest.raises(InputError, match="there is none"):
        check_pair(shipped, pair, maps)


def test_a_network_is_not_changed_by_being_read(shipped: Recognizer, faces: list[AlignedFace]) -> None:
    layers = Amortised(shipped).layers
    (face,) = embed_faces(shipped, faces[:1], layers)
    assert tuple(face.maps) == layers
    assert not any(module._forward_hooks for module in shipped.modules())
    torch.testing.assert_close(face.unit, shipped.embed(face.image[None])[0])
