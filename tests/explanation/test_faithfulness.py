"""The check of an explanation: true maps supported and false ones contradicted, what it measures, documents."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn
from typer.testing import CliRunner

import xfr_plugin
from xfr_plugin import Comparison, Explanation, Recognizer
from xfr_plugin.attr.intervention.level import region_shares
from xfr_plugin.cli.tables import comparison_table, faithfulness_table, region_table
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.explanation import region_evidence
from xfr_plugin.explanation.faithfulness import (
    CONTRADICTED,
    SETS,
    SUPPORTED,
    Faithfulness,
    check_faithfulness,
    pair_effects,
    verdict_of,
)
from xfr_plugin.explanation.figures.explanation import explanation_png
from xfr_plugin.faces import RegionMap, template_regions
from xfr_plugin.swaps.donors import population_face

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

SIZE = (56, 48)
Photo = NDArray[np.uint8]


SHARED = template_regions(SIZE).mask("left_eye", "right_eye")
DIFFERENT = template_regions(SIZE).mask("mouth", "chin")
TRUE = SHARED * 1.0 - DIFFERENT


class Watcher(nn.Module):
    """Sees eyes, brows, mouth and chin, and nothing else: their grain is the embedding."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = [images.mean(dim=1)[:, torch.from_numpy(mask)] for mask in (SHARED, DIFFERENT)]
        return torch.cat([values - values.mean(dim=1, keepdim=True) for values in seen], dim=1)


@pytest.fixture(scope="module")
def watcher() -> Recognizer:
    return Recognizer(Watcher(), input_size=SIZE, threshold=0.3, name="watcher")


@pytest.fixture(scope="module")
def faces() -> tuple[torch.Tensor, torch.Tensor]:
    """Two grainy faces that share eyes and brows, and nothing else."""
    generator = torch.Generator().manual_seed(3)
    probe, reference = torch.rand(2, 1, 3, *SIZE, generator=generator)
    return probe, torch.where(torch.from_numpy(SHARED), probe, reference)


def test_true_maps_are_supported_and_their_negatives_contradicted(
    watcher: Recognizer, faces: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = check_faithfulness(watcher, faces, (TRUE, TRUE), 0.3)
    assert found.verdict == "supported"
    assert [row.face for row in found.rows] == ["probe"] * len(SETS) + ["reference"] * len(SETS)
    wrong = check_faithfulness(watcher, faces, (-TRUE, -TRUE), 0.3)
    assert wrong.verdict == "contradicted"
    assert found.statistic == pytest.approx(-(wrong.statistic or 0))


def test_strangers_lower_and_partners_raise_the_score(
    watcher: Recognizer, faces: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = check_faithfulness(watcher, faces, (TRUE, TRUE), 0.3)
    rows = {row.regions: row for row in found.rows if row.face == "probe"}
    eyes, mouth, nose = rows["right_eye", "left_eye"], rows["mouth",], rows["nose",]
    assert eyes.replaced < -0.2
    assert mouth.exchanged is not None
    assert mouth.exchanged > 0.1
    assert eyes.said > 0.2 > mouth.said
    assert abs(nose.replaced) < 0.05, "what the network does not see"
    before = float((watcher.embed(faces[0]) * watcher.embed(faces[1])).sum())
    assert before > 0.3
    assert eyes.reverses == (before + eyes.replaced < 0.3)


def test_maps_that_know_nothing_are_mostly_weak(
    watcher: Recognizer, faces: tuple[torch.Tensor, torch.Tensor]
) -> None:
    effects = pair_effects(watcher, faces)
    words = []
    for seed in range(60):
        noise = gaussian_filter(np.random.default_rng(seed).standard_normal((2, *SIZE)), (0, 4, 4))
        words.append(effects.judge(noise, 0.3).verdict)
    assert words.count("weak") >= 40


def test_what_is_typical_of_all_pairs_is_not_supported(
    watcher: Recognizer, faces: tuple[torch.Tensor, torch.Tensor]
) -> None:
    shares = region_shares(watcher, "leave_one_out")
    regions = template_regions(SIZE)
    typical = sum(
        shares[name] * regions.mask(name) / regions.mask(name).sum()
        for name in {name for names in SETS for name in names}
    )
    found = check_faithfulness(watcher, faces, (typical, typical), 0.3)
    assert (found.verdict, found.statistic) == ("weak", None)


def test_the_answer_is_the_same_each_time_and_leaves_nothing_behind(
    recognizer: Recognizer, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    inputs = (pair[0][:1].requires_grad_(), pair[1][:1])
    maps = tuple(np.random.default_rng(0).standard_normal((2, 24, 20)))
    before = {name: value.clone() for name, value in recognizer.state_dict().items()}
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # which must be left alone
    first = check_faithfulness(recognizer, inputs, maps, 0.2)
    assert first == check_faithfulness(recognizer, inputs, maps, 0.2)
    assert first.forwards == 2 + 2 * len(first.rows)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002  # as above
    assert inputs[0].grad is None
    assert not any(module._forward_hooks for module in recognizer.modules())
    for name, value in recognizer.state_dict().items():
        assert torch.equal(value, before[name])


def test_one_measurement_judges_any_number_of_maps(
    watcher: Recognizer, faces: tuple[torch.Tensor, torch.Tensor]
) -> None:
    effects = pair_effects(watcher, faces)
    for maps in ((TRUE, TRUE), (-TRUE, TRUE)):
        assert effects.judge(maps, 0.3) == check_faithfulness(watcher, faces, maps, 0.3)


def test_regions_that_a_face_does_not_show_are_not_tested(
    watcher: Recognizer, faces: tuple[torch.Tensor, torch.Tensor]
) -> None:
    whole = template_regions(SIZE)
    hidden = np.isin(whole.labels, [whole.names.index(name) for name in ("left_eye", "left_brow")])
    turned = RegionMap(np.where(hidden, 0, whole.labels).astype(np.uint8))
    found = check_faithfulness(watcher, faces, (TRUE, TRUE), 0.3, regions=(turned, whole))
    own = [row.regions for row in found.rows if row.face == "probe"]
    assert not any("left_eye" in names or "left_brow" in names for names in own)
    assert len(own) == len(set(own)) < len(SETS), "what is left of two sides is tested once"


def test_maps_that_claim_nothing_are_weak(
    recognizer: Recognizer, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    inputs = (pair[0][:1], pair[1][:1])
    empty = np.zeros((24, 20))
    around = np.where(template_regions((24, 20)).face, 0.0, 1.0)
    for maps in ((empty, empty), (around, around)):
        found = check_faithfulness(recognizer, inputs, maps, 0.2)
        assert (found.verdict, found.statistic) == ("weak", None)
        assert all(row.said == 0 for row in found.rows)


def test_an_embedding_can_be_the_reference(
    watcher: Recognizer, faces: tuple[torch.Tensor, torch.Tensor]
) -> None:
    embedding = 3 * watcher.embed(faces[1])
    both = check_faithfulness(watcher, faces, (TRUE, TRUE), 0.3)
    for given in (embedding, embedding[0]):
        found = check_faithfulness(watcher, (faces[0], given), (TRUE,), 0.3)
        assert {row.face for row in found.rows} == {"probe"}
        assert all(row.exchanged is None for row in found.rows)
        assert found.rows[0].replaced == pytest.approx(both.rows[0].replaced, abs=1e-5)
        assert found.verdict == "supported"
    assert check_faithfulness(watcher, (faces[0], embedding), (-TRUE,), 0.3).verdict == "contradicted"


def test_verdicts_have_bounds() -> None:
    assert [verdict_of(x) for x in (SUPPORTED, SUPPORTED - 0.01, None)] == ["supported", "weak", "weak"]
    assert [verdict_of(x) for x in (CONTRADICTED, CONTRADICTED + 0.01)] == ["contradicted", "weak"]


def test_bad_input_says_what_is_wrong(
    recognizer: Recognizer, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    inputs, good = (pair[0][:1], pair[1][:1]), np.ones((24, 20))
    for given, maps, message in (
        (pair, (good, good), "one probe and one reference"),
        (inputs, (good,), "for each face"),
        (inputs, (good, good[:5]), "24×20"),
        (inputs, (good, np.full_like(good, np.nan)), "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            check_faithfulness(recognizer, given, maps, 0.2)
    for regions in ([template_regions()] * 2, [template_regions((24, 20))]):
        with pytest.raises(InputError, match="named regions of size 24×20 for each face"):
            check_faithfulness(recognizer, inputs, (good, good), 0.2, regions=regions)


def test_population_face_fits_any_input() -> None:
    for size in ((112, 112), (24, 20), (160, 120)):
        face = population_face(size)
        assert face.shape == (1, 3, *size)
        assert 0.2 < float(face.mean()) < 0.7
    middle = population_face()[0].mean(dim=0)
    assert middle[45:55, 30:46].mean() < middle[60:75, 20:40].mean(), "eyes are darker than cheeks"


@pytest.fixture
def photos(face_photo: Photo) -> tuple[Photo, Photo]:
    return face_photo, np.ascontiguousarray(face_photo[:, ::-1])


@pytest.fixture
def checked(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> Explanation:
    return xfr_plugin.explain(*photos, recognizer=recognizer, method="xssab", alignment="aligned", check=True)


def test_explanations_carry_their_check(
    checked: Explanation, recognizer: Recognizer, photos: tuple[Photo, Photo], tmp_path: Path
) -> None:
    plain = xfr_plugin.explain(*photos, recognizer=recognizer, method="xssab", alignment="aligned")
    assert plain.faithfulness is None
    assert checked.faithfulness is not None
    assert checked.faithfulness.rows
    assert checked.timings.keys() - plain.timings.keys() == {"check"}
    np.testing.assert_array_equal(checked.probe.saliency, plain.probe.saliency)
    _, document = checked.save(tmp_path)
    assert Explanation.load(document).faithfulness == checked.faithfulness
    assert Faithfulness.model_validate_json(checked.faithfulness.model_dump_json()) == checked.faithfulness


def test_pictures_and_tables_say_the_word(checked: Explanation) -> None:
    assert checked.faithfulness is not None
    with Image.open(io.BytesIO(explanation_png(checked))) as picture:
        assert f"Check: {checked.faithfulness.verdict}" in picture.info["Description"]
    table = faithfulness_table(checked.faithfulness)
    assert checked.faithfulness.verdict in str(table.title)
    assert table.row_count == sum(len(row.regions) == 1 for row in checked.faithfulness.rows)
    nothing = checked.faithfulness.model_copy(update={"rows": (), "statistic": None, "verdict": "weak"})
    assert "nothing to test" in str(faithfulness_table(nothing).title)


def test_comparisons_check_each_method(
    recognizer: Recognizer, photos: tuple[Photo, Photo], checked: Explanation, tmp_path: Path
) -> None:
    comparison = xfr_plugin.compare(
        *photos, methods=("xssab", "reconstruction"), recognizer=recognizer, alignment="aligned", check=True
    )
    assert comparison.results[1].error is not None, "there is no decoder for this recognizer"
    assert comparison.explanations["xssab"].faithfulness == checked.faithfulness
    assert comparison_table(comparison).columns[-1].header == "check"
    _, document = comparison.save(tmp_path)
    loaded = Comparison.load(document)
    assert loaded.explanations["xssab"].faithfulness == checked.faithfulness


def test_errors_of_regions_travel(checked: Explanation, tmp_path: Path) -> None:
    labels = template_regions((24, 20))
    regions = region_evidence(checked.probe.saliency, labels, {"nose": 0.25, "mouth": 0.0})
    assert {r.region: r.error for r in regions if r.error is not None} == {"nose": 0.25, "mouth": 0.0}
    with pytest.raises(InputError, match="did you mean 'nose'"):
        region_evidence(checked.probe.saliency, labels, {"noses": 1.0})
    known = replace(checked, probe=replace(checked.probe, regions=regions))
    cells = list(region_table(known).columns[1].cells)
    assert cells[labels.names.index("nose")].endswith("± 0.2500")
    assert "±" not in cells[0]
    picture, document = known.save(tmp_path)
    assert picture.stat().st_size > 10_000
    assert Explanation.load(document).probe.regions == regions


def test_auto_is_the_default_method(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> None:
    answers = [
        xfr_plugin.explain(*photos, recognizer=recognizer, alignment="aligned", **chosen)
        for chosen in ({}, {"method": "auto"}, {"method": None})
    ]
    assert {answer.method for answer in answers} == {"leave_one_out"}


def test_command_line(face_photo: Photo, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(face_photo[:112, :112]).save(tmp_path / f"{name}.png")
    pair = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(tmp_path / "out"), "--check"]
    result = CliRunner().invoke(app, ["explain", *pair, "-m", "auto"])
    assert result.exit_code == 0, result.output
    assert "does the score follow?" in result.stdout
    explanation = Explanation.load(tmp_path / "out" / "explanation.json")
    assert explanation.method == "leave_one_out"
    assert explanation.faithfulness is not None
    result = CliRunner().invoke(app, ["compare", *pair, "-m", "xssab"])
    assert result.exit_code == 0, result.output
    assert "check" in result.stdout
