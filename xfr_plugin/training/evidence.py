"""Training of amortised evidence: to say in one pass what regions decide, taught by what planting them does.

Every batch is new: probes of training people, of genuine and of impostor pairs, get a region of a stranger or of the
partner's mate, and the recognizer says what that does to the score. Most also get regions of other photographs of
their own person, or of strangers where these decide nothing, so that seams do not tell which region decides.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr.amortised.model import EvidenceCard, EvidenceModel, save_evidence
from xfr_plugin.attr.amortised.network import Answers, EvidenceNetwork, hypothesis_logits
from xfr_plugin.base.files import atomic_path
from xfr_plugin.base.weights import load_state_dict_into, read_weights
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.features import FaceFeatures, layers_by_size, with_kept_maps
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.recognizer import Provenance, Recognizer
from xfr_plugin.recognition.zoo import load_recognizer
from xfr_plugin.swaps.blending import blend
from xfr_plugin.swaps.masks import grown
from xfr_plugin.swaps.planting import COVERED, MIN_SCORE_CHANGE, SMALLEST, TURNED
from xfr_plugin.swaps.regions import EXCHANGED_REGIONS, one_hot, region_index, turn_of
from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.engine import Outcome, Task, step_generator, train
from xfr_plugin.training.faces_data import FaceSet, all_files, find_faces, read_faces, split_people
from xfr_plugin.training.manifest import build_manifest
from xfr_plugin.training.outline_noise import small_moves, warped, wobbled

__all__ = ["EvidenceConfig", "EvidenceTask", "publish_evidence", "train_evidence"]

_COUNT = len(EXCHANGED_REGIONS)
_NONE = _COUNT
_OUTSIDE = tuple(EXCHANGED_REGIONS).index("outside")
_DONORS = 4
_SILENT = 0.6
_MOVED_DONORS = 0.7
_SHARES = (0.45, 0.45, 0.1)
_CHUNK = 1024


class EvidenceConfig(EngineConfig):
    """How amortised evidence is trained.

    Attributes:
        recognizer: name or weight file of the recognizer whose scores are explained.
        faces: folder of aligned faces, one subfolder a person.
        people: LFW people file; `peopleDevTrain.txt` beside the folder, if left out and there.
        photos: so many photographs of each person at most.
        held_out: share of the people kept for validation.
        validation_pairs: so many held-out pairs.
        width: channels of the network.
        least_effect: plantings that move the score by less teach nothing of where they are.
        distracted: share of probes that get further regions which decide nothing.
        seamless: share of regions that are blended seamlessly.
        question: weight of the losses of both questions, each by itself.
        changes: weight of the loss of the changes of the score.
        seams: weight of the loss by which a region that moves nothing is no more likely than others.
        wobble: greatest standard deviation by which outlines are bent, in pixels of 112.
        jitter: share of faces that are turned, resized and shifted a little.
        start: weights to begin with, of an earlier run.
    """

    run: Path = Path("runs/evidence")
    epochs: int = Field(default=20, gt=0)
    batch_size: int = Field(default=256, gt=0)
    epoch_steps: int | None = Field(default=150, gt=0)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float = Field(default=1.0, ge=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    recognizer: str = "xfr_compact128"
    faces: Path = Path("../shared/data/faces/lfw112")
    people: Path | None = None
    photos: int = Field(default=8, ge=2)
    held_out: float = Field(default=0.08, gt=0, lt=1)
    validation_pairs: int = Field(default=1024, gt=0)
    width: int = Field(default=96, gt=0)
    least_effect: float = Field(default=0.03, ge=0)
    distracted: float = Field(default=0.65, ge=0, le=1)
    seamless: float = Field(default=0.35, ge=0, le=1)
    question: float = Field(default=0.5, ge=0)
    changes: float = Field(default=0.5, ge=0)
    seams: float = Field(default=0.2, ge=0)
    wobble: float = Field(default=1.5, ge=0)
    jitter: float = Field(default=0.5, ge=0, le=1)
    start: Path | None = None


def train_evidence(config: EvidenceConfig, publish: Path | None = None) -> Outcome:
    """Train an evidence network, or continue its training, and write it.

    Args:
        config: how.
        publish: file to write (.safetensors); `evidence.safetensors` in the run folder, if left out.

    Raises:
        InputError: no faces, or a run folder of another training.
        WeightsError: the recognizer or a checkpoint cannot be read.
    """
    task = EvidenceTask(config)
    outcome = train(task, config)
    assert isinstance(outcome.network, EvidenceNetwork)
    task.to(torch.device(config.device))
    figures = {key: value for key, value in outcome.best.items() if key.startswith("val/")}
    publish_evidence(task, outcome.network, figures, publish or config.run / "evidence.safetensors")
    return outcome


def publish_evidence(
    task: EvidenceTask, network: EvidenceNetwork, figures: Mapping[str, float | str], path: Path
) -> EvidenceCard:
    """Measure the effects of plantings on held-out people, and write the network with its card."""
    config = task.config
    differs, alike = task.mean_effects()
    chosen = config.people or config.faces.parent / "peopleDevTrain.txt"
    card = EvidenceCard(
        recognizer=task.recognizer.name,
        recognizer_sha256=fingerprint(task.recognizer),
        layers=tuple(task.layers.items()),
        embedding_dim=network.embedding_dim,
        width=network.width,
        differs=round(differs, 6),
        alike=round(alike, 6),
        provenance=Provenance(
            source="trained by this project",
            licence="Apache-2.0",
            training_data=f"{config.faces.name}, people of {chosen.name}"
            if chosen.is_file()
            else config.faces.name,
        ),
        figures={**figures, "manifest": task.manifest.digest},
    )
    save_evidence(EvidenceModel(network, card), path)
    return card


@dataclass(frozen=True)
class Lesson:
    """A batch of B pairs, and what is known of them.

    Attributes:
        probes: what the recognizer sees of them.
        references: likewise.
        masks: of the regions of both.
        present: which regions the probe shows, B×R.
        region: that was planted, B.
        genuine: whether the pair was genuine, B.
        planted: whether something that decides was planted, B.
        effect: by how much the planting moved the score in its direction, B.
        asked: a region of which the changes are known, B.
        gain: change of the score with the partner's mate's region there, B; NaN where there is no other photograph.
        loss: fall of the score with a stranger's, B.
        control: a region that was planted and is not to decide, B; `NONE` where there is none.
        quiet: whether such regions do not move the score, B.
    """

    probes: FaceFeatures
    references: FaceFeatures
    masks: tuple[Tensor, Tensor]
    present: Tensor
    region: Tensor
    genuine: Tensor
    planted: Tensor
    effect: Tensor
    asked: Tensor
    gain: Tensor
    loss: Tensor
    control: Tensor
    quiet: Tensor


class EvidenceTask(Task):
    """Which region was planted, or none; and how the score would change."""

    metric = "score"
    network: EvidenceNetwork

    def __init__(self, config: EvidenceConfig) -> None:
        self.config = config
        self.recognizer = load_recognizer(config.recognizer).requires_grad_(False)
        people = {
            person: files[: config.photos]
            for person, files in find_faces(config.faces, config.people).items()
        }
        splits = split_people(people, config.held_out, config.seed, config.photos)
        size = self.recognizer.input_size
        self.training_photos, self.held_out = (
            _Photos(read_faces(config.faces, photos, size), config.run, name)
            for photos, name in zip(splits, ("train", "held_out"), strict=True)
        )
        self.manifest = build_manifest(config.faces, all_files(*splits))
        self.layers = layers_by_size(self.recognizer.network, torch.zeros(1, 3, *size))
        self.examples = len(self.training_photos.index)

    def build_network(self) -> EvidenceNetwork:
        """Build the network."""
        dimension = self.recognizer.embed(torch.zeros(1, 3, *self.recognizer.input_size)).shape[1]
        network = EvidenceNetwork(tuple(self.layers.values()), dimension, self.config.width)
        if self.config.start:
            load_state_dict_into(network, read_weights(self.config.start)[0], self.config.start.name)
        return network

    def to(self, device: torch.device) -> None:
        """Move recognizer and faces."""
        self.device = device
        self.recognizer.to(device)
        self.recognizer.to(memory_format=torch.channels_last)
        for photos in (self.training_photos, self.held_out):
            photos.to(device)
            starts = range(0, len(photos.index), _CHUNK)
            numbers = (torch.arange(start, min(start + _CHUNK, len(photos.index))) for start in starts)
            photos.embeddings = torch.cat([self._embedded(photos.faces(some)).cpu() for some in numbers])

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross entropies of the hypothesis and of both questions, and the error of the changes; see `Task`."""
        del indices  # every batch is drawn anew
        count = self.config.batch_size
        lesson = self._lesson(self.training_photos, count, generator, self.config.distracted)
        flipped = torch.rand(len(lesson.region), generator=generator) < 0.25
        answers = self._answers(self.network, lesson, flipped.to(self.device))
        hypothesis = self._hypothesis(answers, lesson)
        differs = self._question(answers.differs, lesson, lesson.genuine)
        alike = self._question(answers.alike, lesson, ~lesson.genuine)
        changes = _change_error(answers.gain, lesson.gain, lesson, ~flipped.to(self.device))
        changes = changes + _change_error(answers.loss, lesson.loss, lesson, ~flipped.to(self.device))
        seams = _seam_error(answers.differs, lesson, lesson.genuine)
        seams = seams + _seam_error(answers.alike, lesson, ~lesson.genuine)
        config = self.config
        return {
            "total": hypothesis
            + config.question * (differs + alike)
            + config.changes * changes
            + config.seams * seams,
            "hypothesis": hypothesis,
            "differs": differs,
            "alike": alike,
            "changes": changes,
            "seams": seams,
        }

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """How often the planted region stands out, with and without regions that decide nothing."""
        assert isinstance(network, EvidenceNetwork)
        figures: dict[str, float] = {}
        for kind, distracted in (("plain", 0.0), ("distracted", 1.0)):
            found = self._figures(network, distracted)
            figures |= {f"{kind} {name}": value for name, value in found.items() if np.isfinite(value)}
        shown = [value for name, value in figures.items() if "top-1" in name or "beats" in name]
        return {"score": float(np.mean(shown)), **figures}

    @torch.no_grad()
    def mean_effects(self) -> tuple[float, float]:
        """Mean effect on the score of plantings in genuine pairs, and in impostor pairs, of held-out people."""
        found: tuple[list[Tensor], list[Tensor]] = ([], [])
        for number in range(self._rounds()):
            lesson = self._lesson(
                self.held_out, self.config.batch_size, step_generator(self.config.seed + 77, number), 0.0
            )
            taught = lesson.planted & (lesson.effect > self.config.least_effect)
            found[0].append(lesson.effect[taught & lesson.genuine])
            found[1].append(lesson.effect[taught & ~lesson.genuine])
        differs, alike = (float(torch.cat(values).mean()) for values in found)
        return differs, alike

    def _rounds(self) -> int:
        return -(-self.config.validation_pairs // self.config.batch_size)

    def _figures(self, network: EvidenceNetwork, distracted: float) -> dict[str, float]:
        rows: list[dict[str, Tensor]] = []
        for number in range(self._rounds()):
            generator = step_generator(self.config.seed + 77, number)
            lesson = self._lesson(self.held_out, self.config.batch_size, generator, distracted)
            answers = self._answers(network, lesson, torch.zeros_like(lesson.planted))
            rows.append(_judged(lesson, answers))
        joined = {name: torch.cat([row[name] for row in rows]).cpu() for name in rows[0]}
        figures: dict[str, float] = {}
        for game in ("dissimilar", "similar"):
            kept = joined[f"{game} counts"].bool()
            for name in ("top-1", "beats", "signed beats", "misled"):
                values = joined[f"{game} {name}"][kept]
                figures[f"{game} {name}"] = float(values.nanmean()) if len(values) else 0.0
            figures[f"{game} seams followed"] = float(joined[f"{game} seams followed"].nanmean())
        for name in ("gain", "loss"):
            known = joined[f"known {name}"].isfinite()
            pair = torch.stack((joined[f"known {name}"][known], joined[f"predicted {name}"][known]))
            figures[f"correlation of {name}"] = float(torch.corrcoef(pair)[0, 1])
        return figures

    def _answers(self, network: EvidenceNetwork, lesson: Lesson, flipped: Tensor) -> Answers:
        """Answers; where flipped, the planted face is the reference."""
        probes, references = _exchanged(lesson.probes, lesson.references, flipped)
        where = flipped[:, None, None, None]
        masks = (
            torch.where(where, lesson.masks[1], lesson.masks[0]),
            torch.where(where, lesson.masks[0], lesson.masks[1]),
        )
        present = masks[0].sum(dim=(2, 3)) > 0
        answers: Answers = network(probes, references, masks, present)
        return answers

    def _hypothesis(self, answers: Answers, lesson: Lesson) -> Tensor:
        """Cross entropy of what a pair is: one region differs, or one is alike, or neither."""
        logits = hypothesis_logits(answers)
        place = lesson.region + torch.where(lesson.genuine, 0, _COUNT)
        shown = logits.gather(1, place[:, None])[:, 0].isfinite()
        silent = torch.where(lesson.quiet, _SILENT, 0.0)
        weight = torch.where(lesson.planted, self._strength(lesson) * shown, silent)
        label = torch.where(lesson.planted & shown, place, 2 * _COUNT)
        errors = functional.cross_entropy(logits, label, reduction="none")
        # both hypotheses count alike, although plantings in genuine pairs move the score further
        kinds = (lesson.planted & lesson.genuine, lesson.planted & ~lesson.genuine, ~lesson.planted)
        shares = zip(kinds, _SHARES, strict=True)
        return torch.stack([share * _weighted(errors, weight * kind) for kind, share in shares]).sum()

    def _question(self, logits: Tensor, lesson: Lesson, own: Tensor) -> Tensor:
        """Cross entropy of one question: of pairs of its own kind the planted region, of others none."""
        asked = own & lesson.planted
        silent = torch.where(lesson.quiet, _SILENT, 0.0)  # a region that moves the score is no answer "none"
        label = torch.where(asked, lesson.region, _NONE)
        shown = logits.gather(1, label[:, None])[:, 0].isfinite()
        weight = torch.where(asked, self._strength(lesson), torch.where(lesson.planted, 0.2, silent)) * shown
        label = torch.where(shown, label, _NONE)
        return _weighted(functional.cross_entropy(logits, label, reduction="none"), weight)

    def _strength(self, lesson: Lesson) -> Tensor:
        """How much a planting counts."""
        least = self.config.least_effect
        return ((lesson.effect - least) / (MIN_SCORE_CHANGE - least)).clamp(0, 1.5)

    @torch.no_grad()
    def _lesson(self, photos: _Photos, count: int, generator: torch.Generator, distracted: float) -> Lesson:
        with torch.autocast(self.device.type, enabled=False):  # pixels need their precision
            return self._drawn_lesson(photos, count, generator, distracted)

    def _drawn_lesson(
        self, photos: _Photos, count: int, generator: torch.Generator, distracted: float
    ) -> Lesson:
        draw = self._chosen(photos, count, generator)
        count = len(draw.probe)  # fewer, where few plantings are possible
        base, controls = draw.with_controls(distracted, self.config.seamless)
        final, planted = draw.planted(base, self.config.seamless)
        gain_of, has_mate = draw.asked(final, mates=True)
        loss_of, _ = draw.asked(final, mates=False)
        mirrored = draw.coins(0.5)
        versions = draw.recoloured(torch.stack((final, base, gain_of, loss_of)))
        references = draw.recoloured(photos.faces(draw.reference)[None])
        stack = torch.cat((versions[:1], references, versions[1:]))
        stack = torch.where(mirrored[:, None, None, None], stack.flip(4), stack)
        moves = [draw.moves(self.config.jitter) for _ in range(2)]
        stack = torch.stack([warped(x, moves[i == 1]) for i, x in enumerate(stack)])
        features = self._features(stack[:2].flatten(0, 1))
        others = self._embedded(stack[2:].flatten(0, 1)).split(count)
        own, partner = features[:count], features[count:]
        before, gained, lost = ((other * partner.embeddings).sum(dim=1) for other in others)
        after = (own.embeddings * partner.embeddings).sum(dim=1)
        masks = (
            warped(_mirrored(draw.shaken(draw.probe, self.config.wobble), mirrored), moves[0], "nearest"),
            warped(_mirrored(draw.shaken(draw.reference, self.config.wobble), mirrored), moves[1], "nearest"),
        )
        genuine, region = draw.genuine.to(self.device), draw.region.to(self.device)
        clean = draw.clean_scores().to(self.device)
        return Lesson(
            own,
            partner,
            masks,
            masks[0].sum(dim=(2, 3)) > 0,
            region,
            genuine,
            planted,
            torch.where(genuine, before - after, after - before) * planted,
            draw.question.to(self.device),
            torch.where(has_mate, gained - after, torch.nan),
            after - lost,
            controls,
            torch.where(genuine, clean - before, before - clean) < self.config.least_effect,
        )

    def _chosen(self, photos: _Photos, count: int, generator: torch.Generator) -> Draw:
        """Choices of a batch: most of them plantings that move the score, as many of each game."""
        draw = Draw(photos, torch.randint(len(photos.index), (6 * count,), generator=generator), generator)
        planted = [draw.plants & draw.genuine, draw.plants & ~draw.genuine]
        some = torch.cat([torch.nonzero(kind)[: round(1.25 * count), 0] for kind in planted])
        tried = draw.only(some)
        faces, _ = tried.planted(photos.faces(tried.probe), 0.0)
        before, reference = (photos.embeddings[numbers] for numbers in (tried.probe, tried.reference))
        after = self._embedded(faces).cpu()
        effect = ((after - before) * reference).sum(dim=1) * torch.where(tried.genuine, -1, 1)
        rank = effect.clamp(max=MIN_SCORE_CHANGE) / MIN_SCORE_CHANGE + 0.4 * torch.rand(
            len(effect), generator=generator
        )
        best = [_highest(rank, kind, round(0.4 * count)) for kind in (tried.genuine, ~tried.genuine)]
        rest = torch.nonzero(~draw.plants)[:, 0]
        chosen = torch.cat((*(some[numbers] for numbers in best), rest))[:count]
        return draw.only(chosen)

    def _features(self, images: Tensor) -> FaceFeatures:
        recognizer, kept = with_kept_maps(self.recognizer, list(self.layers))
        embeddings = self._embedded(images, recognizer)
        return FaceFeatures(tuple(kept[name].float() for name in self.layers), embeddings)

    @torch.no_grad()
    def _embedded(self, images: Tensor, recognizer: Recognizer | None = None) -> Tensor:
        half = self.config.mixed_precision and self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.float16, enabled=half):
            faces = images.contiguous(memory_format=torch.channels_last)
            embeddings = (recognizer or self.recognizer)(faces)
        return functional.normalize(embeddings.float(), dim=1)


class _Photos:
    """Faces of some people with their regions, and who is who."""

    def __init__(self, faces: FaceSet, run: Path, name: str) -> None:
        self.images = faces.images
        self.index, self.turn = _regions_of(faces, run / f"regions_{name}.npz")
        people = torch.from_numpy(faces.people)
        counts = torch.bincount(people)
        first = torch.cat((torch.zeros(1, dtype=torch.long), counts.cumsum(0)[:-1]))
        self.person, self.count, self.first = people, counts[people], first[people]
        self.several = torch.nonzero(self.count >= 2)[:, 0]
        self.device = torch.device("cpu")
        self.embeddings = torch.empty(0)
        pixels = self.index.flatten(1)
        self.shown = torch.stack([(pixels == r).sum(dim=1) / pixels.shape[1] for r in range(_COUNT)], dim=1)

    def to(self, device: torch.device) -> None:
        self.device = device
        self.images, self.index = self.images.to(device), self.index.to(device)

    def faces(self, numbers: Tensor) -> Tensor:
        return self.images[numbers.to(self.device)].float() / 255


def _regions_of(faces: FaceSet, kept: Path) -> tuple[Tensor, Tensor]:
    """Region of each pixel, and how far the faces are turned; kept in the run's folder, since it takes a while."""
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as stored:
            if stored["files"].tolist() == faces.files:
                return torch.from_numpy(stored["index"]), torch.from_numpy(stored["turn"])
    maps: list[RegionMap] = []
    for images in faces.images.split(256):
        maps += find_regions(images.float() / 255)
    index, turns = region_index(maps), torch.tensor([turn_of(regions) for regions in maps])
    with atomic_path(kept) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, index=index.numpy(), turn=turns.numpy(), files=np.array(faces.files))
    return index, turns


class Draw:
    """The random choices of a batch; numbers are on the CPU, pixels where the faces are.

    Attributes:
        probe: numbers of the faces, N.
        reference: likewise.
        genuine: whether both are one person.
        region: to be planted.
        donor: of it, which fits: a stranger in a genuine pair, else another photograph of the reference's person.
        plants: whether it is planted.
        question: a region of which the changes are asked.
    """

    _FIELDS = ("probe", "reference", "genuine", "region", "donor", "plants", "question")

    def __init__(self, photos: _Photos, probes: Tensor, generator: torch.Generator) -> None:
        self.photos, self.probe, self.generator = photos, probes, generator
        size = len(probes)
        self.genuine = (photos.count[probes] >= 2) & (self._uniform(size) < 0.6)
        self.reference = torch.where(self.genuine, self._mate(probes), self._stranger(probes, photos.several))
        self.region = torch.randint(_COUNT, (size,), generator=generator)
        donors = torch.where(
            self.genuine[:, None],
            self._strangers(),
            torch.stack([self._mate(self.reference) for _ in range(_DONORS)], dim=1),
        )
        fitting = self._fits(donors, self.region) & (donors != self.reference[:, None])
        self.donor = donors.gather(1, fitting.float().argmax(dim=1, keepdim=True))[:, 0]
        self.plants = fitting.any(dim=1) & (self._uniform(size) < 0.9)
        asked = torch.randint(_COUNT, (size,), generator=generator)
        self.question = torch.where(self._uniform(size) < 0.3, self.region, asked)

    def only(self, some: Tensor) -> Draw:
        """Some of the choices."""
        other = copy.copy(self)
        for name in self._FIELDS:
            setattr(other, name, getattr(self, name)[some])
        return other

    def with_controls(self, distracted: float, seamless: float) -> tuple[Tensor, Tensor]:
        """Probes with up to three regions that decide nothing; and one of these regions."""
        count = len(self.probe)
        faces = self.photos.faces(self.probe)
        control = torch.full((count,), _NONE, device=self.photos.device)
        busy = self._uniform(count) < distracted
        steps = self._uniform(count, _COUNT - 1).argsort(dim=1)[:, :3]
        for number in range(3):
            region = (self.region + 1 + steps[:, number]) % _COUNT
            own, has_own = self._another_mate(self.probe, self.reference)
            strange = ~self.genuine & (self._uniform(count) < 0.4)
            donors = torch.where(strange[:, None], self._strangers(), own[:, None])
            wanted = busy & (has_own | strange) & (self._uniform(count) < (1.0, 0.5, 0.3)[number])
            faces, done = self._put(faces, donors, region, wanted, seamless)
            control = torch.where(done, region.to(control), control)
        return faces, control

    def planted(self, faces: Tensor, seamless: float) -> tuple[Tensor, Tensor]:
        """Probes with the region that decides, where one is planted."""
        return self._put(faces, self.donor[:, None], self.region, self.plants, seamless)

    def asked(self, faces: Tensor, mates: bool) -> tuple[Tensor, Tensor]:
        """Probes with the region in question of the partner's mate, or of a stranger."""
        mate, has_mate = self._another_mate(self.reference, self.probe)
        donors = mate[:, None] if mates else self._strangers()
        wanted = has_mate if mates else torch.ones_like(has_mate)
        return self._put(faces, donors, self.question, wanted, 0.0)

    def clean_scores(self) -> Tensor:
        """Of the pairs, before anything was planted."""
        return (self.photos.embeddings[self.probe] * self.photos.embeddings[self.reference]).sum(dim=1)

    def coins(self, share: float) -> Tensor:
        return (self._uniform(len(self.probe)) < share).to(self.photos.device)

    def moves(self, share: float) -> Tensor:
        """Small moves of a share of the faces; see `small_moves`."""
        return small_moves(self._uniform(len(self.probe)) < share, self.generator)

    def recoloured(self, images: Tensor) -> Tensor:
        """Half of the faces, V×N×3×H×W, a little brighter or darker, of other contrast and colour in all versions."""
        size = images.shape[1]
        change = self.coins(0.5).float()[:, None, None, None]
        gain = 1 + 0.25 * (self._uniform(size, 3) - 0.5)[..., None, None].to(images) * change
        common = 1 + 0.4 * (self._uniform(size) - 0.5)[:, None, None, None].to(images) * change
        shift = 0.16 * (self._uniform(size) - 0.5)[:, None, None, None].to(images) * change
        return (images * gain * common + shift).clamp(0, 1)

    def shaken(self, numbers: Tensor, wobble: float) -> Tensor:
        """Masks of the regions, moved by up to a pixel or two and bent, as outlines are never exact."""
        index = self.photos.index[numbers.to(self.photos.device)]
        dx, dy = torch.randint(-2, 3, (2,), generator=self.generator).tolist()
        pixels = self._uniform(len(numbers)) * wobble * index.shape[1] / 112
        return one_hot(wobbled(index.roll((dy, dx), (1, 2)), pixels, self.generator))

    def _put(
        self, faces: Tensor, donors: Tensor, region: Tensor, wanted: Tensor, seamless: float
    ) -> tuple[Tensor, Tensor]:
        """Plant where wanted and where a donor fits: the first that does of those given, N×K."""
        device = self.photos.device
        fitting = self._fits(donors, region)
        chosen = donors.gather(1, fitting.float().argmax(dim=1, keepdim=True))[:, 0]
        done = (fitting.any(dim=1) & wanted).to(device)
        mask = grown(self._mask(region, self.probe) & done[:, None, None, None])
        smooth = (self._uniform(len(faces)) < seamless).to(device)
        # photographs of a person are few: moved, they are not learned by heart
        moves = small_moves(self._uniform(len(faces)) < _MOVED_DONORS, self.generator)
        return blend(faces, warped(self.photos.faces(chosen), moves), mask, smooth), done

    def _mask(self, region: Tensor, probe: Tensor) -> Tensor:
        device = self.photos.device
        index = self.photos.index[probe.to(device)]
        return (index == region.to(device)[:, None, None])[:, None]

    def _fits(self, donors: Tensor, region: Tensor) -> Tensor:
        """Which donors N×K show the region, as the probe does, cover it with their face, and are turned alike."""
        photos = self.photos
        visible = (photos.shown[donors, region[:, None]] >= SMALLEST) & (
            photos.shown[self.probe, region] >= SMALLEST
        )[:, None]
        turned = (photos.turn[donors] - photos.turn[self.probe][:, None]).abs() <= TURNED
        covered = []
        for some in torch.arange(len(donors)).split(_CHUNK):
            mask = self._mask(region[some], self.probe[some])
            index = photos.index[donors[some].to(photos.device)]
            there = (index == _OUTSIDE) == (region[some] == _OUTSIDE).to(photos.device)[:, None, None, None]
            covered.append((there & mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3)).clamp_min(1) >= COVERED)
        return visible & turned & torch.cat(covered).cpu()

    def _mate(self, numbers: Tensor) -> Tensor:
        """Another photograph of the person; the same one, where there is no other."""
        count, first = self.photos.count[numbers], self.photos.first[numbers]
        step = 1 + (self._uniform(len(numbers)) * (count - 1)).long()
        return first + (numbers - first + torch.minimum(step, count - 1)) % count

    def _another_mate(self, numbers: Tensor, not_these: Tensor) -> tuple[Tensor, Tensor]:
        """A photograph of the person that is neither of two, and whether there is one."""
        found, ok = numbers.clone(), torch.zeros_like(numbers, dtype=torch.bool)
        for _ in range(6):
            mate = self._mate(numbers)
            good = (mate != numbers) & (mate != not_these)
            found = torch.where(good & ~ok, mate, found)
            ok |= good
        return found, ok

    def _strangers(self) -> Tensor:
        """Several for each probe, N×K."""
        return torch.stack([self._stranger(self.probe) for _ in range(_DONORS)], dim=1)

    def _stranger(self, numbers: Tensor, among: Tensor | None = None) -> Tensor:
        """A photograph of another person."""
        pool = torch.arange(len(self.photos.person)) if among is None else among
        found = pool[torch.randint(len(pool), (len(numbers),), generator=self.generator)]
        for _ in range(4):
            again = pool[torch.randint(len(pool), (len(numbers),), generator=self.generator)]
            found = torch.where(self.photos.person[found] == self.photos.person[numbers], again, found)
        return found

    def _uniform(self, *size: int) -> Tensor:
        return torch.rand(size, generator=self.generator)


def _highest(rank: Tensor, kind: Tensor, count: int) -> Tensor:
    """Numbers of those of a kind that rank highest."""
    return rank.where(kind, -torch.inf).argsort(descending=True)[: min(count, int(kind.sum()))]


def _mirrored(values: Tensor, which: Tensor) -> Tensor:
    return torch.where(which[:, None, None, None], values.flip(3), values)


def _exchanged(a: FaceFeatures, b: FaceFeatures, which: Tensor) -> tuple[FaceFeatures, FaceFeatures]:
    def mixed(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(which.view(-1, *[1] * (x.ndim - 1)), y, x)

    first = FaceFeatures(tuple(map(mixed, a.maps, b.maps)), mixed(a.embeddings, b.embeddings))
    second = FaceFeatures(tuple(map(mixed, b.maps, a.maps)), mixed(b.embeddings, a.embeddings))
    return first, second


def _weighted(errors: Tensor, weight: Tensor) -> Tensor:
    return (errors * weight).sum() / weight.sum().clamp_min(1)


def _change_error(predicted: Tensor, known: Tensor, lesson: Lesson, counts: Tensor) -> Tensor:
    """Squared error of a change of the score, in tenths; large ones count less."""
    own = predicted.gather(1, lesson.asked[:, None])[:, 0]
    kept = known.isfinite() & lesson.present.gather(1, lesson.asked[:, None])[:, 0] & counts
    return functional.smooth_l1_loss(own[kept] * 10, known[kept] * 10) if bool(kept.any()) else own.sum() * 0


def _seam_error(logits: Tensor, lesson: Lesson, own: Tensor) -> Tensor:
    """Where nothing decides: how far the logit of a region with a seam lies from the mean of the others'."""
    index = lesson.control.clamp_max(_COUNT - 1)[:, None]
    there = logits[:, :-1].isfinite()
    counts = own & ~lesson.planted & lesson.quiet & (lesson.control < _NONE) & there.gather(1, index)[:, 0]
    others = there.scatter(1, index, False)
    finite = logits[:, :-1].masked_fill(~there, 0)
    mean = (finite * others).sum(dim=1) / others.sum(dim=1).clamp_min(1)
    apart = (finite.gather(1, index)[:, 0] - mean)[counts]
    return (
        functional.smooth_l1_loss(apart, torch.zeros_like(apart)) if bool(counts.any()) else finite.sum() * 0
    )


def _judged(lesson: Lesson, answers: Answers) -> dict[str, Tensor]:
    """For each pair: does the planted region stand out among those that show, and what does another seam do?"""
    rows: dict[str, Tensor] = {}
    likely = hypothesis_logits(answers).softmax(dim=1)
    evidence = (likely[:, :_COUNT] - likely[:, _COUNT:-1])[:, :_OUTSIDE]
    for game, logits, signed, own in (
        ("dissimilar", answers.differs, evidence, lesson.genuine),
        ("similar", answers.alike, -evidence, ~lesson.genuine),
    ):
        values = logits[:, :_OUTSIDE]
        region = lesson.region.clamp_max(_OUTSIDE - 1)
        truth = values.gather(1, region[:, None])
        rivals = lesson.present[:, :_OUTSIDE].sum(dim=1) - 1
        rows[f"{game} counts"] = (
            own
            & lesson.planted
            & (lesson.region < _OUTSIDE)
            & (lesson.effect > MIN_SCORE_CHANGE)
            & truth[:, 0].isfinite()
        )
        rows[f"{game} top-1"] = (values.argmax(dim=1) == region).float()
        beaten = (values < truth) & values.isfinite()
        rows[f"{game} beats"] = beaten.sum(dim=1) / rivals.clamp_min(1)
        below = (signed < signed.gather(1, region[:, None])) & values.isfinite()
        rows[f"{game} signed beats"] = below.sum(dim=1) / rivals.clamp_min(1)
        misled = (values.argmax(dim=1) == lesson.control).float()
        rows[f"{game} misled"] = torch.where(lesson.control < _OUTSIDE, misled, torch.nan)
        followed = own & ~lesson.planted & lesson.quiet & (lesson.control < _OUTSIDE)
        rows[f"{game} seams followed"] = torch.where(followed, misled, torch.nan)
    for name, known, predicted in (("gain", lesson.gain, answers.gain), ("loss", lesson.loss, answers.loss)):
        rows[f"known {name}"] = known
        rows[f"predicted {name}"] = predicted.gather(1, lesson.asked[:, None])[:, 0]
    return rows
