"""BiLRP: exact against four nested loops, in every way of computing it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import ConnectionPatch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from xfr_plugin.base.weights import write_weights
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError, ResultError
from xfr_plugin.explanation.figures.explanation import AGAINST_COLOUR, FOR_COLOUR
from xfr_plugin.explanation.figures.matches import (
    matches_figure,
    matches_table,
    strongest_matches,
    write_matches,
)
from xfr_plugin.explanation.matches import RegionMatches, match_regions
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces import RegionMap, load_photo, template_regions
from xfr_plugin.lrp.attributors import CosineRelevance
from xfr_plugin.lrp.bilrp import BiLRP, grid_masks, random_projection, region_masks
from xfr_plugin.lrp.choice import composite_for
from xfr_plugin.recognition import Provenance, build_network, load_recognizer

SIZE = (12, 9)


def composite() -> EpsilonPlusFlat:
    return EpsilonPlusFlat()


@pytest.fixture
def network() -> nn.Module:
    """Bias-free, N×3×12×9 → N×6."""
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 7, 6, bias=False))
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def images() -> Tensor:
    """Two pairs: two probes, then their references."""
    return torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture
def quarters() -> RegionMap:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = (2 * (rows >= 5) + (columns >= 4)).astype(np.uint8)
    return RegionMap(labels, ("a", "b", "c", "d"))


def by_hand(network: nn.Module, probe: Tensor, reference: Tensor, regions: RegionMap) -> Tensor:
    """Relevance of every pair of regions: a loop over channels, regions of the one and of the other face."""
    result = torch.zeros(len(regions.names), len(regions.names), dtype=torch.float64)
    for k in range(6):
        start = torch.eye(6, dtype=torch.float64)[k]
        maps = [
            Gradient(network, composite(), lambda out, row=start: functional.normalize(out) * row)(
                face[None]
            )[1][0]
            for face in (probe, reference)
        ]
        for i, name in enumerate(regions.names):
            for j, other in enumerate(regions.names):
                from_probe = float(maps[0][:, regions.mask(name)].sum())
                from_reference = float(maps[1][:, regions.mask(other)].sum())
                result[i, j] += from_probe * from_reference
    return result


def test_exact_against_loops_over_channels_and_regions(
    network: nn.Module, images: Tensor, quarters: RegionMap
) -> None:
    output, found = BiLRP(network, composite(), regions=quarters)(images)
    assert found.shape == (2, 4, 4)
    torch.testing.assert_close(output, network(images).detach())
    for i in range(2):
        torch.testing.assert_close(found[i], by_hand(network, images[i], images[2 + i], quarters))


def test_passes_by_region_and_by_channel_agree(
    network: nn.Module, images: Tensor, quarters: RegionMap
) -> None:
    masks = region_masks(quarters, images)
    few = BiLRP(network, composite(), regions=masks)(images)[1]  # 4 regions, 6 channels: passes by region
    padded = torch.cat((masks, torch.zeros(3, *SIZE)))
    many = BiLRP(network, composite(), regions=padded, chunk_size=4)(images)[1]  # 7 regions: by channel
    torch.testing.assert_close(many[:, :4, :4], few)
    assert many[:, 4:].abs().max() == 0


def test_entries_sum_to_the_score_without_biases(network: nn.Module, images: Tensor) -> None:
    units = functional.normalize(network(images).detach())
    score = (units[:2] * units[2:]).sum(1)
    for regions in (1, 3, template_regions(SIZE)):
        _, found = BiLRP(network, composite(), regions=regions)(images)
        torch.testing.assert_close(found.sum((1, 2)), score, rtol=1e-4, atol=1e-6)


def test_normalised_entries_sum_to_the_score_with_biases_too(images: Tensor) -> None:
    torch.manual_seed(4)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 7, 6))
    network = nn.Sequential(*layers).double().eval()
    units = functional.normalize(network(images).detach())
    score = (units[:2] * units[2:]).sum(1)
    plain = BiLRP(network, composite(), regions=3)(images)[1].sum((1, 2))
    found = BiLRP(network, composite(), regions=3, normalization="l1")(images)[1].sum((1, 2))
    torch.testing.assert_close(found, score)
    assert ((plain - score).abs() > 1e-3).all()


def test_specific_part_is_what_the_common_distribution_leaves(
    network: nn.Module, images: Tensor, quarters: RegionMap
) -> None:
    """Against the formula, one channel at a time; and its rows and columns sum to 0."""
    units = functional.normalize(network(images).detach())
    pooled = torch.zeros(4, 4, 6, dtype=torch.float64)
    for k in range(6):
        start = torch.eye(6, dtype=torch.float64)[k]
        _, maps = Gradient(network, composite(), lambda out, row=start: functional.normalize(out) * row)(
            images
        )
        for p, name in enumerate(quarters.names):
            pooled[:, p, k] = maps[..., torch.from_numpy(quarters.mask(name))].sum((1, 2))
    for normalization in ("none", "l1"):
        if normalization == "l1":
            pooled = units[:, None] * pooled.abs() / pooled.abs().sum(1, keepdim=True)
        rest = pooled.clone()
        for i in range(4):
            common = sum(units[i, k] * pooled[i, :, k] for k in range(6))
            for k in range(6):
                rest[i, :, k] -= units[i, k] * common
        expected = torch.stack(
            [sum(torch.outer(rest[i, :, k], rest[i + 2, :, k]) for k in range(6)) for i in range(2)]
        )
        attributor = BiLRP(
            network, composite(), regions=quarters, part="specific", normalization=normalization
        )
        _, found = attributor(images)
        torch.testing.assert_close(found, expected)
        assert found.sum(1).abs().max() < 1e-4 * found.abs().max()
        assert found.sum(2).abs().max() < 1e-4 * found.abs().max()


def test_specific_part_by_projection(network: nn.Module, images: Tensor) -> None:
    _, exact = BiLRP(network, composite(), regions=2, part="specific")(images)
    _, found = BiLRP(network, composite(), regions=2, part="specific", projections=4000, chunk_size=1000)(
        images
    )
    assert (found - exact).norm() < 0.1 * exact.norm()


def test_row_sums_are_the_relevance_of_the_score(
    network: nn.Module, images: Tensor, quarters: RegionMap
) -> None:
    _, found = BiLRP(network, composite(), regions=quarters)(images)
    _, maps = CosineRelevance(network, composite())(images)
    for i in range(2):
        expected = [float(maps[i][:, quarters.mask(name)].sum()) for name in quarters.names]
        expected_tensor = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(found[i].sum(1), expected_tensor, rtol=1e-4, atol=1e-6)


def test_swapping_the_faces_transposes(network: nn.Module, images: Tensor, quarters: RegionMap) -> None:
    _, found = BiLRP(network, composite(), regions=quarters)(images)
    _, swapped = BiLRP(network, composite(), regions=quarters)(images.roll(2, dims=0))
    torch.testing.assert_close(swapped, found.transpose(1, 2))


def test_default_regions_are_the_templates(network: nn.Module, images: Tensor) -> None:
    _, found = BiLRP(network, composite())(images)
    _, expected = BiLRP(network, composite(), regions=template_regions(SIZE))(images)
    assert torch.equal(found, expected)


def test_random_projection_is_unbiased_and_its_error_falls_with_its_size(
    network: nn.Module, images: Tensor, quarters: RegionMap
) -> None:
    _, exact = BiLRP(network, composite(), regions=quarters)(images)
    errors = {}
    for projections in (4, 64):
        found = torch.stack(
            [
                BiLRP(network, composite(), regions=quarters, projections=projections, seed=seed)(images)[1]
                for seed in range(24)
            ]
        )
        mean_error = (found.mean(0) - exact).norm() / exact.norm()
        errors[projections] = float((found - exact).flatten(1).norm(dim=1).mean() / exact.norm())
        assert mean_error < 2 * errors[projections] / 24**0.5
    assert 0.15 < errors[64] / errors[4] < 0.4  # √(4/64) = 0.25


def test_error_of_a_projection_stays_below_its_bound() -> None:
    x, y = torch.randn(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = float(((x @ x) * (y @ y) + (x @ y) ** 2) / 16) ** 0.5
    products = [(p @ x) @ (p @ y) - x @ y for p in (random_projection(16, 20, seed) for seed in range(300))]
    deviation = float(torch.stack(products).square().mean()) ** 0.5
    assert 0.7 * bound < deviation < 1.1 * bound
    assert torch.equal(random_projection(4, 9, 1), random_projection(4, 9, 1))


def test_grid_cells_divide_the_image() -> None:
    masks = grid_masks(4, (10, 9))
    assert masks.shape == (16, 10, 9)
    assert torch.equal(masks.sum(0), torch.ones(10, 9, dtype=torch.float64))
    assert masks[0, 0, 0] == masks[-1, -1, -1] == 1
    assert masks.sum((1, 2)).min() >= 4


def test_wrong_arguments_are_refused(network: nn.Module, images: Tensor) -> None:
    with pytest.raises(InputError, match="at least one row"):
        BiLRP(network, regions=0)
    with pytest.raises(InputError, match="projections"):
        BiLRP(network, projections=0)
    with pytest.raises(InputError, match="chunk_size"):
        BiLRP(network, chunk_size=0)
    with pytest.raises(InputError, match="normalization"):
        BiLRP(network, normalization="l2")
    with pytest.raises(InputError, match="part"):
        BiLRP(network, part="some")
    with pytest.raises(InputError, match="every channel"):
        BiLRP(network, normalization="l1", projections=4)
    with pytest.raises(InputError, match="got 3 images"):
        BiLRP(network)(images[:3])
    with pytest.raises(InputError, match="got 0 images"):
        BiLRP(network)(images[:0])
    with pytest.raises(InputError, match="images 12×9"):
        BiLRP(network, regions=template_regions((112, 112)))(images)
    with pytest.raises(InputError, match="does not fit"):
        BiLRP(network, regions=10)(images)


@pytest.fixture
def matches(quarters: RegionMap) -> RegionMatches:
    rng = np.random.default_rng(0)
    specific = rng.normal(size=(4, 4))
    specific[2, 1] = 9.0
    faces = rng.integers(0, 255, (2, *SIZE, 3), dtype=np.uint8)
    decision = Verification(
        score=0.5, threshold=0.2, threshold_source="given", recognizer="small", provenance=Provenance()
    )
    regions = RegionMap(quarters.labels, ("outside", "left_eye", "nose", "mouth"))
    return RegionMatches(decision, (faces[0], faces[1]), regions, specific + 1, specific, 9.0, 0.3, "rules")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_strongest_matches_come_first_and_lie_inside_the_face(matches: RegionMatches) -> None:
    found = strongest_matches(matches, 100)
    assert found[0] == ("nose", "left_eye", 9.0, 10.0)
    strengths = [abs(specific) for _, _, specific, _ in found]
    assert strengths == sorted(strengths, reverse=True)
    assert len(found) == 9
    assert all("outside" not in pair[:2] for pair in found)


def test_picture_draws_strength_and_sign(matches: RegionMatches) -> None:
    figure = matches_figure(matches)
    lines = [artist for artist in figure.get_children() if isinstance(artist, ConnectionPatch)]
    assert len(lines) == 9
    for line, (_, _, specific, _) in zip(reversed(lines), strongest_matches(matches), strict=True):
        assert to_hex(line.get_edgecolor()) == (FOR_COLOUR if specific >= 0 else AGAINST_COLOUR).lower()
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths)
    ends = lines[-1].xy1, lines[-1].xy2
    assert ends == ((1.5, 8.0), (6.0, 2.0))  # centres of the nose and of the left eye
    assert "MATCH: score 0.500" in figure.get_suptitle()


def test_files_hold_every_pair(matches: RegionMatches, tmp_path: Path) -> None:
    picture, table = write_matches(matches, tmp_path / "new")
    assert picture.stat().st_size > 10_000
    rows = read_rows(table)
    assert len(rows) == 16
    row = next(row for row in rows if (row["probe_region"], row["reference_region"]) == ("nose", "left_eye"))
    assert (float(row["specific"]), float(row["relevance"]), int(row["probe_pixels"])) == (9.0, 10.0, 28)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["bilrp.csv", "bilrp.png"]
    (tmp_path / "file").touch()
    with pytest.raises(ResultError, match="cannot write"):
        write_matches(matches, tmp_path / "file")


def test_empty_matrices_can_be_drawn(matches: RegionMatches) -> None:
    nothing = np.zeros((4, 4))
    empty = replace(matches, relevance=nothing, specific=nothing, self_match=0.0)
    assert matches_figure(empty).axes
    assert matches_table(empty).row_count == 9


def test_command_writes_picture_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (160, 120, 3), dtype=np.uint8)).save(f"{name}.png")
    torch.manual_seed(0)
    write_weights(tmp_path / "net.safetensors", build_network("faceid").state_dict(), {})
    arguments = ["bilrp", "a.png", "b.png", "-r", "net.safetensors", "--threshold", "0.5", "--out", "result"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "regions that matched" in result.stdout
    relevance = [float(row["relevance"]) for row in read_rows(Path("result/bilrp.csv"))]
    score = float(result.stdout.split("score ")[1].split()[0])
    assert sum(relevance) == pytest.approx(score, abs=1e-4)
    for bad in (["--composite", "gamma"], ["--alignment", "some"]):
        result = CliRunner().invoke(app, [*arguments, *bad])
        assert result.exit_code == 2
        assert result.stderr.startswith("xfr: error: ")


@pytest.mark.real_data
def test_like_regions_match_on_a_genuine_pair(xfr_data: Path) -> None:
    folder = xfr_data / "faces" / "lfw112" / "Abel_Pacheco"
    photos = (folder / "Abel_Pacheco_0001.jpg", folder / "Abel_Pacheco_0004.jpg")
    found = match_regions(*photos, recognizer="xfr_compact128")
    model = load_recognizer("xfr_compact128")
    faces = [load_photo(photo) for photo in photos]
    images = model.preprocess(torch.tensor(np.stack(faces)).permute(0, 3, 1, 2).float() / 255)
    for options, matrix in (({}, found.relevance), ({"part": "specific"}, found.specific)):
        _, expected = BiLRP(model.network, composite_for(model), normalization="l1", **options)(images)
        np.testing.assert_allclose(matrix, expected[0].numpy(), rtol=1e-3, atol=1e-6)
    assert found.relevance.sum() == pytest.approx(found.verification.score, abs=1e-4)
    assert np.abs(found.specific.sum(0)).max() < 1e-4
    assert all(probe == reference for probe, reference, *_ in strongest_matches(found, 2))
    of_face = list(found.regions.of_face)
    assert found.specific[np.ix_(of_face, of_face)].max() < found.self_match


@pytest.mark.real_data
def test_shapley_values_match_like_regions_too(xfr_data: Path, tmp_path: Path) -> None:
    """Of faces of one person what is in the same place goes together; the entries sum to most of the score."""
    folder = xfr_data / "faces" / "lfw112" / "Abel_Pacheco"
    photos = (folder / "Abel_Pacheco_0001.jpg", folder / "Abel_Pacheco_0004.jpg")
    found = match_regions(*photos, recognizer="xfr_compact128", by="shapley")
    assert found.relevance.sum() == pytest.approx(found.conserved)
    assert found.conserved == pytest.approx(found.verification.score, abs=0.15)
    like = np.trace(found.relevance)
    assert like > 2 * np.abs(found.relevance).sum() / len(found.regions.names)
    assert [first == second for first, second, *_ in strongest_matches(found, 2)] == [True, True]
    picture, table = write_matches(found, tmp_path)
    assert picture.stat().st_size > 10_000
    assert "shapley" not in table.read_text(encoding="utf-8")


def test_matches_are_by_one_of_two_ways() -> None:
    wrong: Any = "lrp"
    crops = np.random.default_rng(0).integers(0, 255, (2, 112, 112, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="by must be 'bilrp' or 'shapley'"):
        match_regions(*crops, recognizer="xfr_compact128", alignment="aligned", by=wrong)
