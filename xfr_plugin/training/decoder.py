"""Training of a decoder for a frozen recognizer."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.channels.decoded import channel_atlas
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.folding import folded_recognizer
from xfr_plugin.recognition.recognizer import Provenance
from xfr_plugin.recognition.zoo import load_recognizer
from xfr_plugin.reconstruction.decoder import Decoder, DecoderCard
from xfr_plugin.reconstruction.files import save_decoder
from xfr_plugin.reconstruction.network import DecoderNetwork, to_input_size
from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.engine import Outcome, Task, train
from xfr_plugin.training.faces_data import (
    all_files,
    find_faces,
    read_faces,
    split_people,
)
from xfr_plugin.training.losses import gradient_loss, identity_loss, pixel_loss, shifted_views
from xfr_plugin.training.manifest import build_manifest
from xfr_plugin.training.regional_fit import fit_regional
from xfr_plugin.training.regions import embed_with_mirror

__all__ = ["DecoderConfig", "DecoderTask", "publish_decoder", "train_decoder"]


class DecoderConfig(EngineConfig):
    """How a decoder is trained.

    Attributes:
        recognizer: name or weight file of the recognizer whose embeddings are decoded.
        faces: folder of aligned faces, see `find_faces`; no labels are needed.
        people: LFW people file; `peopleDevTrain.txt` beside the folder, if left out and there.
        output_size: height and width of decoded faces in pixels; half the recognizer's, if left out.
        widths: channels of the network's stages.
        held_out: share of the people kept for validation.
        validation_faces: so many faces at most are validated on.
        synthetic: embeddings mixed from real ones, for each real one; only their identity is learned.
        pixel: weight of the pixel loss.
        gradient: weight of the gradient loss.
        identity: weight of the identity loss.
        shift: the identity loss sees views shifted by up to so many pixels of the recognizer's input.
        noise: deviation of the noise on these views, in units of the image's range.
        atlas_faces: how many training faces the channel atlas is averaged over.
        exchanges: how many pairs of training people exchange regions to measure regional evidence.
    """

    recognizer: str = "xfr_compact128"
    faces: Path = Path("../shared/data/faces/lfw112")
    people: Path | None = None
    output_size: tuple[int, int] | None = None
    widths: tuple[int, int, int] = (128, 64, 32)
    held_out: float = Field(default=0.06, gt=0, lt=1)
    validation_faces: int = Field(default=256, gt=0)
    synthetic: float = Field(default=0.5, ge=0)
    pixel: float = Field(default=4.0, ge=0)
    gradient: float = Field(default=4.0, ge=0)
    identity: float = Field(default=1.0, ge=0)
    shift: int = Field(default=4, ge=0)
    noise: float = Field(default=0.05, ge=0)
    atlas_faces: int = Field(default=512, gt=0)
    exchanges: int = Field(default=3000, gt=0)


class DecoderTask(Task):
    """Decode embeddings of real faces to these faces, and mixed embeddings to faces of that identity.

    On few training people the identity loss on mixed embeddings, of which there is no end, keeps the decoder
    from learning faces by heart.
    """

    metric = "identity_cosine"

    def __init__(self, config: DecoderConfig) -> None:
        self.config = config
        self.recognizer = load_recognizer(config.recognizer)
        self.frozen = folded_recognizer(self.recognizer).requires_grad_(False)
        training, held_out = split_people(
            find_faces(config.faces, config.people), config.held_out, config.seed
        )
        self.manifest = build_manifest(config.faces, all_files(training, held_out))
        self.faces = read_faces(config.faces, training, self.recognizer.input_size)
        self.embeddings = embed_with_mirror(self.recognizer, self.faces)
        validation = read_faces(config.faces, held_out, self.recognizer.input_size)
        chosen = torch.linspace(0, len(validation) - 1, min(config.validation_faces, len(validation))).long()
        self.validation = validation.batch(chosen)
        self.validation_embeddings = self.frozen.embed(self.validation)
        self.examples = len(self.faces)

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of decoded faces."""
        height, width = self.recognizer.input_size
        return self.config.output_size or ((height + 1) // 2, (width + 1) // 2)

    def build_network(self) -> nn.Module:
        """Build the decoder."""
        network = DecoderNetwork(self.embeddings.shape[2], self.output_size, self.config.widths)
        return network.to(memory_format=torch.channels_last)

    def to(self, device: torch.device) -> None:
        """Move the recognizer and the validation data."""
        self.device = device
        self.frozen.to(device)
        self.validation_embeddings = self.validation_embeddings.to(device)

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Pixel, gradient and identity terms of a batch; see `Task`."""
        mirrored = torch.randint(2, (len(indices),), generator=generator)
        real = self.embeddings[indices, mirrored]
        mixed = mixed_embeddings(self.embeddings, round(len(real) * self.config.synthetic), generator)
        wanted = torch.cat((real, mixed)).to(self.device)
        images = self.network(wanted)
        target = self._targets(indices, mirrored)
        terms = {
            "pixel": pixel_loss(images[: len(real)], target),
            "gradient": gradient_loss(images[: len(real)], target),
            "identity": identity_loss(self.frozen, self._views(images, generator), wanted),
        }
        weights = {name: getattr(self.config, name) for name in terms}
        return {"total": sum((weights[n] * v for n, v in terms.items()), torch.zeros(())), **terms}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Identity cosine and pixel loss on faces of held-out people."""
        images = torch.cat([network(chunk) for chunk in _chunks(self.validation_embeddings)])
        inputs = to_input_size(images.float(), self.recognizer.input_size)
        again = self.frozen.embed(inputs)
        faces = functional.interpolate(self.validation, self.output_size, mode="area")
        return {
            "identity_cosine": float((again * self.validation_embeddings).sum(dim=1).mean()),
            "pixel": float(pixel_loss(images.cpu(), faces)),
        }

    def _targets(self, indices: Tensor, mirrored: Tensor) -> Tensor:
        faces = self.faces.batch(indices)
        faces = torch.where(mirrored.bool()[:, None, None, None], faces.flip(3), faces).to(self.device)
        return functional.interpolate(faces, self.output_size, mode="area")

    def _views(self, images: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(images.shape, generator=generator).to(self.device)
        views = to_input_size(images.float() + self.config.noise * noise, self.recognizer.input_size)
        views = shifted_views(views, self.config.shift, generator)
        return views.contiguous(memory_format=torch.channels_last)


def train_decoder(config: DecoderConfig) -> Outcome:
    """Train a decoder; `decoder.safetensors` and the best bare weights end in the run folder.

    Raises:
        InputError: no faces, or a run folder of another training.
        WeightsError: the recognizer or a checkpoint cannot be read.
    """
    task = DecoderTask(config)
    outcome = train(task, config)
    publish_decoder(task, outcome, config.run / "decoder.safetensors", f"{task.recognizer.name}_decoder")
    return outcome


def publish_decoder(task: DecoderTask, outcome: Outcome, path: Path, name: str) -> DecoderCard:
    """Measure channel atlas and regional evidence of a trained decoder and write everything as one file."""
    config = task.config
    embeddings = task.embeddings[:, 0]
    card = DecoderCard(
        name=name,
        recognizer=task.recognizer.name,
        recognizer_sha256=fingerprint(task.recognizer),
        embedding_dim=embeddings.shape[1],
        input_size=task.recognizer.input_size,
        output_size=task.output_size,
        widths=config.widths,
        provenance=Provenance(
            source="trained by this project", licence="Apache-2.0", training_data=_data_of(config)
        ),
        figures={key: value for key, value in outcome.best.items() if key.startswith("val/")},
    )
    chosen = torch.linspace(0, len(embeddings) - 1, min(config.atlas_faces, len(embeddings))).long()
    network = outcome.network.to(memory_format=torch.channels_last)
    assert isinstance(network, DecoderNetwork)
    atlas = channel_atlas(network, embeddings[chosen])
    mean_face = functional.interpolate(
        task.faces.images.double().mean(dim=0)[None] / 255, task.output_size, mode="area"
    )
    regional = fit_regional(
        task.recognizer,
        network,
        task.faces.images,
        torch.from_numpy(task.faces.people),
        task.embeddings,
        exchanges=config.exchanges,
        seed=config.seed,
    )
    mean_embedding = embeddings.mean(dim=0)
    save_decoder(Decoder(network, card, atlas, mean_embedding, mean_face[0].float(), regional), path)
    return card


def mixed_embeddings(embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Normalised random mixes of two real embeddings (from M×2×D: as they are and mirrored), `count`×D."""
    flat = embeddings.flatten(0, 1)
    first, second = torch.randint(len(flat), (2, count), generator=generator)
    share = torch.rand(count, 1, generator=generator)
    return functional.normalize(share * flat[first] + (1 - share) * flat[second], dim=1)


def _chunks(values: Tensor) -> tuple[Tensor, ...]:
    return torch.chunk(values, max(1, -(-len(values) // 64)))


def _data_of(config: DecoderConfig) -> str:
    chosen = config.people or config.faces.parent / "peopleDevTrain.txt"
    return f"{config.faces.name}, people of {chosen.name}" if chosen.is_file() else config.faces.name
