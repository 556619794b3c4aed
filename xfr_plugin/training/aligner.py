"""Training of the aligner: five landmarks and a face score from a box of the face finder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from xfr_plugin.errors import InputError
from xfr_plugin.faces.landmark_network import AlignerNetwork, Located, box_frames, sample_crops
from xfr_plugin.faces.landmarks import save_aligner
from xfr_plugin.faces.lfw import read_landmarks
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.aligner_data import BOX_SPREAD, PhotoSet, read_photos
from xfr_plugin.training.augment import blur, compress, occlude, uniform
from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.engine import Outcome, Task, train
from xfr_plugin.training.faces_data import all_files, find_faces, split_people
from xfr_plugin.training.manifest import build_manifest

__all__ = ["AlignerConfig", "AlignerTask", "train_aligner"]

_TRUE_BOX_SHARE = 0.5
_TEXTURE_SHARE = 0.2
_CHUNK = 100


class AlignerConfig(EngineConfig):
    """Configuration of the training of the aligner.

    Attributes:
        data: folder with `lfw250/`, `labels.csv` and the people files; that of `XFR_DATA`, if left out.
        people: file below it that names the people to train on.
        out: where the trained aligner is written; `aligner.safetensors` in the run folder, if left out.
        held_out: share of the people on whom training is validated.
        width: channels of the networks at their highest resolution.
        non_faces: non-faces for each face of a batch.
        rotation: greatest angle, in degrees, by which faces are turned in addition.
        score_weight: weight of the face score's loss; landmarks count 1, in eye distances.
    """

    run: Path = Path("runs/aligner")
    epochs: int = Field(default=50, gt=0)
    batch_size: int = Field(default=48, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    data: Path | None = None
    people: str = "peopleDevTrain.txt"
    out: Path | None = None
    held_out: float = Field(default=0.1, gt=0, lt=1)
    width: int = Field(default=20, ge=4, le=64)
    non_faces: float = Field(default=0.5, gt=0, le=1)
    rotation: float = Field(default=30.0, ge=0, le=90)
    score_weight: float = Field(default=0.1, ge=0)


class AlignerTask(Task):
    """Both steps together: the fine step learns on crops that the coarse step places."""

    network: AlignerNetwork
    metric = "error"
    maximise = False

    def __init__(self, config: AlignerConfig) -> None:
        root = config.data or data_root() / "faces"
        self.config = config
        landmarks = read_landmarks(root / "labels.csv")
        faces = find_faces(root / "lfw250", root / config.people)
        train_people, held_out = split_people(faces, config.held_out, config.seed)
        self.train_photos, self.held_out_photos = (
            read_photos(root / "lfw250", landmarks, all_files(people)) for people in (train_people, held_out)
        )
        self.examples = len(self.train_photos)
        files = [f"lfw250/{file}" for file in all_files(train_people, held_out)]
        self.manifest = build_manifest(root, ["labels.csv", config.people, *files])
        if not len(self.train_photos.false_boxes):
            raise InputError("the photographs hold nothing that the finder mistakes for a face: use more")

    def build_network(self) -> AlignerNetwork:
        """Build the network with its initial weights."""
        return AlignerNetwork(self.config.width)

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Landmark errors of both steps in eye distances, and the cross entropy of the face score."""
        photos, network = self.train_photos, self.network
        face_frames = random_face_frames(photos, indices, self.config.rotation, generator)
        others, other_frames = self._non_faces(len(indices), generator)
        images = photos.images[torch.cat([indices, others])].float() / 255
        textures = max(1, round(len(others) * _TEXTURE_SHARE))
        images[-textures:] = random_textures(textures, images.shape[2:], generator)
        images = images.to(self.device)
        frames = torch.cat([face_frames, other_frames]).to(self.device)
        coarse = network.locate(network.coarse, disturbed(sample_crops(images, frames), generator), frames)
        fine_frames = moved(network.fine_frames(coarse.points.detach(), frames), generator)
        crops = disturbed(sample_crops(images, fine_frames), generator)
        fine = network.locate(network.fine, crops, fine_frames)
        truth = self._truth(indices, face_frames).to(self.device)
        terms = {"coarse": landmark_loss(coarse, truth), "fine": landmark_loss(fine, truth)}
        terms["score"] = score_loss(coarse, len(indices)) + score_loss(fine, len(indices))
        return {"total": terms["coarse"] + terms["fine"] + self.config.score_weight * terms["score"], **terms}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean landmark error on held-out people in eye distances, and how well the score tells faces."""
        photos = self.held_out_photos
        numbers = torch.arange(len(photos), dtype=torch.float32)[:, None]
        faces = self._locate(network, photos, torch.cat([numbers, photos.boxes], dim=1))
        others = self._locate(network, photos, photos.false_boxes)
        eyes = (photos.landmarks[:, 1] - photos.landmarks[:, 0]).norm(dim=1)
        errors = (faces.points - photos.landmarks).norm(dim=2).mean(1) / eyes
        return {
            "error": float(errors.mean()),
            "median error": float(errors.median()),
            "faces refused": float((faces.logits <= 0).float().mean()),
            "non-faces accepted": float((others.logits > 0).float().mean()) if len(others.logits) else 0.0,
        }

    def _locate(self, network: nn.Module, photos: PhotoSet, boxes: Tensor) -> Located:
        """Run the network on boxes (photo, centre, side, angle)."""
        chunks = []
        for chunk in torch.split(boxes, _CHUNK):
            images = photos.images[chunk[:, 0].long()].to(self.device).float() / 255
            frames = box_frames(chunk[:, 1:3], chunk[:, 3], chunk[:, 4]).to(self.device)
            chunks.append(network(images, frames))
        return Located(*(torch.cat(values).cpu() for values in zip(*chunks, strict=True)))

    def _non_faces(self, faces: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Photos, and frames in them, of boxes that hold no face; most of them fooled the finder."""
        count = max(2, round(faces * self.config.non_faces))
        false = self.train_photos.false_boxes
        fooled = false[torch.randint(len(false), (count - count // 3,), generator=generator)]
        boxes = torch.cat([fooled, random_non_faces(self.train_photos, count - len(fooled), generator)])
        sides = boxes[:, 3] * uniform(count, -0.15, 0.15, generator).exp()
        angles = boxes[:, 4] + uniform(count, -0.5, 0.5, generator)
        flips = torch.rand(count, generator=generator) < 0.5
        return boxes[:, 0].long(), box_frames(boxes[:, 1:3], sides, angles, flips)

    def _truth(self, indices: Tensor, frames: Tensor) -> Tensor:
        """Landmarks; in mirrored frames right and left change places."""
        points = self.train_photos.landmarks[indices]
        flipped = frames[:, :, :2].det() < 0
        return torch.where(flipped[:, None, None], points[:, [1, 0, 2, 4, 3]], points)


def train_aligner(config: AlignerConfig) -> Outcome:
    """Train an aligner, or continue its training, and write it where `config.out` says.

    Raises:
        InputError: the data is missing or the run folder belongs to another training.
        PhotoFormatError: a photograph is damaged.
    """
    task = AlignerTask(config)
    outcome = train(task, config)
    network = outcome.network
    assert isinstance(network, AlignerNetwork)
    training = {
        "seed": config.seed,
        "photographs": len(task.train_photos),
        "held-out photographs": len(task.held_out_photos),
        "data": task.manifest.digest,
        "held-out figures": outcome.figures,
    }
    save_aligner(network, config.out or config.run / "aligner.safetensors", training)
    return outcome


def random_face_frames(
    photos: PhotoSet, indices: Tensor, rotation: float, generator: torch.Generator
) -> Tensor:
    """Frames of boxes as the finder gives them, turned by up to `rotation` degrees beside the faces, and mirrored."""
    count = len(indices)
    points = photos.landmarks[indices]
    eyes = (points[:, 1] - points[:, 0]).norm(dim=1)
    normal = torch.randn(count, 4, generator=generator)
    wide = torch.where(torch.rand(count, 1, generator=generator) < 0.3, 2.0, 1.0)
    spread = torch.tensor(BOX_SPREAD) * torch.stack([eyes, eyes, eyes, torch.ones(count)], dim=1)
    drawn = photos.usual_boxes[indices] + spread * normal * wide
    near = photos.boxes[indices] + 0.3 * spread * normal
    boxes = torch.where(torch.rand(count, 1, generator=generator) < _TRUE_BOX_SHARE, near, drawn)
    angles = uniform(count, -1, 1, generator) * math.radians(rotation)
    angles = angles * torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, 0.3)
    middles = points.mean(1)
    offsets = torch.view_as_complex((boxes[:, :2] - middles).contiguous())
    centres = middles + torch.view_as_real(torch.polar(torch.ones(count), angles) * offsets)
    sides = torch.minimum(torch.maximum(boxes[:, 2], 1.6 * eyes), 5 * eyes)
    mirrored = torch.rand(count, generator=generator) < 0.5
    return box_frames(centres, sides, boxes[:, 3] + angles, mirrored)


def random_non_faces(photos: PhotoSet, count: int, generator: torch.Generator) -> Tensor:
    """Boxes (photo, centre, side, angle), B×5, beside the face, or on it and far too small or too large."""
    numbers = torch.randint(len(photos), (count,), generator=generator)
    faces = photos.boxes[numbers]
    height, width = photos.images.shape[2:]
    side = faces[:, 2] * uniform(count, math.log(0.3), math.log(2.0), generator).exp()
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    apart = (centre - faces[:, :2]).abs().amax(1) / torch.maximum(side, faces[:, 2]) > 0.6
    other_scale = (side / faces[:, 2]).log().abs() > math.log(1.7)
    # what still looks like the face is made a tiny box inside it
    side = torch.where(apart | other_scale, side, faces[:, 2] * 0.35)
    angle = torch.zeros(count)
    return torch.stack([numbers.float(), centre[:, 0], centre[:, 1], side, angle], dim=1)


def random_textures(count: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Random noise of mixed coarseness, half of it black and white, count×1×H×W in 0…1."""
    image = torch.zeros(count, 1, *size)
    for cells in (5, 15, 50, 125):
        grid = torch.rand(count, 1, cells, cells, generator=generator) - 0.5
        weight = uniform(count, 0, 1, generator)[:, None, None, None] ** 2
        image += weight * interpolate(grid, size=tuple(size), mode="bilinear")
    image = image / (image.abs().amax((1, 2, 3), keepdim=True) + 1e-6)
    sharpness = torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, 20.0)[:, None, None, None]
    return (image * sharpness).sigmoid()


def disturbed(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Change light, sharpness and compression of grey crops (B×1×S×S, 0…1), cover parts, add noise."""
    count = len(crops)

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, low, high, generator).to(crops)[:, None, None, None]

    ramp = torch.linspace(-1, 1, crops.shape[2], device=crops.device)
    light = (draw(-0.5, 0.5) * ramp + draw(-0.5, 0.5) * ramp[:, None]).exp()
    crops = (crops.clamp(min=1e-3) ** draw(-0.5, 0.5).exp() * light).clamp(0, 1)
    crops = occlude(crops.repeat(1, 3, 1, 1), 0.15, 0.45, generator)[:, :1]
    crops = blur(crops, 0.25, generator)
    noise = torch.randn(crops.shape, generator=generator).to(crops)
    crops = crops + noise * draw(0, 0.05) * (draw(0, 1) < 0.5)
    return compress(crops.clamp(0, 1), 0.2, generator)


def moved(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale and shift frames a little, so that the fine step learns to correct the coarse one."""
    count = len(frames)
    turn = torch.randn(count, 4, generator=generator) * torch.tensor([0.05, 0.05, 0.04, 0.04])
    size, angle = turn[:, 0].exp(), turn[:, 1]
    rows = torch.stack([size * angle.cos(), -size * angle.sin(), size * angle.sin(), size * angle.cos()], 1)
    linear = frames[:, :, :2] @ rows.reshape(-1, 2, 2).to(frames)
    shift = frames[:, :, :2] @ turn[:, 2:, None].to(frames)
    return torch.cat([linear, frames[:, :, 2:] + shift], dim=2)


def landmark_loss(located: Located, truth: Tensor) -> Tensor:
    """Mean distance of the first B landmarks to the truth (B×5×2) in eye distances, smooth at zero."""
    eyes = (truth[:, 1] - truth[:, 0]).norm(dim=1)
    squares = (located.points[: len(truth)] - truth).square().sum(2) / eyes.square()[:, None]
    loss: Tensor = (squares + _SMOOTH**2).sqrt().mean() - _SMOOTH
    return loss


_SMOOTH = 0.02


def score_loss(located: Located, faces: int) -> Tensor:
    """Cross entropy of the face score; the first `faces` are faces."""
    target = (torch.arange(len(located.logits), device=located.logits.device) < faces).float()
    return binary_cross_entropy_with_logits(located.logits, target)
