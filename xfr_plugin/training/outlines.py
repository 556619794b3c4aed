"""Training of the outline finder: the outlines of an aligned face's features, from its face mesh.

Some faces get regions of others, and keep their outlines: what is planted must not move them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from xfr_plugin.faces.landmark_network import BOX_MARGIN, box_frames, sample_crops, to_crop
from xfr_plugin.faces.outline_network import FRAME_SIDE, OutlineFinder, Sketch, mirror_order
from xfr_plugin.faces.outlines import save_outline_finder
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.blending import blend
from xfr_plugin.swaps.masks import grown
from xfr_plugin.swaps.regions import COARSE_REGIONS
from xfr_plugin.training.aligner import disturbed, random_textures
from xfr_plugin.training.augment import uniform
from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.engine import Outcome, Task, step_generator, train
from xfr_plugin.training.faces_data import all_files, find_faces, split_people
from xfr_plugin.training.manifest import build_manifest
from xfr_plugin.training.outline_noise import wobbled
from xfr_plugin.training.outlines_data import OutlineSet, read_outlines, shape_model

__all__ = ["OutlinesConfig", "OutlinesTask", "face_frames", "misplaced_frames", "planted", "train_outlines"]

_CHUNK = 256
_MIDDLE = (FRAME_SIDE - 1) / 2
_TEXTURE_SHARE = 0.4
_REACH_QUANTILE = 0.999
_NARROWEST = 0.7
_SEAMS = 1.5


class OutlinesConfig(EngineConfig):
    """Configuration of the training of the outline finder.

    Attributes:
        data: folder with `lfw112/`, `mesh468_aligned.npz`, `regions.json` and the people files; that of
            `XFR_DATA`, if left out.
        people: file below it that names the people to train on.
        out: where the trained finder is written; `outlines.safetensors` in the run folder, if left out.
        photos: so many photographs of each person at most; all, if left out.
        held_out: share of the people on whom training is validated.
        width: channels of the network's first layer.
        components: of the shape model.
        rotation: greatest angle, in degrees, by which faces are turned in addition.
        scale: greatest relative change of size.
        shift: greatest shift as a share of the side.
        narrow: share of faces whose sides are cut off, as recognizers with narrow inputs have them.
        planted: share of faces that get a region of another face; half of these get another region too.
        non_faces: non-faces for each face of a batch.
        score_weight: weight of the face score's loss; points count 1, in pixels.
    """

    may_change: ClassVar[frozenset[str]] = EngineConfig.may_change | {"out"}

    run: Path = Path("runs/outlines")
    epochs: int = Field(default=20, gt=0)
    batch_size: int = Field(default=64, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    data: Path | None = None
    people: str = "peopleDevTrain.txt"
    out: Path | None = None
    photos: int | None = Field(default=None, ge=1)
    held_out: float = Field(default=0.06, gt=0, lt=1)
    width: int = Field(default=24, ge=4, le=32)
    components: int = Field(default=40, ge=1, le=100)
    rotation: float = Field(default=5.0, ge=0, le=45)
    scale: float = Field(default=0.05, ge=0, lt=1)
    shift: float = Field(default=0.03, ge=0, lt=1)
    narrow: float = Field(default=0.15, ge=0, le=1)
    planted: float = Field(default=0.4, ge=0, le=1)
    non_faces: float = Field(default=0.2, gt=0, le=1)
    score_weight: float = Field(default=0.3, ge=0)


class OutlinesTask(Task):
    """Points of the outlines in pixels, and whether there is an aligned face at all."""

    network: OutlineFinder
    metric = "rms error"
    maximise = False

    def __init__(self, config: OutlinesConfig) -> None:
        root = config.data or data_root() / "faces"
        self.config = config
        outlines = read_outlines(root)
        people = find_faces(root / "lfw112", root / config.people)
        faces = {person: files[: config.photos] for person, files in people.items()}
        train_people, held_out = split_people(faces, config.held_out, config.seed)
        self.features = outlines.features
        self.train_faces = OutlineSet.read(root / "lfw112", train_people, outlines)
        self.held_out_faces = OutlineSet.read(root / "lfw112", held_out, outlines)
        self.order = mirror_order(self.train_faces.points)
        self.examples = len(self.train_faces)
        files = [f"lfw112/{file}" for file in all_files(train_people, held_out)]
        self.manifest = build_manifest(root, ["mesh468_aligned.npz", "regions.json", config.people, *files])

    def build_network(self) -> OutlineFinder:
        """Build the network with its initial weights and its shape model."""
        config, shapes = self.config, self.train_faces.points
        network = OutlineFinder(shapes.shape[1], config.components, config.width)
        # two draws of augmentation: the model must reach what training asks for
        moved = torch.cat(
            [self._targets(shapes, self._frames(len(shapes), step_generator(config.seed, i))) for i in (1, 2)]
        )
        network.mean, network.basis, coefficients = shape_model(moved, config.components)
        network.reach = coefficients.square().mean(1).sqrt().quantile(_REACH_QUANTILE)
        return network

    def to(self, device: torch.device) -> None:
        """Move the faces."""
        self.device = device
        for faces in (self.train_faces, self.held_out_faces):
            faces.to(device)

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Error of the points, squared below a pixel, and the cross entropy of the face score."""
        faces, config = self.train_faces, self.config
        count = len(indices)
        frames = self._frames(count, generator)
        with torch.autocast(self.device.type, enabled=False):  # pixels need their precision
            crops = self._crops(indices, frames, generator)
        sketch = self.network(crops)
        wanted = self._targets(faces.points[indices], frames).to(self.device)
        is_face = (torch.arange(len(sketch.logits), device=self.device) < count).float()
        points = smooth_l1_loss(sketch.points[:count], wanted)
        score = binary_cross_entropy_with_logits(sketch.logits, is_face)
        return {"total": points + config.score_weight * score, "points": points, "score": score}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Errors in pixels on held-out people, and how well the score tells faces from misplaced ones."""
        faces, generator = self.held_out_faces, step_generator(self.config.seed, 0)
        images = faces.images.float() / 255
        upright = self._sketches(network, images, unmoved_frames(len(faces)))
        others = self._sketches(network, images, misplaced_frames(len(faces), generator))
        changed = planted(faces, torch.arange(len(faces)), 1.0, generator)
        moved = (self._sketches(network, changed, unmoved_frames(len(faces))).points - upright.points).norm(
            dim=2
        )
        squares = (upright.points - faces.points).square().sum(2)
        by_mean = (network.get_buffer("mean").cpu() - faces.points).square().sum(2)
        return {
            "rms error": float(squares.mean().sqrt()),
            "median error": float(squares.mean(1).sqrt().median()),
            "rms error of the mean shape": float(by_mean.mean().sqrt()),
            "faces refused": float((upright.logits <= 0).float().mean()),
            "non-faces accepted": float((others.logits > 0).float().mean()),
            "moved by plantings": float(moved.mean()),
        }

    @torch.no_grad()
    def label_offset(self, network: nn.Module) -> tuple[float, float]:
        """By how much the labels of held-out people lie beside what the network finds, x and y in pixels."""
        faces = self.held_out_faces
        found = self._sketches(network, faces.images.float() / 255, unmoved_frames(len(faces))).points
        x, y = (faces.points - found).mean((0, 1)).tolist()
        return x, y

    def _sketches(self, network: nn.Module, images: Tensor, frames: Tensor) -> Sketch:
        chunks = []
        for some, places in zip(images.split(_CHUNK), frames.split(_CHUNK), strict=True):
            chunks.append(network(sample_crops(some, places.to(some.device), FRAME_SIDE)))
        return Sketch(*(torch.cat(values).cpu() for values in zip(*chunks, strict=True)))

    def _crops(self, indices: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Disturbed crops of faces, and then of what is none."""
        config = self.config
        images = planted(self.train_faces, indices, config.planted, generator)
        crops = sample_crops(images, frames.to(self.device), FRAME_SIDE)
        crops = narrowed(crops, config.narrow, generator)
        others = self._non_faces(max(2, round(len(indices) * config.non_faces)), generator)
        return disturbed(torch.cat([crops, others]), generator)

    def _frames(self, count: int, generator: torch.Generator) -> Tensor:
        config = self.config
        return face_frames(count, config.rotation, config.scale, config.shift, generator)

    def _targets(self, points: Tensor, frames: Tensor) -> Tensor:
        """Points in pixels of what the frames cut out; in mirrored ones right and left change places."""
        placed = to_crop(points, frames) * (FRAME_SIDE / 2) + _MIDDLE
        flipped = frames[:, :, :2].det() < 0
        return torch.where(flipped[:, None, None], placed[:, self.order], placed)

    def _non_faces(self, count: int, generator: torch.Generator) -> Tensor:
        """Crops without an aligned face, count×1×112×112: misplaced faces, and textures (one of them plain)."""
        textures = max(1, round(count * _TEXTURE_SHARE))
        chosen = torch.randint(self.examples, (count - textures,), generator=generator)
        images = self.train_faces.images[chosen.to(self.device)].float() / 255
        frames = misplaced_frames(len(chosen), generator).to(self.device)
        drawn = random_textures(textures, (FRAME_SIDE, FRAME_SIDE), generator)
        drawn[0] = torch.rand(1, generator=generator)
        return torch.cat([sample_crops(images, frames, FRAME_SIDE), drawn.to(self.device)])


def train_outlines(config: OutlinesConfig) -> Outcome:
    """Train an outline finder, or continue its training, and write it where `config.out` says.

    Raises:
        InputError: the data is missing or the run folder belongs to another training.
        PhotoFormatError: a face is damaged.
    """
    task = OutlinesTask(config)
    outcome = train(task, config)
    network = outcome.network
    assert isinstance(network, OutlineFinder)
    training: dict[str, Any] = {
        "seed": config.seed,
        "photos": config.photos,
        "faces": len(task.train_faces),
        "held-out faces": len(task.held_out_faces),
        "data": task.manifest.digest,
        "held-out figures": outcome.figures,
    }
    task.to(torch.device("cpu"))
    offset = task.label_offset(network)
    path = config.out or config.run / "outlines.safetensors"
    save_outline_finder(network, path, task.features, offset, training)
    return outcome


def unmoved_frames(count: int) -> Tensor:
    """Frames of the whole crop, count×2×3."""
    zeros = torch.zeros(count)
    return _frames(zeros, zeros, torch.zeros(count, 2))


def face_frames(
    count: int, rotation: float, scale: float, shift: float, generator: torch.Generator
) -> Tensor:
    """Frames turned by up to `rotation` degrees, resized and shifted by such shares; half of them mirrored."""
    angles = uniform(count, -1, 1, generator) * math.radians(rotation)
    sizes = uniform(count, -scale, scale, generator)
    shifts = uniform(2 * count, -shift, shift, generator).view(count, 2)
    return _frames(angles, sizes, shifts, torch.rand(count, generator=generator) < 0.5)


def misplaced_frames(count: int, generator: torch.Generator) -> Tensor:
    """Frames in which the face is upside down or turned far, far too small or large, or far off the middle."""
    angles = uniform(count, math.radians(60), math.radians(300), generator)
    sizes = uniform(count, math.log(1.7), math.log(3.0), generator)
    sizes = sizes * torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, -1.0)
    direction = uniform(count, 0, 2 * math.pi, generator)
    shifts = (
        torch.stack([direction.cos(), direction.sin()], 1) * uniform(count, 0.35, 0.8, generator)[:, None]
    )
    kind = torch.randint(3, (count,), generator=generator)
    return _frames(angles * (kind == 0), sizes * (kind == 1), shifts * (kind == 2)[:, None])


def planted(faces: OutlineSet, indices: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Faces B×1×112×112 in [0, 1], of which a share got a region of another, and half of that another one."""
    count, device = len(indices), faces.images.device
    images = faces.images[indices.to(device)].float() / 255
    for asked in (share, share / 2):
        donors = torch.randint(len(faces), (count,), generator=generator).to(device)
        region = torch.randint(len(COARSE_REGIONS), (count,), generator=generator).to(device)
        wanted = (torch.rand(count, generator=generator) < asked).to(device)
        # bent, so that seams do not tell where the outlines are
        index = wobbled(faces.regions[indices.to(device)], torch.full((count,), _SEAMS), generator)
        masks = ((index == region[:, None, None]) & wanted[:, None, None])[:, None]
        given = faces.images[donors].float() / 255
        images = blend(images, given, grown(masks))
    return images


def narrowed(crops: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Make the sides of some crops (B×1×S×S) black, so that as little as 70 % of the width is left."""
    count, side = len(crops), crops.shape[3]
    reach = uniform(count, _NARROWEST, 1.0, generator)
    reach = torch.where(torch.rand(count, generator=generator) < probability, reach, 1.0)
    columns = (torch.arange(side) * 2 + 1) / side - 1
    return crops * (columns.abs() <= reach[:, None])[:, None, None].to(crops)


def _frames(angles: Tensor, sizes: Tensor, shifts: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Frames about the middle: angles in radians, sizes as logarithms, shifts in sides."""
    return box_frames(
        _MIDDLE + shifts * FRAME_SIDE, sizes.exp() * (FRAME_SIDE / BOX_MARGIN), angles, mirrored
    )
