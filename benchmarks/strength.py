"""Store in the cards how strongly scores speak: histogram of the scores, bounds (ELUB) and uncertainty of the map.

Same data as the calibration that is in the card: the recognizer that ships on the people that it was calibrated on
(`docs/models/recognizer.toml`), the others on the images of LFW's View 2. Needs the package `lir`.

    python benchmarks/strength.py --recognizer xfr_compact128 [--write-card]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from lfw_view2 import all_pair_scores, embed_images
from numpy.typing import NDArray

from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.recognition import Recognizer, load_recognizer, zoo_card
from xfr_plugin.recognition.strength import llr_support, score_histogram
from xfr_plugin.recognition.zoo import RecognizerCard, data_root
from xfr_plugin.training.config import load_config
from xfr_plugin.training.faces_data import embed_faces
from xfr_plugin.training.publish import calibration_faces
from xfr_plugin.training.recognizer import RecognizerConfig

ROOT = Path(__file__).parents[1]


def calibration_data(recognizer: Recognizer, faces: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings and the number of the person of each, of the data that the card was calibrated on."""
    if zoo_card(recognizer.name).weights is None:
        config = load_config(RecognizerConfig, ROOT / "docs" / "models" / "recognizer.toml")
        found = calibration_faces(config.model_copy(update={"faces": faces / "lfw112"}))
        return embed_faces(recognizer, found).numpy(), np.asarray(found.people)
    files = sorted({name for pair in read_pairs(faces / "pairs.txt") for name in pair[:2]})
    people = np.unique([name.split("/")[0] for name in files], return_inverse=True)[1]
    return embed_images(recognizer, files, faces / "lfw112"), people


def view2_genuine(
    recognizer: Recognizer, faces: Path, embeddings: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores of the official genuine pairs, which the cards' operating points were measured on."""
    pairs = read_pairs(faces / "pairs.txt")
    index = {name: i for i, name in enumerate(sorted({name for pair in pairs for name in pair[:2]}))}
    chosen = [pair for pair in pairs if pair.same]
    first, second = (embeddings[[index[pair[side]] for pair in chosen]] for side in (0, 1))
    return np.sum(first * second, axis=1)


def with_strength(recognizer: Recognizer, faces: Path) -> RecognizerCard:
    card, calibration = zoo_card(recognizer.name), recognizer.calibration
    assert calibration is not None
    embeddings, people = calibration_data(recognizer, faces)
    genuine, impostor = all_pair_scores(embeddings, people)
    if card.weights is not None:
        genuine = view2_genuine(recognizer, faces, embeddings)
    if (genuine.size, impostor.size) != (calibration.genuine_pairs, calibration.impostor_pairs):
        raise SystemExit(f"{genuine.size}, {impostor.size} pairs are not those of the card: another data set")
    support = llr_support(embeddings, people, calibration.llr_slope, calibration.llr_intercept)
    found = {"histogram": score_histogram(genuine, impostor), "support": support}
    return card.model_copy(update={"calibration": calibration.model_copy(update=found)})


def write_card(card: RecognizerCard) -> None:
    if card.weights is not None:
        folder = ROOT / "xfr_plugin" / "recognition" / "zoo_data"
        (folder / f"{card.name}.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return
    path = ROOT / "xfr_plugin" / "models" / f"{card.name}.safetensors"
    write_weights(
        path, read_weights(path)[0], {"recognizer": card.model_dump(mode="json", exclude={"weights"})}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--faces", type=Path, default=data_root() / "faces")
    parser.add_argument("--write-card", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    card = with_strength(load_recognizer(arguments.recognizer), arguments.faces)
    assert card.calibration is not None
    print(card.calibration.support)
    if arguments.write_card:
        write_card(card)


if __name__ == "__main__":
    main()
