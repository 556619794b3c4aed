"""The pool of a distillation: training faces, and faces mixed from them, with the teacher's embeddings.

A teacher can label any image. Mixing aligned faces (after mixup, arXiv 1710.09412, and CutMix, arXiv
1905.04899, here with soft borders) gives many more "people" than the training set has, so that the student
learns the teacher's function rather than the embeddings of a few thousand people ("function matching",
arXiv 2106.05237).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import atomic_path
from xfr_plugin.recognition.folding import fast_recognizer, folded_recognizer
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.training.augment import colour, mirror, move, uniform
from xfr_plugin.training.engine import step_generator
from xfr_plugin.training.faces_data import FaceSet
from xfr_plugin.training.inherit import LAST_MAP, mobile_of, teacher_front, teacher_head

__all__ = ["Pool", "PoolConfig", "build_pool", "mix_faces"]

_CHUNK = 64

Label: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From images to the teacher's embeddings and maps."""


class PoolConfig(Document):
    """What the pool holds beside every training face and its mirror image.

    Attributes:
        mixes: how many mixed and moved faces for each training face.
        mixed: share of them that is mixed with another face; the rest is only moved and recoloured.
        rotation: greatest angle in degrees.
        scale: greatest relative change of size.
        shift: greatest shift as a share of the side.
    """

    mixes: int = Field(default=4, ge=0)
    mixed: float = Field(default=0.7, ge=0, le=1)
    rotation: float = Field(default=8.0, ge=0, le=45)
    scale: float = Field(default=0.08, ge=0, lt=1)
    shift: float = Field(default=0.03, ge=0, lt=1)


@dataclass(frozen=True)
class Pool:
    """What the student sees, and what the teacher makes of exactly that.

    Attributes:
        images: uint8, M×3×H×W.
        targets: the teacher's normalised embeddings, M×D.
        maps: its last maps of features, float16, M×C×h×w; M×0 where nobody learns them.
    """

    images: Tensor
    targets: Tensor
    maps: Tensor

    def __len__(self) -> int:
        return len(self.targets)


def build_pool(
    faces: FaceSet,
    teacher: Recognizer,
    config: PoolConfig,
    seed: int,
    folder: Path,
    progress: bool = False,
    maps: bool = False,
) -> Pool:
    """Build the pool, or read it back from `folder` if it was built there from the same sources.

    Args:
        faces: of the training people.
        teacher: who labels.
        config: how many images, and of which kinds.
        seed: of the mixes.
        folder: where the pool is kept.
        progress: show a bar.
        maps: keep the teacher's last maps of features, too. The teacher is a MobileFaceNet then.
    """
    key = _key(faces, teacher, config, seed, maps)
    paths = [folder / f"pool-{key}-{part}.npy" for part in ("images", "targets", "maps")]
    if not all(path.is_file() for path in paths):
        label = _with_maps(teacher) if maps else _without_maps(teacher)
        _write_pool(faces, label, config, seed, paths, progress)
    # mode "c" (copy on write) lets torch share the file's pages without a warning about read-only memory
    images, targets, features = (
        torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False)) for path in paths
    )
    return Pool(images, targets, features)


def _without_maps(teacher: Recognizer) -> Label:
    folded = folded_recognizer(teacher)
    return lambda images: (folded.embed(images).cpu(), torch.empty(len(images), 0))


def _with_maps(teacher: Recognizer) -> Label:
    """What gives the embedding and the last map of features, in one pass."""
    network = mobile_of(teacher)
    front, head = teacher_front(network, replaced=None), teacher_head(network)
    fast = fast_recognizer(teacher.with_network(nn.Sequential(front, nn.Flatten())))

    @torch.no_grad()
    def label(images: Tensor) -> tuple[Tensor, Tensor]:
        maps = fast.features(images.to(fast.device)).unflatten(1, (-1, *LAST_MAP))
        return functional.normalize(head(maps), dim=1).cpu(), maps.half().cpu()

    return label


def mix_faces(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """Mix pairs of aligned faces, N×3×H×W: blended evenly, or joined along a soft line through the face."""
    count, _, height, width = first.shape
    share = uniform(count, 0.25, 0.75, generator)[:, None, None].expand(count, height, width)
    angle = uniform(count, 0, 2 * math.pi, generator)[:, None, None]
    offset = uniform(count, -0.25, 0.25, generator)[:, None, None]
    softness = uniform(count, 0.02, 0.15, generator)[:, None, None]
    y = torch.linspace(-1, 1, height)[None, :, None]
    x = torch.linspace(-1, 1, width)[None, None, :]
    side = torch.sigmoid((x * torch.cos(angle) + y * torch.sin(angle) - offset) / softness)
    even = (torch.rand(count, generator=generator) < 0.4)[:, None, None]
    mask = torch.where(even, share, side)[:, None]
    return mask * first + (1 - mask) * second


def _write_pool(
    faces: FaceSet, label: Label, config: PoolConfig, seed: int, paths: Sequence[Path], progress: bool
) -> None:
    total = len(faces) * (2 + config.mixes)
    labels: list[tuple[Tensor, Tensor]] = []
    images_path, *others = paths
    with atomic_path(images_path) as temporary:
        shape = (total, *faces.images.shape[1:])
        stored = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        starts = range(0, total, _CHUNK)
        bar = track(
            starts, "teacher's embeddings", console=Console(stderr=True), disable=not progress, transient=True
        )
        for start in bar:
            numbers = torch.arange(start, min(start + _CHUNK, total))
            chunk = (_pool_images(faces, numbers, config, step_generator(seed, start)) * 255).round()
            stored[start : start + len(chunk)] = chunk.to(torch.uint8).numpy()
            labels.append(label(chunk / 255))
        stored.flush()
    for path, parts in zip(others, zip(*labels, strict=True), strict=True):
        with atomic_path(path) as temporary:
            np.save(temporary, torch.cat(parts).numpy(), allow_pickle=False)


def _pool_images(faces: FaceSet, numbers: Tensor, config: PoolConfig, generator: torch.Generator) -> Tensor:
    """Images of the pool: first all faces, then all mirror images, then round after round of mixes."""
    rounds, indices = numbers // len(faces), numbers % len(faces)
    own = faces.batch(indices)
    partners = faces.batch(torch.randint(len(faces), (len(numbers),), generator=generator))
    mixed = mix_faces(mirror(own.clone(), 0.5, generator), mirror(partners, 0.5, generator), generator)
    plain = torch.rand(len(numbers), generator=generator) >= config.mixed
    changed = torch.where(plain[:, None, None, None], mirror(own.clone(), 0.5, generator), mixed)
    changed = move(changed, 0.8, config.rotation, config.scale, config.shift, generator)
    changed = colour(changed, 0.5, 0.2, 0.03, generator)
    pick = rounds[:, None, None, None]
    return torch.where(pick == 0, own, torch.where(pick == 1, own.flip(3), changed))


def _key(faces: FaceSet, teacher: Recognizer, config: PoolConfig, seed: int, maps: bool) -> str:
    sources = [
        faces.files,
        list(faces.images.shape),
        teacher.provenance.sha256,
        config.model_dump(),
        seed,
        maps,
    ]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]
