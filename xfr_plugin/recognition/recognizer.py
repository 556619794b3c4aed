"""A recognizer: preprocessing, network, normalised embedding, threshold and provenance in one object."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.base.deadlines import check_deadline
from xfr_plugin.base.documents import Document
from xfr_plugin.base.forks import compute_in_forks
from xfr_plugin.base.one_thread import standardised
from xfr_plugin.base.replicas import in_evaluation, replica, unwrapped
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.backends import Forwards
from xfr_plugin.recognition.black_boxes import BlackBox, EmbeddingFunction, Gives, ScoreFunction
from xfr_plugin.recognition.calibration import Calibration
from xfr_plugin.recognition.contract import (
    ChannelOrder,
    InputContract,
    check_images,
    check_pixels,
    check_threshold,
    input_contract,
)
from xfr_plugin.recognition.exported import as_network
from xfr_plugin.recognition.outputs import check_units, embedding_in, giving_embeddings
from xfr_plugin.recognition.self_test import SelfTest, measured_scores, self_test

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["ChannelOrder", "Provenance", "Recognizer"]


class Provenance(Document):
    """Where a network comes from. Shown with every explanation, so that a figure can be traced."""

    source: str = "given by the caller"
    licence: str = "unknown"
    training_data: str = "unknown"
    sha256: str | None = None


class Recognizer(nn.Module):
    """A face recognizer, from an aligned face to its embedding, or from two faces to their score.

    Any network will do::

        recognizer = Recognizer(my_network, input_size=(112, 112), mean=0.5, std=0.5, threshold=0.3)
        explanation = xfr_plugin.explain("a.jpg", "b.jpg", recognizer=recognizer)

    So will an ONNX file (`from_onnx`), a function that gives embeddings (`from_callable`), and one that gives no
    more than scores (`from_scores`). `gives` says which of these it is, and so which methods can explain it.

    The network is put into evaluation mode. If it is put into training mode later, faces are embedded as in
    evaluation all the same, without changing its mode or its buffers. Its parameters are left as they are.

    Args:
        network: maps preprocessed images N×3×H×W to embeddings N×D, normalised or not; alone, or as a part of what
            it returns (see `recognition.outputs`), in any floating-point type. Of what `torch.compile` and
            `DataParallel` give, the network inside is taken. What `torch.export` gave is taken, too, for any number
            of images.
        input_size: height and width of the aligned face in pixels.
        mean: subtracted from the image in [0, 1]; one number or one for each channel of the network's input.
        std: divides the result; one number or one for each channel.
        channel_order: what the network was trained on. Images are always given as RGB.
        threshold: score (−1…1) at and above which a pair is a match; the calibration's, if left out.
        calibration: thresholds measured on labelled pairs, see `recognition.calibrate`.
        name: used in results; the network's class name, if left out.
        provenance: where the network comes from.
        region_shares: what share of a genuine pair's score each region of the face brings, by name of the index and
            of the region, see `attr.measure_shares`. Evidence by removal starts from there.

    Attributes:
        gives: what it gives: `gradient` (embeddings and their gradient), `embeddings`, or `scores`.

    Raises:
        InputError: sizes, means or deviations that make no sense.
    """

    mean: Tensor
    std: Tensor
    gives: Gives

    def __init__(
        self,
        network: nn.Module | ExportedProgram,
        *,
        input_size: tuple[int, int] = (112, 112),
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
        channel_order: ChannelOrder = "RGB",
        threshold: float | None = None,
        calibration: Calibration | None = None,
        name: str | None = None,
        provenance: Provenance | None = None,
        region_shares: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__()
        module = as_network(network)
        if not isinstance(module, nn.Module):
            raise InputError(
                f"a network is a torch.nn.Module, not {type(network).__name__}: {_instead(module)}"
            )
        settings = input_contract(input_size, mean, std, channel_order)
        self.input_size = settings.input_size
        self.channel_order = settings.channel_order
        self.calibration = calibration
        compute_in_forks()
        module = unwrapped(module).eval()
        with torch.inference_mode(False):  # in which a gradient would not be seen
            self.network, self.gives = _opened(module, self.input_size)
        is_cosine = self.gives != "scores"
        self._threshold = check_threshold(threshold, is_cosine=is_cosine)
        if calibration is not None:
            check_threshold(calibration.threshold, "the calibration's threshold", is_cosine=is_cosine)
        self.name = name or type(module).__name__
        self.provenance = provenance or Provenance()
        self.region_shares = dict(region_shares or {})
        self.tested = False
        self._span: float | None = None
        self._forwards = Forwards()
        with torch.inference_mode(False):  # or no gradient could pass them
            self.register_buffer("mean", _per_channel(settings.mean, module), persistent=False)
            self.register_buffer("std", _per_channel(settings.std, module), persistent=False)
        self.eval()

    @classmethod
    def from_callable(cls, embed: Callable[[Tensor], Any], **settings: Any) -> Recognizer:
        """Make a recognizer of a function that gives embeddings, from whatever framework or server.

        Example:
            >>> recognizer = Recognizer.from_callable(lambda faces: faces.numpy().mean(axis=(2, 3)), threshold=0.5)
            >>> recognizer.gives
            'embeddings'

        Args:
            embed: from faces to their embeddings N×D, normalised or not: a tensor, an array or lists. Faces are a
                tensor N×3×H×W of RGB in [0, 1], unless `mean`, `std` and `channel_order` say otherwise;
                `faces.permute(0, 2, 3, 1).numpy()` is what other frameworks take.
            settings: see `Recognizer`; mean 0 and std 1, if left out. Stored results and calibrations know the
                function by `name`: another version of it needs another name.

        Raises:
            InputError: see `Recognizer`.
        """
        given = _for_function(embed, settings)
        return cls(EmbeddingFunction(embed, given["name"].encode()), **given)

    @classmethod
    def from_scores(cls, score: Callable[[Tensor, Tensor], Any], **settings: Any) -> Recognizer:
        """Make a recognizer of a function that compares faces, such as a request to a server.

        Args:
            score: from probes and references, each as in `from_callable`, to N scores of any scale; the more alike
                two faces are, the higher. It should be symmetric.
            settings: as in `from_callable`. The threshold is a score.

        Raises:
            InputError: see `Recognizer`.
        """
        given = _for_function(score, settings)
        return cls(ScoreFunction(score, given["name"].encode()), **given)

    @staticmethod
    def from_onnx(path: str | os.PathLike[str], *, gradients: bool = False, **settings: Any) -> Recognizer:
        """Make a recognizer of an ONNX file, which onnxruntime runs (extra `onnx`).

        Args:
            path: of the file.
            gradients: convert it to a network of torch by onnx2torch instead, and compare both on faces.
            settings: see `Recognizer`; if left out, what `to_onnx` wrote into the file, or else what is published of
                a file of its name (`recognition.published`), its `input_size` and its name.

        Raises:
            WeightsError: the file cannot be read, or not be converted to a network that computes the same.
            InputError: onnxruntime or onnx2torch is not installed; see also `Recognizer`.
        """
        from xfr_plugin.recognition.loading import from_model_file
        from xfr_plugin.recognition.onnx_files import converted, opened_onnx

        network = opened_onnx(Path(path))
        return from_model_file(
            Path(path), network, settings, converted(Path(path), network) if gradients else None
        )

    @staticmethod
    def from_openvino(path: str | os.PathLike[str], **settings: Any) -> Recognizer:
        """Make a recognizer of an OpenVINO IR file, `.xml` with its `.bin` beside it (extra `openvino`).

        Args:
            path: of the `.xml`.
            settings: see `from_onnx`.

        Raises:
            WeightsError: the file cannot be read.
            InputError: openvino is not installed; see also `Recognizer`.
        """
        from xfr_plugin.recognition.loading import from_model_file
        from xfr_plugin.recognition.openvino_files import opened_openvino

        return from_model_file(Path(path), opened_openvino(Path(path)), settings)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network as an ONNX file, for any number of images; what it takes is told by `contract`.

        Raises:
            InputError: it is no network of torch, or torch cannot export it, or onnx is not installed.
            OutputError: the file cannot be written.
        """
        from xfr_plugin.recognition.export import export_onnx

        export_onnx(self, Path(path))

    @property
    def threshold(self) -> float:
        """Score at and above which a pair is a match (cosine, −1…1).

        Raises:
            InputError: neither a threshold nor a calibration was given.
        """
        if self._threshold is not None:
            return self._threshold
        if self.calibration is not None:
            return self.calibration.threshold
        raise InputError(
            f"recognizer {self.name!r} has no threshold: pass threshold=… (`--threshold`), or calibrate it on "
            "labelled pairs (`xfr calibrate`)"
        )

    def threshold_at(self, fmr: float) -> float:
        """Threshold for a false match rate (0…1), from the calibration.

        Raises:
            InputError: the recognizer is not calibrated, or not for this rate.
        """
        if self.calibration is None:
            raise InputError(
                f"recognizer {self.name!r} is not calibrated: pass threshold=… instead of an FMR"
            )
        return self.calibration.threshold_at(fmr)

    @property
    def score_unit(self) -> float:
        """What is 1 on the scale of cosines, on the scale of its scores.

        Of a function that gives scores only, by how much the score of a face with itself is above those of different
        faces of nobody, measured once.
        """
        if self.gives != "scores":
            return 1.0
        if self._span is None:
            self._span = measured_scores(self).span
        return self._span

    @property
    def decides(self) -> bool:
        """Whether the recognizer has a threshold or a calibration."""
        return self._threshold is not None or self.calibration is not None

    @property
    def contract(self) -> InputContract:
        """What the recognizer takes, and what its network makes of it."""
        return InputContract.model_construct(
            input_size=self.input_size,
            mean=tuple(self.mean.flatten().tolist()),
            std=tuple(self.std.flatten().tolist()),
            channel_order=self.channel_order,
        )

    def self_test(self) -> SelfTest:
        """Embed eight faces of nobody; `embed` does so once before the first face, if the recognizer decides.

        Raises:
            InputError: they are all alike, or embeddings depend on chance; see `recognition.self_test`.
        """
        found = self_test(self)
        self.tested, self._span = True, found.span
        return found

    def check(self, images: Tensor) -> None:
        """Check pixels before they are embedded, and the recognizer itself before the first decision.

        Raises:
            InputError: the pixels do not lie in 0…1, or the self-test fails.
        """
        check_pixels(images, self.input_size, self.name)
        if self.decides and not self.tested:
            self.self_test()

    def represent(self, images: Tensor) -> Tensor:
        """What faces are compared by, a row for each: unit embeddings N×D, or else the faces themselves.

        Raises:
            InputError: see `embed`.
        """
        if self.gives != "scores":
            return self.embed(images)
        self.check(images)
        return images.to(self.device)

    @torch.no_grad()
    def compare(self, probes: Tensor, references: Tensor) -> Tensor:
        """Scores N of rows that `represent` gave: cosines, or what the score function says.

        Args:
            probes, references: N rows each, or one for all of the others.
        """
        if not isinstance(self.network, ScoreFunction):
            return (probes * references.to(probes)).sum(dim=-1)
        both = torch.broadcast_tensors(probes, references)
        return self.network.score(*(self.preprocess(rows.to(self.device, self.dtype)) for rows in both))

    def with_network(self, network: nn.Module) -> Recognizer:
        """Copy this recognizer around another network of the same function, e.g. a folded one."""
        copy = replica(self, network=network)
        copy._forwards = Forwards()
        return copy

    def with_threshold(self, threshold: float | None) -> Recognizer:
        """A copy that decides at another threshold; at the calibration's, for None.

        Raises:
            InputError: see `Recognizer`.
        """
        copy = replica(self)
        copy._threshold = check_threshold(threshold, is_cosine=self.gives != "scores")
        return copy

    def with_calibration(
        self, calibration: Calibration, region_shares: Mapping[str, Mapping[str, float]] | None = None
    ) -> Recognizer:
        """A copy that decides at the thresholds of a calibration, with what was measured of regions, if it was."""
        copy = replica(self)
        copy.calibration, copy._threshold = calibration, None
        copy.region_shares = dict(region_shares or self.region_shares)
        return copy

    def for_forward_passes(self, passes: int) -> Recognizer:
        """This recognizer, or a copy that embeds the same (to 1e-5) in less time but gives no gradient.

        That is one whose network onnxruntime or OpenVINO runs, see `recognition.backends`.

        Args:
            passes: how many faces will be embedded, about; few do not pay for the making.
        """
        network = self._forwards.network(self, passes)
        return self if network is self.network else self.with_network(network)

    @property
    def device(self) -> torch.device:
        """Where the recognizer computes."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """What images are given in. Networks of half precision get theirs in it, and float32 is given here."""
        return torch.promote_types(self.mean.dtype, torch.float32)

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn aligned RGB images in [0, 1], N×3×H×W, into what the network expects, in its type.

        Raises:
            InputError: the shape is not N×3×H×W with the recognizer's `input_size`, or they are no floats.
            DeadlineError: see `base.deadlines`. So every pass of a method asks whether there is time for it.
        """
        check_deadline()
        check_images(images, self.input_size, self.name)
        if self.channel_order == "BGR":
            images = images.flip(1)
        if isinstance(self.network, BlackBox):
            return standardised(images, self.mean, self.std)
        scaled = (images - self.mean) / self.std
        weights = next(filter(Tensor.is_floating_point, self.network.parameters()), scaled)
        return scaled.to(weights.dtype)

    def features(self, images: Tensor) -> Tensor:
        """Embedding before normalisation, N×D, of aligned RGB images in [0, 1].

        Raises:
            InputError: wrong image shape, or the network does not return N×D.
        """
        returned = in_evaluation(self.network)(self.preprocess(images))
        return embedding_in(returned, len(images), self.name)

    def forward(self, images: Tensor) -> Tensor:
        """L2-normalised embedding, N×D, of aligned RGB images in [0, 1], N×3×H×W."""
        return functional.normalize(self.features(images), dim=1)

    @torch.no_grad()
    def embed(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """Embed many images without gradients, `batch_size` at a time; N×D on the recognizer's device.

        Raises:
            InputError: images of another shape or range, an embedding that is zero or not finite, or the
                recognizer fails its self-test.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.check(images)
        chunks = [self(chunk.to(self.device)) for chunk in torch.split(images, batch_size)]
        return check_units(torch.cat(chunks), self.name)


def _opened(network: nn.Module, size: tuple[int, int]) -> tuple[nn.Module, Gives]:
    """The network, made to return embeddings, and what it gives. Functions of others are not tried."""
    return (network, network.gives) if isinstance(network, BlackBox) else giving_embeddings(network, size)


def _instead(given: object) -> str:
    """What to do with something that is no network."""
    if isinstance(given, Mapping):
        return "build it and give it these weights by load_state_dict, or try load_recognizer(file)"
    if callable(given) and not isinstance(given, type):
        return "a function goes to Recognizer.from_callable or from_scores"
    return "build it first"


def _for_function(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    if not callable(function):
        raise InputError(f"a function is wanted here, not {type(function).__name__}")
    name = getattr(function, "__name__", type(function).__name__)
    own = {"mean": 0.0, "std": 1.0, "name": "function" if name == "<lambda>" else name}
    return own | {setting: value for setting, value in settings.items() if value is not None}


def _per_channel(values: Sequence[float], network: nn.Module) -> Tensor:
    """A buffer 1×3×1×1 where the network is, in float64 if the network computes in it."""
    like = next(filter(Tensor.is_floating_point, network.parameters()), torch.zeros(()))
    return like.new_tensor(values, dtype=torch.promote_types(like.dtype, torch.float32)).view(1, 3, 1, 1)
