"""What reconstructions and regional evidence show on people never trained on: the figures of docs/analysis.md.

    python benchmarks/reconstruction_analysis.py --out out/analysis.md --pictures docs/pictures

Needs the real faces (`XFR_DATA`). The people are those of `pairsDevTest.txt`. Intervals are 95 %, from resampling
people, not pairs or images: pairs that share a person are not independent.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from xfr_plugin.channels import decoded_changes, normalised_maps
from xfr_plugin.explanation.figures.explanation import display_map, full_colour_scale, overlay
from xfr_plugin.faces.lfw import read_pairs, read_people
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.reconstruction import Decoder, find_decoder, list_decoders
from xfr_plugin.swaps.regions import COARSE_REGIONS
from xfr_plugin.training.faces_data import FaceSet, embed_faces, read_faces
from xfr_plugin.training.publish import present_pairs

Array = NDArray[np.float64]
REGIONS = tuple(COARSE_REGIONS)
RECOGNIZERS = ("xfr_compact128", "mobilefacenet_ms1m")
GROUPS = ("true accepts", "false rejects", "false accepts", "true rejects")
RESAMPLES = 1000
UNSEEN = 40
SHARPNESS = 3  # the power by which shipped regional maps are made to compete, see `regional_fit`


@dataclass(frozen=True)
class Data:
    """Faces and official pairs; `first`, `second`: numbers of the faces of each pair."""

    faces: FaceSet
    person: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


@dataclass(frozen=True)
class Model:
    """A recognizer, its decoder, and its embeddings of all faces."""

    recognizer: Recognizer
    decoder: Decoder
    embeddings: Tensor

    @property
    def areas(self) -> Array:
        regional = self.decoder.regional
        assert regional is not None
        return regional.areas.double().numpy()

    def evidence(self, first: NDArray[np.int64], second: NDArray[np.int64], own_level: bool = False) -> Array:
        """Density of the default regional evidence, pairs × regions, in hundredths: evidence over area share."""
        regional = self.decoder.regional
        assert regional is not None
        found = []
        for start in range(0, len(first), 4096):
            chunk = slice(start, start + 4096)
            a, b = self.embeddings[first[chunk]], self.embeddings[second[chunk]]
            level = (a * b).sum(dim=1) if own_level else self.recognizer.calibration.eer.threshold
            found.append(regional.evidence(a, b, level, spread="typical").double().numpy())
        return 100 * np.concatenate(found) / self.areas

    def scores(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
        return (self.embeddings[first] * self.embeddings[second]).sum(dim=1).double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="Markdown tables")
    parser.add_argument("--pictures", type=Path, help="folder for analysis_*.jpg")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    data = load_data()
    models = [load_model(name, data) for name in RECOGNIZERS]
    sections: list[tuple[str, Callable[[], str]]] = [
        ("Data", lambda: about(data, models)),
        ("What the density is about", lambda: sources(data, models)),
        ("Correspondences", lambda: correspondences(data, models, options.pictures)),
        ("Decisions", lambda: decisions(data, models, options.pictures)),
        ("Reconstructions", lambda: reconstructions(data, models, options.pictures)),
    ]
    text = ""
    for name, section in sections:
        text += f"## {name}\n\n{section()}\n"
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text, encoding="utf-8")
    print(text)


def load_data() -> Data:
    root = data_root() / "faces"
    pairs = present_pairs(root / "lfw112", read_pairs(root / "pairsDevTest.txt"))
    files = sorted({file for pair in pairs for file in (pair.probe, pair.reference)})
    names = [file.split("/")[0] for file in files]
    assert not set(names) & set(read_people(root / "peopleDevTrain.txt"))
    place = {file: i for i, file in enumerate(files)}
    return Data(
        read_faces(root / "lfw112", {file: [file] for file in files}),
        np.unique(names, return_inverse=True)[1],
        np.array([place[pair.probe] for pair in pairs]),
        np.array([place[pair.reference] for pair in pairs]),
        np.array([pair.same for pair in pairs]),
    )


def load_model(name: str, data: Data) -> Model:
    recognizer = load_recognizer(name)
    return Model(recognizer, find_decoder(recognizer), embed_faces(recognizer, data.faces))


def about(data: Data, models: list[Model]) -> str:
    lines = [
        f"{len(data.faces)} faces of {len(np.unique(data.person))} people; {int(data.same.sum())} genuine and "
    ]
    lines[0] += f"{int((~data.same).sum())} impostor pairs.\n"
    for model in models:
        name = model.decoder.card.name
        digest = hashlib.sha256(list_decoders()[name].read_bytes()).hexdigest()[:12]
        lines.append(
            f"- `{name}` (file's SHA-256 starts with {digest}); threshold "
            f"{model.recognizer.calibration.eer.threshold:.4f}"
        )
    return "\n".join(lines) + "\n"


# --- intervals ------------------------------------------------------------------------------------------------------


def weights_of(*people: NDArray[np.int64], seed: int = 0) -> NDArray[np.float64]:
    """Weights resamples × pairs: how often both people of a pair were drawn."""
    count = max(int(side.max()) for side in people) + 1
    present = np.unique(np.concatenate(people))
    rng = np.random.default_rng(seed)
    drawn = np.zeros((RESAMPLES, count), dtype=np.float32)
    drawn[:, present] = rng.multinomial(len(present), np.full(len(present), 1 / len(present)), size=RESAMPLES)
    result = drawn[:, people[0]]
    if len(people) > 1:
        other = drawn[:, people[1]]
        result = np.where(people[0] == people[1], result, result * other)
    return result


def interval(values: Array, weights: NDArray[np.float64]) -> tuple[Array, Array, Array]:
    """Mean over pairs, and the 95 % interval over people, of values pairs × columns."""
    total = weights.sum(axis=1)
    kept = total > 0
    means = (weights[kept] @ values) / total[kept, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return values.mean(axis=0), low, high


def pair_weights(data: Data, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    return weights_of(data.person[data.first[chosen]], data.person[data.second[chosen]])


def cell(mean: float, low: float, high: float, digits: int = 1, sign: bool = True) -> str:
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    return f"{form} ({form} to {form})".format(mean, low, high)


def cells(values: Array, weights: NDArray[np.float64], digits: int = 1, sign: bool = True) -> list[str]:
    columns = zip(*interval(values, weights), strict=True)
    return [cell(*(float(x) for x in column), digits, sign) for column in columns]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# --- reconstructions ------------------------------------------------------------------------------------------------


def reconstructions(data: Data, models: list[Model], pictures: Path | None) -> str:
    """What reconstructions keep of each region, over one face a person."""
    faces = np.unique(data.person, return_index=True)[1]
    photos = data.faces.images[faces].float() / 255
    text = ""
    rebuilt = []
    for model, judge in zip(models, reversed(models), strict=True):
        with torch.no_grad():
            images = torch.cat([model.decoder.faces(some) for some in model.embeddings[faces].split(64)])
        rebuilt.append(images)
        own = (model.recognizer.embed(images) * model.embeddings[faces]).sum(dim=1).double().numpy()
        other = (judge.recognizer.embed(images) * judge.embeddings[faces]).sum(dim=1).double().numpy()
        weights = weights_of(np.arange(len(faces)))
        cosines = cells(np.stack((own, other), axis=1), weights, 3, sign=False)
        text += (
            f"{model.recognizer.name}, {len(faces)} people: cosine of photo and reconstruction {cosines[0]}; "
        )
        text += f"judged by {judge.recognizer.name} {cosines[1]}\n\n"
        text += kept_table(photos, images) + "\n"
    if pictures:
        chosen = np.linspace(0, len(faces) - 1, 12).round().astype(int)
        save(reconstruction_figure(photos[chosen], [images[chosen] for images in rebuilt], models), pictures,
             "analysis_reconstructions")  # fmt: skip
    return text


def kept_table(photos: Tensor, images: Tensor) -> str:
    """Correlations over people of mean brightness and warmth, and of the pattern inside each region."""
    labels = template_regions((112, 112))
    rows = []
    weights = weights_of(np.arange(len(photos)))
    light = [
        np.tensordot(x.double().numpy(), [0.299, 0.587, 0.114], axes=([1], [0])) for x in (photos, images)
    ]
    warm = [(x[:, 0] - x[:, 2]).double().numpy() for x in (photos, images)]
    fine = [gaussian_filter(x, (0, 1.5, 1.5)) for x in light]
    fine = [x - x.mean(axis=0) for x in fine]
    for name, named in COARSE_REGIONS.items():
        mask = labels.mask(*named)
        brightness = correlation_cell(*(x[:, mask].mean(axis=1) for x in light), weights)
        warmth = correlation_cell(*(x[:, mask].mean(axis=1) for x in warm), weights)
        photo, image = (rows_normalised(x[:, mask]) for x in fine)
        own, other = (photo * image).sum(axis=1), (photo * np.roll(image, 1, axis=0)).sum(axis=1)
        rows.append([name, brightness, warmth, *cells(np.stack((own, other), axis=1), weights, 2)])
    header = ["region", "brightness, r", "red − blue, r", "pattern, r", "pattern, of another person, r"]
    return table(header, rows)


def rows_normalised(values: Array) -> Array:
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def correlation_cell(x: Array, y: Array, weights: NDArray[np.float64]) -> str:
    moments = np.stack((x, y, x * y, x * x, y * y), axis=1)

    def correlation(m: Array) -> Array:
        return (m[..., 2] - m[..., 0] * m[..., 1]) / np.sqrt(
            (m[..., 3] - m[..., 0] ** 2) * (m[..., 4] - m[..., 1] ** 2)
        )

    drawn = correlation((weights @ moments) / weights.sum(axis=1, keepdims=True))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return cell(float(correlation(moments.mean(axis=0))), float(low), float(high), 2)


# --- correspondences ------------------------------------------------------------------------------------------------


def correspondences(data: Data, models: list[Model], pictures: Path | None) -> str:
    """Maps of single channels beside maps of regional directions, on faces never trained on."""
    text = ""
    for number, model in enumerate(models):
        maps, within = unseen_maps(data, model, UNSEEN)
        text += f"{model.recognizer.name}, {UNSEEN} faces:\n\n{map_table(maps, within)}\n"
        text += f"{share_table(model, maps)}\n"
        if pictures and number == 0:
            save(map_figure(model, maps), pictures, "analysis_maps")
    return text


@torch.no_grad()
def unseen_maps(data: Data, model: Model, count: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Where the decoded face changes with channels, groups of them, and directions.

    Returns:
        Mean maps K×h×w over the probes of impostor pairs, and the mean pairwise correlation within a face.
    """
    regional = model.decoder.regional
    assert regional is not None
    impostors = np.flatnonzero(~data.same)
    chosen = impostors[np.linspace(0, len(impostors) - 1, count).round().astype(int)]
    dim = model.embeddings.shape[1]
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
    groups = torch.zeros(len(REGIONS), dim, dim)
    for group, channels in zip(
        groups, torch.randperm(dim, generator=generator).chunk(len(REGIONS)), strict=True
    ):
        group[channels, channels] = 1.0
    shifts = {
        "random groups of 16 channels": groups,
        "regional directions, rotated at random": rotation @ regional.shifts @ rotation.T,
        "regional directions": regional.shifts,
    }
    found: dict[str, list[Tensor]] = {name: [] for name in ("single channels", *shifts)}
    for pair in chosen:
        a, b = model.embeddings[data.first[pair]], model.embeddings[data.second[pair]]
        changes = decoded_changes(model.decoder, a[None], torch.arange(dim)[None], 0.0)[0]
        found["single channels"].append(normalised_maps(changes))
        for name, matrices in shifts.items():
            moved = functional.normalize(a + matrices @ (b - a), dim=1)
            images = model.decoder(torch.cat((a[None], moved)))
            found[name].append(normalised_maps((images[1:] - images[:1]).abs().mean(dim=1)))
    mean = {name: torch.stack(maps).mean(dim=0).double() for name, maps in found.items()}
    within = {name: float(np.mean([pairwise(face) for face in maps])) for name, maps in found.items()}
    return mean, within


def pairwise(maps: Tensor) -> float:
    """Mean correlation of pairs of maps."""
    flat = maps.flatten(1).double().numpy()
    return float(np.corrcoef(flat)[np.triu_indices(len(flat), 1)].mean())


def sharpened(maps: Tensor) -> Tensor:
    """Maps that compete for each pixel, as shipped regional maps do."""
    powers = (maps / maps.mean()) ** SHARPNESS
    return normalised_maps(powers / powers.sum(dim=0))


def map_table(maps: dict[str, Tensor], within: dict[str, float]) -> str:
    """Properties of the maps, as they are and competing; of single channels, means over draws of eight."""
    rng = np.random.default_rng(0)
    rows = []
    for name, plain in maps.items():
        draws = [plain]
        if len(plain) > len(REGIONS):
            draws = [plain[rng.choice(len(plain), len(REGIONS), replace=False)] for _ in range(200)]
        measured = np.mean([[*properties(d), *properties(sharpened(d))] for d in draws], axis=0)
        row = [f"{within[name]:.2f}"]
        for r, area, lift in (measured[:3], measured[3:]):
            row += [f"{r:.2f}", f"{area:.0%}", f"{lift:.2f}"]
        rows.append([name if len(draws) == 1 else f"{name} (draws of eight)", *row])
    header = [
        "maps",
        "r within a face",
        "r of mean maps",
        "effective area",
        "lift",
        "competing: r",
        "area",
        "lift",
    ]
    return table(header, rows)


def properties(maps: Tensor) -> tuple[float, float, float]:
    """Mean pairwise correlation, effective area, and lift in the best-matched regions."""
    flat = maps.flatten(1).numpy()
    entropy = -(flat * np.log(np.maximum(flat, 1e-300))).sum(axis=1)
    return pairwise(maps), float(np.exp(entropy).mean() / flat.shape[1]), matched_lift(*region_shares(maps))


def region_shares(maps: Tensor) -> tuple[Array, Array]:
    """Share of each map in each region K×R, and the regions' area shares."""
    labels = template_regions((maps.shape[1], maps.shape[2]))
    masks = np.stack([labels.mask(*names) for names in COARSE_REGIONS.values()]).astype(np.float64)
    flat = maps.flatten(1).numpy()
    return flat @ masks.reshape(len(masks), -1).T, masks.mean(axis=(1, 2))


def matched_lift(shares: Array, areas: Array) -> float:
    """Geometric mean over regions of share over area, each region given the one map that makes it largest."""
    gain = np.log(np.maximum(shares / areas, 1e-12))
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return float(np.exp(gain[rows, columns].mean()))


def best_channels(model: Model) -> NDArray[np.int64]:
    """For each region the channel whose training atlas has the largest share there."""
    chosen: NDArray[np.int64] = region_shares(model.decoder.atlas.double())[0].argmax(axis=0)
    return chosen


def share_table(model: Model, maps: dict[str, Tensor]) -> str:
    regional = model.decoder.regional
    assert regional is not None
    channels, areas = region_shares(maps["single channels"])
    directions, _ = region_shares(maps["regional directions"])
    shipped, _ = region_shares(regional.maps.double())
    rows = []
    for r, (name, best) in enumerate(zip(REGIONS, best_channels(model), strict=True)):
        values = (areas[r], channels[:, r].mean(), channels[best, r], directions[r, r], shipped[r, r])
        rows.append([name, *(f"{value:.1%}" for value in values)])
    header = ["region", "area", "mean channel", "best channel (chosen on training faces)", "regional direction",
              "shipped regional map"]  # fmt: skip
    return table(header, rows)


# --- decisions ------------------------------------------------------------------------------------------------------


def outcome(model: Model, data: Data) -> NDArray[np.int64]:
    """Index into `GROUPS` of each official pair."""
    accepted = model.scores(data.first, data.second) >= model.recognizer.calibration.eer.threshold
    return np.where(data.same, np.where(accepted, 0, 1), np.where(accepted, 2, 3))


def decisions(data: Data, models: list[Model], pictures: Path | None) -> str:
    """Density of regional evidence by outcome, at score level."""
    text = ""
    for model in models:
        group = outcome(model, data)
        scores = model.scores(data.first, data.second)
        header = ["region"]
        for number, name in enumerate(GROUPS):
            members = group == number
            header.append(f"{name}, n = {members.sum()}, mean score {scores[members].mean():.3f}")
        density = model.evidence(data.first, data.second, own_level=True)
        columns = [
            cells(density[group == g], pair_weights(data, np.flatnonzero(group == g)))
            for g in range(len(GROUPS))
        ]
        rows = [[name, *(column[r] for column in columns)] for r, name in enumerate(REGIONS)]
        text += f"{model.recognizer.name}:\n\n{table(header, rows)}\n"
    if pictures:
        save(error_figure(data, models[0]), pictures, "analysis_errors")
        save(evidence_figure(data, models), pictures, "analysis_evidence")
    return text


def sources(data: Data, models: list[Model]) -> str:
    """How much of the density the score alone explains, and how far it holds from photos to other photos."""
    rows = [[name] for name in REGIONS]
    header = ["region"]
    for model in models:
        header += [f"{model.recognizer.name}: R² of the score, threshold level", "photos to other photos, r"]
        scores = model.scores(data.first, data.second)
        explained = [
            np.corrcoef(scores, column)[0, 1] ** 2 for column in model.evidence(data.first, data.second).T
        ]
        again = other_photos(data, model)
        for row, share, text in zip(rows, explained, again, strict=True):
            row += [f"{share:.2f}", text]
    return table(header, rows)


def other_photos(data: Data, model: Model, count: int = 2000) -> list[str]:
    """Correlation, over pairs of people with two photos each, of score-level density in photos of their own."""
    rng = np.random.default_rng(0)
    people = np.flatnonzero(np.bincount(data.person) > 1)
    photos = {p: np.flatnonzero(data.person == p) for p in people}
    drawn = [rng.choice(people, 2, replace=False) for _ in range(count)]
    sides = [[rng.choice(photos[p], 2, replace=False) for p in pair] for pair in drawn]
    x, y = (
        model.evidence(np.array([a[k] for a, _ in sides]), np.array([b[k] for _, b in sides]), own_level=True)
        for k in (0, 1)
    )
    numbers = np.searchsorted(people, np.array(drawn))
    weights = weights_of(numbers[:, 0], numbers[:, 1])
    return [correlation_cell(x[:, r], y[:, r], weights) for r in range(len(REGIONS))]


# --- pictures -------------------------------------------------------------------------------------------------------


def save(figure: Figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.jpg", dpi=100, pil_kwargs={"quality": 82, "optimize": True})


def picture(image: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = (image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    return array


def show(axes: Axes, image: NDArray[np.generic], title: str = "", **options: object) -> None:
    axes.imshow(image, interpolation="bilinear", **options)
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=7, pad=2)


def reconstruction_figure(photos: Tensor, rebuilt: list[Tensor], models: list[Model]) -> Figure:
    figure = Figure(figsize=(0.74 * len(photos) + 1.2, 2.35))
    panels = figure.subplots(3, len(photos))
    figure.subplots_adjust(left=0.13, right=0.995, top=0.99, bottom=0.01, wspace=0.04, hspace=0.04)
    names = ["photo", *(model.recognizer.name for model in models)]
    for row, (name, images) in enumerate(zip(names, [photos, *rebuilt], strict=True)):
        for axes, image in zip(panels[row], images, strict=True):
            show(axes, picture(image))
        panels[row, 0].text(-0.1, 0.5, name.replace("_", "\n"), transform=panels[row, 0].transAxes, ha="right",
                            va="center", fontsize=7)  # fmt: skip
    return figure


def map_figure(model: Model, maps: dict[str, Tensor]) -> Figure:
    """Single channels, the best of them for each region, regional directions, and shipped regional maps."""
    regional = model.decoder.regional
    assert regional is not None
    channels = maps["single channels"]
    best = best_channels(model)
    spaced = np.arange(0, len(channels), len(channels) // len(REGIONS))
    rows = [
        ("single channels,\nevery 16th", channels[spaced], [f"channel {k}" for k in spaced]),
        ("the channel with\nmost in the region", channels[best], list(map("{}: {}".format, REGIONS, best))),
        ("regional\ndirections", maps["regional directions"], list(REGIONS)),
        ("the same, competing\n(as shipped)", regional.maps.double(), list(REGIONS)),
    ]  # fmt: skip
    figure = Figure(figsize=(9.4, 4.9))
    panels = figure.subplots(len(rows), len(REGIONS))
    figure.subplots_adjust(left=0.14, right=0.995, top=0.95, bottom=0.01, wspace=0.05, hspace=0.18)
    labels = template_regions((channels.shape[1], channels.shape[2]))
    outlines = [labels.mask(*names) for names in COARSE_REGIONS.values()]
    for number, (name, values, titles) in enumerate(rows):
        for r, axes in enumerate(panels[number]):
            density = values[r].numpy() * values[r].numel()
            show(axes, density, titles[r], cmap="magma", vmin=0, vmax=float(np.quantile(density, 0.995)))
            shown = labels.face if number == 0 else outlines[r]
            axes.contour(shown, levels=[0.5], colors="white", linewidths=0.7)
        panels[number, 0].text(-0.1, 0.5, name, transform=panels[number, 0].transAxes, ha="right", va="center",
                               fontsize=7.5)  # fmt: skip
    return figure


def triples(
    figure: Figure,
    data: Data,
    model: Model,
    cases: list[tuple[int, str]],
    across: int,
) -> None:
    """Probe, reference, and evidence map over their mean, for official pairs; one colour scale for all."""
    regional = model.decoder.regional
    assert regional is not None
    chosen = np.array([pair for pair, _ in cases])
    evidence = model.evidence(data.first[chosen], data.second[chosen]) * model.areas / 100
    maps = torch.einsum("nr,rhw->nhw", torch.from_numpy(evidence), regional.maps.double())
    sized = functional.interpolate(maps[:, None], (112, 112), mode="bilinear")[:, 0].numpy()
    shown = [display_map(values) for values in sized]
    scale = full_colour_scale(shown)
    down = -(-len(cases) // across)
    grid = figure.add_gridspec(
        down, across, left=0.005, right=0.995, top=0.965, bottom=0.005, wspace=0.05, hspace=0.24
    )
    for number, (pair, title) in enumerate(cases):
        images = [picture(data.faces.images[side[pair]] / 255) for side in (data.first, data.second)]
        panels = grid[number // across, number % across].subgridspec(1, 3, wspace=0.02).subplots()
        mean = np.mean(images, axis=0)
        for axes, image in zip(panels, [*images, overlay(mean, shown[number], scale)], strict=True):
            show(axes, image)
        panels[1].set_title(title, fontsize=7.5, pad=2)


def error_figure(data: Data, model: Model) -> Figure:
    group, scores = outcome(model, data), model.scores(data.first, data.second)
    cases = []
    for number, word in ((1, "false reject"), (2, "false accept")):
        members = np.flatnonzero(group == number)
        ordered = members[np.argsort(scores[members])]
        cases += [(int(pair), f"{word}, score {scores[pair]:.3f}") for pair in ordered]
    across = 5
    figure = Figure(figsize=(2.12 * across, 0.86 * -(-len(cases) // across) + 0.1))
    triples(figure, data, model, cases, across)
    return figure


def evidence_figure(data: Data, models: list[Model]) -> Figure:
    """Density of evidence at score level by region and outcome, with intervals."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True)
    colours = ("#0072B2", "#56B4E9", "#D55E00", "#999999")
    for axes, model in zip(panels, models, strict=True):
        group = outcome(model, data)
        density = model.evidence(data.first, data.second, own_level=True)
        for number, (name, colour) in enumerate(zip(GROUPS, colours, strict=True)):
            members = np.flatnonzero(group == number)
            mean, low, high = interval(density[members], pair_weights(data, members))
            place = np.arange(len(REGIONS)) + 0.18 * (number - 1.5)
            axes.errorbar(place, mean, yerr=(mean - low, high - mean), fmt="o", ms=3.5, lw=1.2, color=colour,
                          label=f"{name} ({len(members)})")  # fmt: skip
        axes.axhline(0, color="0.5", lw=0.7)
        axes.set_xticks(range(len(REGIONS)), REGIONS, rotation=30, ha="right", fontsize=8)
        axes.set_title(model.recognizer.name, fontsize=9)
        axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)
    panels[0].set_ylabel("evidence over area, × 100,\nbeyond pairs of the same score", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
