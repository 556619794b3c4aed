"""Training of the fast form of leaving one region out: to predict what each region does to a face's embedding.

The bank (`effects_bank`) says so of training people's faces, with strangers who are drawn for each face. The network
is linear in what is known of a region, so that the best weights are those of a ridge regression: there is nothing to
descend, nothing to resume but the bank, and the same bank gives the same network. How far weights are drawn to zero
is chosen by people who were held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from xfr_plugin.attr.amortised.model import EvidenceCard, EvidenceModel, save_evidence
from xfr_plugin.attr.amortised.network import EvidenceNetwork, RegionFeatures, region_features, rows_of
from xfr_plugin.base.documents import Document
from xfr_plugin.recognition.features import extract, layers_by_size
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.recognizer import Provenance, Recognizer
from xfr_plugin.recognition.zoo import load_recognizer
from xfr_plugin.swaps.regions import FINE_REGIONS
from xfr_plugin.training.effects_bank import BankPlan, FacesBank, Strangers, build_bank
from xfr_plugin.training.engine import threads_of
from xfr_plugin.training.faces_data import FaceSet, all_files, find_faces, read_faces, split_people
from xfr_plugin.training.manifest import build_manifest

__all__ = ["EvidenceConfig", "HeldOut", "fitted", "train_evidence"]

_CHUNK = 64
_PARTNERS = 8
_STILL = 1e-3  # numbers that vary less say nothing
_STRENGTHS = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)


class EvidenceConfig(Document):
    """How the fast form is trained.

    Attributes:
        run: folder of the bank of effects: a run that was killed goes on.
        recognizer: name or weight file of the recognizer whose scores are explained.
        faces: folder of aligned faces, one subfolder a person.
        people: LFW people file; `peopleDevTrain.txt` beside the folder, if left out and there.
        photos: so many photographs of each person at most.
        held_out: share of the people kept for validation.
        bank_faces: faces in the bank. It can grow: a larger bank begins with a smaller one.
        bank_donors: strangers by whom each region of a face is replaced; few do, as others are drawn for each face.
        covered: share of the faces that have random shapes on them.
        strangers: so many people's faces serve as donors.
        held_out_faces: faces in the bank for validation.
        held_out_donors: strangers a face there.
        width: of the network.
        seed: of all that is drawn.
        device: where the recognizer computes.
        threads: CPU threads; torch's own choice, if left out.
        progress: show progress bars on standard error.
    """

    run: Path = Path("runs/evidence")
    recognizer: str = "xfr_compact128"
    faces: Path = Path("../shared/data/faces/lfw112")
    people: Path | None = None
    photos: int = Field(default=8, ge=1)
    held_out: float = Field(default=0.08, gt=0, lt=1)
    bank_faces: int = Field(default=3000, gt=0)
    bank_donors: int = Field(default=1, gt=0)
    covered: float = Field(default=0.33, ge=0, le=1)
    strangers: int = Field(default=400, gt=0)
    held_out_faces: int = Field(default=300, gt=1)
    held_out_donors: int = Field(default=4, gt=1)
    width: int = Field(default=256, gt=0)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"
    threads: int | None = Field(default=None, gt=0)
    progress: bool = True


def train_evidence(config: EvidenceConfig, publish: Path | None = None) -> EvidenceModel:
    """Build the bank, or go on with it, fit an evidence network, and write it.

    Args:
        config: how.
        publish: file to write (.safetensors); `evidence.safetensors` in the run folder, if left out.

    Returns:
        The network; figures of held-out people are on its card.

    Raises:
        InputError: no faces, no feature maps, or a run folder of another bank.
        WeightsError: the recognizer cannot be read.
    """
    with threads_of(config.threads):
        return _trained(config, publish or config.run / "evidence.safetensors")


def _trained(config: EvidenceConfig, publish: Path) -> EvidenceModel:
    recognizer = load_recognizer(config.recognizer, device=config.device).requires_grad_(False)
    size = recognizer.input_size
    layers = layers_by_size(recognizer.network, torch.zeros(1, 3, *size, device=recognizer.device))
    people = {p: files[: config.photos] for p, files in find_faces(config.faces, config.people).items()}
    splits = split_people(people, config.held_out, config.seed, config.photos)
    data = build_manifest(config.faces, all_files(*splits)).digest
    photos, others = (read_faces(config.faces, some, size) for some in splits)
    strangers = Strangers(photos, config.strangers, config.seed)

    def bank(name: str, faces: FaceSet, count: int, donors: int) -> FacesBank:
        plan = BankPlan(faces=count, covered=config.covered, donors=donors, seed=config.seed)
        folder, foreign = config.run / name, faces is others
        return build_bank(
            recognizer, faces, strangers, plan, folder, foreign=foreign, data=data, progress=config.progress
        )

    judged = bank("held_out", others, config.held_out_faces, config.held_out_donors)
    held_out = HeldOut.of(recognizer, judged, others, tuple(layers))
    taught = bank("taught", photos, config.bank_faces, config.bank_donors)
    network, figures = fitted(
        _features(recognizer, taught, tuple(layers)), taught.effects.float().mean(dim=1), held_out,
        tuple(layers.values()), config.width,
    )  # fmt: skip
    chosen = config.people or config.faces.parent / "peopleDevTrain.txt"
    card = EvidenceCard(
        recognizer=recognizer.name,
        recognizer_sha256=fingerprint(recognizer),
        layers=tuple(layers.items()),
        embedding_dim=network.embedding_dim,
        width=network.width,
        errors=held_out.errors(network),
        provenance=Provenance(
            source="trained by this project",
            licence="Apache-2.0",
            training_data=config.faces.name + (f", people of {chosen.name}" if chosen.is_file() else ""),
        ),
        figures={**figures, "faces": float(len(taught)), "data": data},
    )
    model = EvidenceModel(network, card)
    save_evidence(model, publish)
    return model


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Faces of people who were held out, and partners for natural pairs.

    Attributes:
        features: of the faces.
        effects: exact, N×K×R×D, of each of K donors.
        mates: embedding of another photograph of the person, N×D; NaN where there is none.
        people: a number for each face.
    """

    features: RegionFeatures
    effects: Tensor
    mates: Tensor
    people: Tensor

    @classmethod
    def of(cls, recognizer: Recognizer, bank: FacesBank, photos: FaceSet, layers: tuple[str, ...]) -> HeldOut:
        """From a bank and its photographs."""
        every = torch.from_numpy(photos.people)
        people = every[bank.photo]
        later = [torch.nonzero((every == who) & (torch.arange(len(every)) != own)).flatten()
                 for who, own in zip(people, bank.photo, strict=True)]  # fmt: skip
        mates = torch.full_like(bank.whole, torch.nan)
        for place, numbers in enumerate(later):
            if len(numbers):
                mates[place] = recognizer.embed(photos.batch(numbers[:1]).to(recognizer.device))[0].cpu()
        return cls(_features(recognizer, bank, layers), bank.effects.float(), mates, people)

    def values(self, network: EvidenceNetwork) -> dict[str, tuple[Tensor, Tensor]]:
        """By kind of pair: predicted values N×R, and exact ones N×K×R; NaN for what is not seen."""
        with torch.no_grad():
            effects = network(self.features)
        units, count = self.features.embeddings, len(self.people)
        found: dict[str, list[tuple[Tensor, Tensor]]] = {"genuine": [], "impostor": []}
        partners = [("genuine", self.mates)]
        for step in range(1, min(_PARTNERS, count - 1) + 1):
            is_other = self.people != self.people.roll(step)
            partners.append(("impostor", torch.where(is_other[:, None], units.roll(step, dims=0), torch.nan)))
        absent = ~self.features.present
        for kind, rows in partners:
            said = torch.einsum("nrd,nd->nr", effects, rows).masked_fill(absent, torch.nan)
            exact = torch.einsum("nkrd,nd->nkr", self.effects, rows).masked_fill(absent[:, None], torch.nan)
            found[kind].append((said, exact))
        return {
            kind: (torch.cat([said for said, _ in some]), torch.cat([exact for _, exact in some]))
            for kind, some in found.items()
        }

    def figures(self, network: EvidenceNetwork) -> dict[str, float]:
        """R² and correlations of values with exact ones, by kind of pair; and of half of the donors with half."""
        figures: dict[str, float] = {}
        for kind, (said, exact) in self.values(network).items():
            for name, value in _agreement(said, exact.mean(dim=1)).items():
                figures[f"{kind} {name}"] = round(value, 4)
            ceiling = _agreement(exact[:, ::2].mean(dim=1), exact[:, 1::2].mean(dim=1))
            figures[f"{kind} specific, half of the donors"] = round(ceiling["specific"], 4)
        return figures

    def errors(self, network: EvidenceNetwork) -> dict[str, float]:
        """By how much values of each region miss, less what a mean over few donors misses by itself."""
        squares = []
        for said, exact in self.values(network).values():
            noise = exact.var(dim=1) / exact.shape[1]
            squares.append(((said - exact.mean(dim=1)).square() - noise).nanmean(dim=0))
        errors = torch.stack(squares).nanmean(dim=0).clamp_min(1e-6).sqrt()
        known = zip(FINE_REGIONS, errors.tolist(), strict=True)
        return {name: round(error, 5) for name, error in known if error == error}


@torch.no_grad()
def fitted(
    features: RegionFeatures, effects: Tensor, held_out: HeldOut, channels: tuple[int, ...], width: int
) -> tuple[EvidenceNetwork, dict[str, float]]:
    """The network that predicts effects N×R×D best, by ridge regression, and its figures for held-out people."""
    rows, units = rows_of(features).double(), features.embeddings.double()
    network = EvidenceNetwork(channels, units.shape[1], min(width, rows.shape[2])).double()
    _keep_directions(network, rows)
    hidden = network.directions(rows)
    effects = effects.double()
    lost = torch.einsum("nrd,nd->nr", effects, units)[..., None]
    targets = torch.cat((effects - lost * units[:, None], lost), dim=2)
    regressions = [
        _Ridge.of(hidden[there, region], targets[there, region])
        for region, there in enumerate(features.present.T)
    ]
    judged = HeldOut(
        features=held_out.features.to(units),
        effects=held_out.effects.double(),
        mates=held_out.mates.double(),
        people=held_out.people,
    )
    chosen = [_STRENGTHS[len(_STRENGTHS) // 2]] * 2
    for which, kind in ((1, "genuine"), (0, "impostor"), (1, "genuine")):
        tried = {}
        for strength in _STRENGTHS:
            chosen[which] = strength
            _set(network, regressions, chosen)
            tried[strength] = judged.figures(network).get(f"{kind} R2", 0.0)
        chosen[which] = max(tried, key=lambda strength: tried[strength])
    _set(network, regressions, chosen)
    figures = judged.figures(network)
    return network.float(), {**figures, "ridge of directions": chosen[0], "ridge of losses": chosen[1]}


def _keep_directions(network: EvidenceNetwork, rows: Tensor) -> None:
    """Let the network see the main directions of the rows N×R×F, all numbers of which are brought to one size."""
    flat = rows.flatten(0, 1)
    mean, deviation = flat.mean(dim=0), flat.std(dim=0).clamp_min(_STILL)
    scaled = (flat - mean) / deviation
    _, directions = torch.linalg.eigh(scaled.T @ scaled)
    kept = directions.flip(1)[:, : network.width]
    weight = (kept / deviation[:, None]).T
    network.directions.weight.copy_(weight)
    network.directions.bias.copy_(-weight @ mean)


@dataclass(frozen=True, eq=False)
class _Ridge:
    """A regression of targets on h, of one region: means, and what the weights of any strength follow from."""

    mean: Tensor
    targets: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    products: Tensor

    @classmethod
    def of(cls, hidden: Tensor, targets: Tensor) -> _Ridge:
        if not len(hidden):
            return cls(hidden.new_zeros(hidden.shape[1]), targets.new_zeros(targets.shape[1]),
                       hidden.new_zeros(hidden.shape[1]), torch.eye(hidden.shape[1]).to(hidden),
                       hidden.new_zeros(hidden.shape[1], targets.shape[1]))  # fmt: skip
        mean, centre = hidden.mean(dim=0), targets.mean(dim=0)
        apart = hidden - mean
        values, vectors = torch.linalg.eigh(apart.T @ apart)
        return cls(mean, centre, values.clamp_min(0), vectors, vectors.T @ (apart.T @ (targets - centre)))

    def weights(self, strengths: Tensor) -> Tensor:
        """Weights W×T, with a strength for each target."""
        return self.eigenvectors @ (self.products / (self.eigenvalues[:, None] + strengths))


def _set(network: EvidenceNetwork, regressions: list[_Ridge], chosen: list[float]) -> None:
    """Give the network the weights of two strengths: of what else changes, and of how much is lost."""
    strengths = torch.full((network.embedding_dim + 1,), chosen[0], dtype=torch.float64)
    strengths[-1] = chosen[1]
    for region, ridge in enumerate(regressions):
        weights = ridge.weights(strengths)
        network.weights[region] = weights
        network.means[region] = ridge.targets - ridge.mean @ weights


def _features(recognizer: Recognizer, bank: FacesBank, layers: tuple[str, ...]) -> RegionFeatures:
    parts = []
    for some in torch.arange(len(bank)).split(_CHUNK):
        images = (bank.images[some].float() / 255).to(recognizer.device)
        parts.append(region_features(extract(recognizer, images, layers), bank.regions(some)))
    names = ("rows", "embeddings", "present")
    return RegionFeatures(*(torch.cat([getattr(part, name).cpu() for part in parts]) for name in names))


def _agreement(said: Tensor, exact: Tensor) -> dict[str, float]:
    """R² over the mean of each region, and correlations: of all values, and after these means are taken off."""
    there = exact.isfinite() & said.isfinite()
    if int(there.sum()) < 3:
        return {"R2": 0.0, "total": 0.0, "specific": 0.0}
    rest, own = (exact - exact.nanmean(dim=0))[there], (said - said.nanmean(dim=0))[there]
    missed = (said - exact)[there]
    return {
        "R2": float(1 - missed.square().sum() / rest.square().sum().clamp_min(1e-12)),
        "total": _correlation(said[there], exact[there]),
        "specific": _correlation(own, rest),
    }


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.nan_to_num(torch.corrcoef(torch.stack((a, b)))[0, 1]))
