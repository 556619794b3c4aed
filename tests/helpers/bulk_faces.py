"""A list of pairs of small synthetic faces, and a run of `batch` that can be killed, as a module that runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from helpers.evaluation_faces import PEOPLE, small_recognizer, write_faces
from xfr_plugin import BatchResults, batch

METHODS = ("xssab", "input_x_gradient")


def write_list(folder: Path, bad: bool = False) -> Path:
    """Faces below `folder`, and a CSV of all pairs of the first photos and of each person's own."""
    write_faces(folder / "faces")
    firsts = [f"{person}/0.png" for person in PEOPLE]
    rows = [(a, b, 0) for i, a in enumerate(firsts) for b in firsts[i + 1 :]]
    rows += [(f"{person}/0.png", f"{person}/{other}.png", 1) for person in PEOPLE for other in (1, 2)]
    rows += [("nobody/0.png", firsts[0], 0), ("broken.png", firsts[1], 0)] if bad else []
    (folder / "faces" / "broken.png").write_bytes(b"no picture")
    lines = [f"{a},{b},{genuine},{'even' if i % 2 else 'odd'}" for i, (a, b, genuine) in enumerate(rows)]
    path = folder / "pairs.csv"
    path.write_text("\n".join(["probe,reference,genuine,camera", *lines]))
    return path


def explain_all(folder: Path, out: Path, **options: object) -> BatchResults:
    settings: dict[str, object] = {
        "photos": folder / "faces",
        "methods": METHODS,
        "recognizer": small_recognizer(),
        "workers": 1,
        "alignment": "aligned",
    }
    return batch(folder / "pairs.csv", out, **(settings | options))


if __name__ == "__main__":
    explain_all(Path(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]))
