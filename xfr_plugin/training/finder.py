"""Training of the face finder: where faces are in a picture, how large, and how they are turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from xfr_plugin.faces.finder import save_finder
from xfr_plugin.faces.finder_network import STRIDE, USUAL_EYES, FaceMap, FinderNetwork
from xfr_plugin.faces.lfw import read_landmarks
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.aligner import random_textures
from xfr_plugin.training.aligner_data import read_labelled
from xfr_plugin.training.augment import uniform
from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.engine import Outcome, Task, train
from xfr_plugin.training.faces_data import all_files, find_faces, split_people
from xfr_plugin.training.finder_scenes import Scenes, draw_layers, draw_scenes, relit, softened
from xfr_plugin.training.manifest import build_manifest

__all__ = ["FinderConfig", "FinderTask", "train_finder"]

_VALIDATED = 8
_FALSE_SHARE = 0.1


class FinderConfig(EngineConfig):
    """Configuration of the training of the face finder.

    Attributes:
        data: folder with `lfw250/`, `labels.csv` and the people files; that of `XFR_DATA`, if left out.
        people: file below it that names the people to train on.
        out: where the trained finder is written; `finder.safetensors` in the run folder, if left out.
        held_out: share of the people on whom training is validated.
        width: channels of the network at its highest resolution.
        side: of the pictures, in pixels; divisible by 8.
        layers: photographs in a picture, with the one in the background.
        rotation: greatest angle, in degrees, by which faces are turned.
        place_weight: weight of the loss of place, size and angle; finding counts 1.
    """

    run: Path = Path("runs/finder")
    epochs: int = Field(default=18, gt=0)
    epoch_steps: int | None = Field(default=200, gt=0)
    batch_size: int = Field(default=32, gt=0)
    learning_rate: float = Field(default=4e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    data: Path | None = None
    people: str = "peopleDevTrain.txt"
    out: Path | None = None
    held_out: float = Field(default=0.1, gt=0, lt=1)
    width: int = Field(default=16, ge=4, le=64)
    side: int = Field(default=96, ge=64, multiple_of=8)
    layers: int = Field(default=4, ge=2)
    rotation: float = Field(default=55.0, ge=0, le=60)
    place_weight: float = Field(default=1.0, ge=0)


class FinderTask(Task):
    """Pictures that are composed anew at each step; an example is what lies at the bottom of one."""

    network: FinderNetwork
    metric = "missed"
    maximise = False

    def __init__(self, config: FinderConfig) -> None:
        root = config.data or data_root() / "faces"
        self.config = config
        landmarks = read_landmarks(root / "labels.csv")
        faces = find_faces(root / "lfw250", root / config.people)
        splits = split_people(faces, config.held_out, config.seed)
        (self.images, self.landmarks), self.held_out = (
            (
                softened(
                    torch.from_numpy(np.stack(read_labelled(root / "lfw250", landmarks, files)))[:, None]
                ),
                torch.from_numpy(np.stack([landmarks[file] for file in files])).float(),
            )
            for files in map(all_files, splits)
        )
        self.examples = len(self.images)
        files = [f"lfw250/{file}" for file in all_files(*splits)]
        self.manifest = build_manifest(root, ["labels.csv", config.people, *files])

    def build_network(self) -> FinderNetwork:
        """Build the network with its initial weights."""
        return FinderNetwork(self.config.width)

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Focal loss of finding; of places, sizes and angles the distance, in eye distances and radians."""
        scenes = self.scenes(self.images, self.landmarks, indices, generator)
        found = self.network(scenes.pictures.to(self.device))
        terms = {"finding": finding_loss(found, scenes), **place_losses(found, scenes)}
        places = terms["place"] + terms["size"] + terms["turn"]
        return {"total": terms["finding"] + self.config.place_weight * places, **terms}

    def scenes(self, images: Tensor, landmarks: Tensor, lowest: Tensor, generator: torch.Generator) -> Scenes:
        """Compose pictures over the photographs `lowest`."""
        config, count = self.config, len(lowest)
        layers = draw_layers(count, config.layers, len(images), config.side, config.rotation, generator)
        layers.photos[:, 0] = lowest
        grounds = torch.full((count, 1, config.side, config.side), float("nan"))
        plain, woven = count // 4, count // 4
        grounds[:plain] = uniform(plain, 0, 1, generator)[:, None, None, None]
        grounds[plain : plain + woven] = random_textures(woven, grounds.shape[2:], generator)
        scenes = draw_scenes(images, landmarks, layers, grounds, config.side)
        scenes.pictures.copy_(relit(scenes.pictures, generator))
        return scenes

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Faces of held-out people missed where one picture in ten has a false one; errors of places."""
        hits, false, places = [], [], []
        for number in range(_VALIDATED):
            generator = torch.Generator().manual_seed(number)
            count = len(self.held_out[0])
            lowest = torch.randint(count, (self.config.batch_size,), generator=generator)
            scenes = self.scenes(*self.held_out, lowest, generator)
            found = FaceMap(*(values.cpu() for values in network(scenes.pictures.to(self.device))))
            picture, row, column = scenes.faces.unbind(1)
            best = nn.functional.max_pool2d(found.logits[:, None], 3, 1, 1)[:, 0]
            hits.append(best[picture, row, column])
            elsewhere = found.logits.masked_fill(scenes.ignored | (scenes.heat > 0.01), -99.0)
            false.append(elsewhere.amax((1, 2)))
            places.append(torch.stack(list(place_losses(found, scenes).values())))
        bound = torch.cat(false).quantile(1 - _FALSE_SHARE)
        names = ("place", "size", "turn")
        errors = dict(zip(names, torch.stack(places).mean(0).tolist(), strict=True))
        return {"missed": float((torch.cat(hits) <= bound).float().mean()), "bound": float(bound), **errors}


def train_finder(config: FinderConfig) -> Outcome:
    """Train a finder, or continue its training, and write it where `config.out` says.

    Raises:
        InputError: the data is missing or the run folder belongs to another training.
        PhotoFormatError: a photograph is damaged.
    """
    task = FinderTask(config)
    outcome = train(task, config)
    network = outcome.network
    assert isinstance(network, FinderNetwork)
    training = {
        "seed": config.seed,
        "photographs": len(task.images),
        "held-out photographs": len(task.held_out[0]),
        "data": task.manifest.digest,
        "held-out figures": outcome.figures,
    }
    save_finder(network, config.out or config.run / "finder.safetensors", training)
    return outcome


def finding_loss(found: FaceMap, scenes: Scenes) -> Tensor:
    """Focal loss of a heat map (Law and Deng, *CornerNet*, ECCV 2018), for each face."""
    heat, logits = scenes.heat.to(found.logits), found.logits
    chance = logits.sigmoid()
    face = -(1 - chance).square() * logsigmoid(logits)
    other = -((1 - heat) ** 4) * chance.square() * logsigmoid(-logits)
    loss = torch.where(heat == 1, face, other).masked_fill(scenes.ignored.to(logits.device), 0.0)
    return loss.sum() / max(1, len(scenes.faces))


def place_losses(found: FaceMap, scenes: Scenes) -> dict[str, Tensor]:
    """Mean distances of place (in eye distances), of the logarithm of size, and of direction."""
    picture, row, column = scenes.faces.to(found.logits.device).unbind(1)
    cells = torch.stack([column, row], dim=1) * STRIDE
    offsets = found.offsets[picture, :, row, column] * USUAL_EYES
    eyes = scenes.eyes.to(cells.device)
    apart = (cells + offsets - scenes.centres.to(cells.device)).norm(dim=1) / eyes
    sizes = (found.sizes[picture, row, column] - (eyes / USUAL_EYES).log()).abs()
    angles = scenes.angles.to(cells.device)
    direction = torch.stack([angles.cos(), angles.sin()], dim=1)
    turns = (found.turns[picture, :, row, column] - direction).norm(dim=1)
    count = max(1, len(apart))
    return {"place": apart.sum() / count, "size": sizes.sum() / count, "turn": turns.sum() / count}
