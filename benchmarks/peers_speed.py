"""Speed of every perturbation method, and of FGGB, against the plain loops of the peers, with equal maps.

    python benchmarks/peers_speed.py [--recognizer xfr_compact128] [--threads 2] [--repeats 3] [--device cpu]

The loop is what one writes first: a masked face at a time through the recognizer as it was loaded, the partner
embedded once, Captum's methods with one perturbation a pass, Score-CAM with one channel, FGGB with a backward pass
for each channel of one shared forward pass. Masks, options (all defaults) and what is made of the scores are the
same on both sides. Both run in turn in one process on the same threads, warm. The least of the repeats counts: of
the clock, and of processor time, which depends less on what else runs. Beside it stands the largest difference of
the maps, relative to the largest value of the loop's map. Ours takes whatever runtime is installed on a CPU
(`recognition.backends`); `--device cuda` takes a GPU, 64 masked faces or gradients at once, and convolutions in full
single precision (no TF32), in which maps are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from fggb_speed import PAIR, shared_loop
from torch import Tensor

from xfr_plugin.attr import METHODS, Fggb, ScoreCam
from xfr_plugin.attr._base.masks import Masks
from xfr_plugin.attr._base.on_cosine import CosineAttribution, ScoreAttribution
from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL, PerturbationPairAttribution
from xfr_plugin.attr._base.scoring import EmbeddedFaces, Keep, removed
from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.peers import gradcam
from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.recognition import Recognizer, backends, load_recognizer
from xfr_plugin.recognition.zoo import data_root

TAU = 0.28
GPU_BATCH = 64

Maps = tuple[Tensor, Tensor]


class PlainFaces(EmbeddedFaces):
    """One mask over one face at a time."""

    def scores(self, masks: Masks, keep: Keep = removed, stage: str | None = "") -> Tensor:
        result = self.images.new_empty(len(self.images), len(masks))
        for face, image in enumerate(self.images):
            for number in range(len(masks)):
                drawn = masks.draw(slice(number, number + 1), self.images)
                kept = keep(drawn, slice(face, face + 1))[0, 0]
                changed = image * kept + self._fills[face] * (1 - kept)
                unit = self._embed(changed[None], torch.tensor([face]))[0]
                result[face, number] = unit @ self.partners[face]
        return result


@torch.no_grad()
def masked_loop(attribution: PerturbationPairAttribution, recognizer: Recognizer, pair: Maps) -> Maps:
    images = torch.cat(pair)
    faces = PlainFaces(images, None, lambda faces, rows: recognizer(faces), attribution.fill, 1, None)
    probe, reference = attribution._spread(attribution._maps(faces), Pair(images, None, ())).chunk(2)
    return probe, reference


def captum_loop(attribution: CosineAttribution, recognizer: Recognizer, pair: Maps) -> Maps:
    """Captum's own loop, around the recognizer as it is."""
    attribution._function = lambda pair: recognizer  # type: ignore[method-assign]  # the recognizer as it is
    attribution.perturbations_per_eval = 1
    found: Maps = attribution.attribute(pair)
    return found


def score_cam_loop(attribution: ScoreCam, pair: Maps) -> Maps:
    attribution.batch_size = 1
    with patch.object(gradcam, "for_scores", lambda function, *_: function):
        found: Maps = attribution.attribute(pair)
        return found


def is_compared(name: str) -> bool:
    cls = METHODS[name].cls
    is_masking = issubclass(cls, PerturbationPairAttribution) and not issubclass(cls, RegionIntervention)
    return is_masking or issubclass(cls, (ScoreAttribution, ScoreCam))


def looped(name: str, recognizer: Recognizer, pair: Maps) -> Callable[[], Maps]:
    attribution = METHODS[name].build(recognizer, TAU)
    if isinstance(attribution, PerturbationPairAttribution):
        return lambda: masked_loop(attribution, recognizer, pair)
    if isinstance(attribution, ScoreCam):
        return lambda: score_cam_loop(attribution, pair)
    assert isinstance(attribution, CosineAttribution)
    return lambda: captum_loop(attribution, recognizer, pair)


def ours(name: str, recognizer: Recognizer, pair: Maps) -> Callable[[], Maps]:
    attribution: PairAttribution = METHODS[name].build(recognizer, TAU)
    if not isinstance(attribution, PerturbationPairAttribution):
        return lambda: attribution.attribute(pair)
    limit = GPU_BATCH if recognizer.device.type == "cuda" else PERTURBATIONS_PER_EVAL
    return lambda: attribution.attribute(pair, perturbations_per_eval=limit)


def fggb_loop(recognizer: Recognizer, pair: Maps) -> Callable[[], Maps]:
    def run() -> Maps:
        probe, reference = shared_loop(recognizer, pair).chunk(2)
        return probe, reference

    return run


def seconds(function: Callable[[], Maps]) -> tuple[float, float, Tensor]:
    """Of the clock, and of the processor."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()  # with what was asked for before
    start, worked = time.perf_counter(), time.process_time()
    maps = torch.cat(function())
    if maps.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - worked, maps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--methods", help="names with commas; all, if left out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False
    recognizer = load_recognizer(arguments.recognizer, device=arguments.device)
    faces = [
        fit_aligned(load_photo(data_root() / "faces" / "lfw112" / name), recognizer.input_size)
        for name in PAIR
    ]
    images = [torch.tensor(face).permute(2, 0, 1)[None].float() / 255 for face in faces]
    pair = (images[0].to(arguments.device), images[1].to(arguments.device))
    names = arguments.methods.split(",") if arguments.methods else [*filter(is_compared, METHODS), "fggb"]
    at_once = {} if arguments.device == "cpu" else {"chunk_size": GPU_BATCH}
    how = ", ".join(backends.runtimes()[:1]) if arguments.device == "cpu" else "torch"
    print(f"{recognizer.name}, {arguments.threads} threads, {arguments.device}, {how or 'torch'}")
    show("method", "loop (s)", "ours (s)", "faster", "in CPU time", "difference")
    for name in names:
        if name == "fggb":
            attribution = Fggb(recognizer, TAU, **at_once)
            runs = (fggb_loop(recognizer, pair), lambda attribution=attribution: attribution.attribute(pair))
        else:
            runs = (looped(name, recognizer, pair), ours(name, recognizer, pair))
        runs[1]()  # warm
        taken = [[seconds(run) for run in runs] for _ in range(arguments.repeats)]
        loop, own = ([min(row[side][kind] for row in taken) for kind in (0, 1)] for side in (0, 1))
        expected, found = taken[0][0][2], taken[0][1][2]
        difference = float((found - expected).abs().max() / expected.abs().max())
        faster = [f"{loop[kind] / own[kind]:.1f}" for kind in (0, 1)]
        show(name, f"{loop[0]:.2f}", f"{own[0]:.3f}", *faster, f"{difference:.1e}")


def show(name: str, *values: str) -> None:
    print(f"{name:14}", *(f"{value:>11}" for value in values), flush=True)


if __name__ == "__main__":
    main()
