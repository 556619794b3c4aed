"""Training of a compact recognizer by distilling a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import metrics
from xfr_plugin.recognition.networks import build_network
from xfr_plugin.recognition.networks.compact import CompactFaceNet
from xfr_plugin.recognition.networks.compact_transformer import CompactTransformer
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.recognition.zoo import load_recognizer
from xfr_plugin.training.augment import AugmentConfig, augment
from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.engine import Outcome, Task, train
from xfr_plugin.training.faces_data import all_files, embed_faces, find_faces, read_faces, split_people
from xfr_plugin.training.inherit import FrontTask, inherit_weights, take_over
from xfr_plugin.training.manifest import build_manifest
from xfr_plugin.training.pool import PoolConfig, build_pool

__all__ = ["DistillationTask", "RecognizerConfig", "pair_scores", "train_recognizer"]


class RecognizerConfig(EngineConfig):
    """How a recognizer is distilled.

    Attributes:
        faces: folder of aligned faces, see `find_faces`.
        people: LFW people file; `peopleDevTrain.txt` beside the folder, if left out and there.
        teacher: name or weight file of the recognizer to learn from.
        architecture: name of the student's network; it must take the teacher's input size.
        held_out: share of the people kept for validation.
        front_epochs: validations of the first stage, in which the student's front learns the teacher's feature
            map; it then inherits the second half. 0 leaves this stage out, for teachers of another architecture.
        front_stop: validations after which that stage ends although its schedule is longer.
        front_rate: learning rate of that stage.
        start: recognizer whose trained layers the student's front takes over where they are alike, and keeps.
        relation: weight of the pairwise relations beside the cosine to the teacher's embedding.
        map: weight of the teacher's last map of features, for students whose front ends in a map of this shape;
            they inherit the teacher's head.
        pool: what the student is shown beside the faces themselves.
        augment: how views are degraded that the student, not the teacher, sees.
    """

    may_change: ClassVar[frozenset[str]] = EngineConfig.may_change | {"front_stop"}

    faces: Path = Path("../shared/data/faces/lfw112")
    people: Path | None = None
    teacher: str = "mobilefacenet_ms1m"
    architecture: str = "compact"
    held_out: float = Field(default=0.06, gt=0, lt=1)
    front_epochs: int = Field(default=8, ge=0)
    front_stop: int | None = Field(default=None, gt=0)
    front_rate: float = Field(default=3e-3, gt=0)
    start: str | None = None
    relation: float = Field(default=10.0, ge=0)
    map: float = Field(default=0.0, ge=0)
    pool: PoolConfig = PoolConfig()
    augment: AugmentConfig = AugmentConfig(mirror=0.0)


class DistillationTask(Task):
    """Match a teacher's embeddings: cosine to each, and the cosines between all of a batch.

    The student sees a degraded view, the target is the teacher's embedding of the undegraded one. The
    relational term is that of relational knowledge distillation (arXiv 1904.05068) on cosines.
    """

    metric = "cosine"

    def __init__(self, config: RecognizerConfig) -> None:
        self.config = config
        training, held_out = split_people(
            find_faces(config.faces, config.people), config.held_out, config.seed
        )
        self.manifest = build_manifest(config.faces, all_files(training, held_out))
        self.teacher = teacher = load_recognizer(config.teacher)
        faces = read_faces(config.faces, training, teacher.input_size)
        wants_maps = config.map > 0
        self.pool = build_pool(
            faces, teacher, config.pool, config.seed, config.run, config.progress, wants_maps
        )
        self.kept: list[nn.Module] = []
        self.validation = read_faces(config.faces, held_out, teacher.input_size)
        self.truth = embed_faces(teacher, self.validation)
        self.examples = len(self.pool)

    def build_network(self) -> nn.Module:
        """Build the student; train its front first, unless told otherwise."""
        config, student = self.config, build_network(self.config.architecture)
        if config.front_epochs:
            stage = FrontTask(self.teacher, self.pool.images, self.validation, config.augment, self.manifest)
            changes: dict[str, Any] = {"run": config.run / "front", "epochs": config.front_epochs}
            changes |= {"learning_rate": config.front_rate, "stop_after": config.front_stop}
            front = train(stage, config.model_copy(update=changes))
            assert isinstance(student, CompactFaceNet)
            student = inherit_weights(student, self.teacher, front.network)
        if config.map:
            if not isinstance(student, CompactTransformer):
                raise InputError(
                    f"{config.architecture} has no front that ends in its teacher's last map: set map = 0"
                )
            student = inherit_weights(student, self.teacher, student.front)
        if config.start:
            self.kept = take_over(student, load_recognizer(config.start))
        return student.to(memory_format=torch.channels_last)

    def to(self, device: torch.device) -> None:
        """Remember where to send the batches."""
        self.device = device
        self.teacher.to(device)

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cosine and relational terms of a batch; see `Task`."""
        images = self.pool.images[indices].float() / 255
        target = self.pool.targets[indices].to(self.device)
        views = self._prepare(augment(images, self.config.augment, generator))
        for module in self.kept:
            module.eval()
        own, maps = self._passed(views)
        own = functional.normalize(own.float(), dim=1)
        cosine = 1 - (own * target).sum(dim=1).mean()
        relation = (own @ own.T - target @ target.T).square().mean()
        total = cosine + self.config.relation * relation
        terms = {"cosine": cosine, "relation": relation}
        if maps is not None:
            wanted = self.pool.maps[indices].to(self.device).float()
            terms["map"] = functional.mse_loss(maps.float(), wanted) / wanted.var()
            total = total + self.config.map * terms["map"]
        return {"total": total, **terms}

    def _passed(self, views: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings, and the map of features that they are made of, where it is learned."""
        if not self.config.map:
            return self.network(views), None
        assert isinstance(
            self.network, CompactTransformer
        )  # the one architecture of ours with a head of its own
        features = self.network.front(views)
        return self.network.head(features), features

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Cosine to the teacher, and the equal error rate over all pairs, of held-out people."""
        own = torch.cat([self._embed(network, i) for i in _chunks(len(self.validation))])
        genuine, impostor = pair_scores(own, self.validation.people)
        return {
            "cosine": float((own * self.truth).sum(dim=1).mean()),
            "eer": metrics.equal_error_rate(genuine, impostor)[0],
        }

    def _embed(self, network: nn.Module, indices: Tensor) -> Tensor:
        images = self._prepare(self.validation.batch(indices))
        return functional.normalize(network(images).float(), dim=1).cpu()

    def _prepare(self, images: Tensor) -> Tensor:
        """The student takes what its teacher takes."""
        return self.teacher.preprocess(images.to(self.device)).contiguous(memory_format=torch.channels_last)


def train_recognizer(config: RecognizerConfig) -> Outcome:
    """Distil a recognizer; the best weights end in the run folder, see `engine.train`.

    Raises:
        InputError: no faces, or a run folder of another training.
        WeightsError: the teacher or a checkpoint cannot be read.
    """
    return train(DistillationTask(config), config)


def student(network: nn.Module, teacher: Recognizer, name: str) -> Recognizer:
    """Wrap a trained student with the preprocessing that it was trained with: its teacher's."""
    return Recognizer(
        network,
        input_size=teacher.input_size,
        mean=teacher.mean.flatten().tolist(),
        std=teacher.std.flatten().tolist(),
        channel_order=teacher.channel_order,
        name=name,
    )


def pair_scores(
    embeddings: Tensor, people: Sequence[int] | np.typing.NDArray[np.int64]
) -> tuple[metrics.Scores, metrics.Scores]:
    """Cosines of all genuine and of all impostor pairs of normalised embeddings, N×D."""
    numbers = np.asarray(people)
    scores = (embeddings @ embeddings.T).double().numpy()
    upper = np.triu(np.ones(scores.shape, dtype=bool), k=1)
    same = numbers[:, None] == numbers[None]
    return scores[upper & same], scores[upper & ~same]


def _chunks(count: int) -> tuple[Tensor, ...]:
    return torch.split(torch.arange(count), 64)
