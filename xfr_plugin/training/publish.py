"""From a finished training to a file that ships: rounding to 16 bits, calibration, card, figures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from xfr_plugin.base.weights import load_state_dict_into, read_weights, sha256_of
from xfr_plugin.faces.lfw import LfwPair, read_pairs, read_people
from xfr_plugin.recognition.calibration import Calibration, calibrate
from xfr_plugin.recognition.networks import build_network
from xfr_plugin.recognition.recognizer import Provenance, Recognizer
from xfr_plugin.recognition.zoo import RecognizerCard, load_recognizer, save_recognizer
from xfr_plugin.training.faces_data import FaceSet, embed_faces, find_faces, read_faces, split_people
from xfr_plugin.training.recognizer import RecognizerConfig, pair_scores, student

__all__ = [
    "calibration_faces",
    "embed_faces",
    "halve",
    "pair_cosines",
    "publish_recognizer",
    "read_student",
    "rounded",
]

CALIBRATION_SET = "LFW: people of DevTrain held out from training, and people of DevTest outside pairsDevTest"


def halve(network: nn.Module) -> nn.Module:
    """Convert the weights of convolutions and linear layers to 16 bits; BatchNorm's few stay as they are."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.half()
    return network


def rounded(network: nn.Module) -> nn.Module:
    """The network as it will be read back: with the precision of the stored weights, computing in 32 bits."""
    return halve(network).float()


def read_student(config: RecognizerConfig, name: str) -> Recognizer:
    """The best weights of a run, rounded as they will be stored.

    Raises:
        WeightsError: the run has no weights yet, or they do not fit the architecture.
    """
    path = config.run / "best.safetensors"
    network = build_network(config.architecture)
    load_state_dict_into(network, read_weights(path)[0], path.name)
    return student(rounded(network).requires_grad_(False), load_recognizer(config.teacher), name)


def calibration_faces(config: RecognizerConfig) -> FaceSet:
    """The faces on which thresholds are set: of people neither trained on nor in `pairsDevTest.txt`.

    Raises:
        InputError: LFW's protocol files are not beside the folder of faces.
    """
    _, held_out = split_people(find_faces(config.faces, config.people), config.held_out, config.seed)
    protocol = config.faces.parent
    pairs = read_pairs(protocol / "pairsDevTest.txt")
    reported = {file.split("/")[0] for pair in pairs for file in (pair.probe, pair.reference)}
    others = set(read_people(protocol / "peopleDevTest.txt")) - reported
    test = find_faces(config.faces, protocol / "peopleDevTest.txt")
    faces = held_out | {person: files for person, files in test.items() if person in others}
    return read_faces(config.faces, faces)


def present_pairs(folder: Path, pairs: list[LfwPair]) -> list[LfwPair]:
    """Those pairs of which both images exist: one image of LFW is missing from some aligned copies."""
    return [pair for pair in pairs if (folder / pair.probe).is_file() and (folder / pair.reference).is_file()]


def pair_cosines(recognizer: Recognizer, folder: Path, pairs: list[LfwPair]) -> Tensor:
    """Cosine of each pair, in order."""
    files = sorted({file for pair in pairs for file in (pair.probe, pair.reference)})
    faces = read_faces(folder, {file: [file] for file in files}, recognizer.input_size)
    embeddings = embed_faces(recognizer, faces)
    place = {file: i for i, file in enumerate(files)}
    first = embeddings[[place[pair.probe] for pair in pairs]]
    return (first * embeddings[[place[pair.reference] for pair in pairs]]).sum(dim=1)


def publish_recognizer(config: RecognizerConfig, path: Path, name: str) -> RecognizerCard:
    """Calibrate the best weights of a run and write them with their card.

    Args:
        config: the run's configuration.
        path: the `.safetensors` file to write.
        name: by which the recognizer will be known.

    Raises:
        InputError: LFW's protocol files are not beside the folder of faces.
        WeightsError: the run has no weights yet.
    """
    recognizer = read_student(config, name)
    calibration = _calibrate(recognizer, calibration_faces(config))
    pairs = present_pairs(config.faces, read_pairs(config.faces.parent / "pairsDevTest.txt"))
    same = torch.tensor([pair.same for pair in pairs])
    accepted = pair_cosines(recognizer, config.faces, pairs) >= calibration.eer.threshold
    figures: dict[str, float | str] = {
        "accuracy on pairsDevTest at the calibrated EER threshold": float((accepted == same).double().mean()),
        "calibration EER": (calibration.eer.fmr + calibration.eer.fnmr) / 2,
        "calibration Cllr": calibration.cllr,
        "manifest": sha256_of(config.run / "manifest.json"),
    }
    card = RecognizerCard(
        name=name,
        architecture=config.architecture,
        input_size=recognizer.input_size,
        mean=_triple(recognizer.mean),
        std=_triple(recognizer.std),
        channel_order=recognizer.channel_order,
        provenance=Provenance(
            source=f"trained by this project: distilled from {config.teacher}",
            licence="Apache-2.0",
            training_data="LFW peopleDevTrain (public research benchmark); teacher's data: MS-Celeb-1M",
        ),
        calibration=calibration,
        figures=figures,
    )
    halve(recognizer.network)
    save_recognizer(recognizer, path, card)
    return card


def _triple(values: Tensor) -> tuple[float, float, float]:
    first, second, third = values.flatten().tolist()
    return first, second, third


def _calibrate(recognizer: Recognizer, faces: FaceSet) -> Calibration:
    genuine, impostor = pair_scores(embed_faces(recognizer, faces), faces.people)
    return calibrate(genuine, impostor, CALIBRATION_SET)
