"""Let an outline finder that knows fewer outlines find those of today too, without training it further.

    git show 89ee02c:xfr_plugin/models/outlines.safetensors > earlier.safetensors
    python benchmarks/extend_outlines.py earlier.safetensors xfr_plugin/models/outlines.safetensors

Its last layer is translated to a shape model of all points, fitted to the meshes of the training people
(`training.outlines_start`). Needs what `xfr train outlines` needs, under `XFR_DATA`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from xfr_plugin.faces.outlines import save_outline_finder
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.config import load_config
from xfr_plugin.training.outlines import OutlinesConfig, OutlinesTask

CONFIG = Path(__file__).parents[1] / "docs" / "models" / "outlines.toml"


def main() -> None:
    """Extend and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    config = load_config(OutlinesConfig, CONFIG, {"start": args.start, "data": data_root() / "faces"})
    task = OutlinesTask(config)
    network = task.build_network().eval()
    task.to(torch.device("cpu"))
    figures = task.validate(network)
    training = {
        "seed": config.seed,
        "photos": config.photos,
        "faces": len(task.train_faces),
        "held-out faces": len(task.held_out_faces),
        "data": task.manifest.digest,
        "held-out figures": figures,
        "start": "a finder of fewer points, extended by regression on the training meshes",
    }
    save_outline_finder(network, args.out, task.features, task.label_offset(network), training)
    print(figures)


if __name__ == "__main__":
    main()
