"""The demonstration: from photographs to pictures, on what comes with the package's dependencies.

The photograph is scikit-image's astronaut, Eileen Collins, taken by NASA (public domain); the other photographs are
edited copies of it, so nobody's likeness is used that is not public already. Run it with `make demo`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from skimage import data
from skimage.transform import swirl

from xfr_plugin.api import DEFAULT_RECOGNIZER, explain
from xfr_plugin.errors import FaceError, XfrError
from xfr_plugin.faces import Landmarks
from xfr_plugin.faces.cascade import CascadeDetector
from xfr_plugin.recognition import Recognizer, load_recognizer

__all__ = ["EDITS", "main", "run_demo"]

Photo = NDArray[np.uint8]


def run_demo(folder: Path, recognizer: Recognizer) -> list[tuple[str, Path]]:
    """Explain the astronaut against each edited copy of her; write photographs and pictures to `folder`.

    Returns:
        For each edit, its name with the decision, and the path of the picture.
    """
    photo: Photo = data.astronaut()
    found = CascadeDetector()(photo)
    if not found:
        raise FaceError("the face of the demonstration photograph was not found")
    landmarks = max(found, key=lambda face: face.box.area).landmarks
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(folder / "astronaut.png")
    pictures = []
    for name, edit in EDITS.items():
        copy = edit(photo, landmarks)
        Image.fromarray(copy).save(folder / f"{name}.png")
        explanation = explain(photo, copy, recognizer=recognizer)
        decision = explanation.verification
        verdict = "match" if decision.match else "no match"
        picture, _ = explanation.save(folder, f"astronaut-{name}")
        pictures.append((f"{name.replace('_', ' ')}: {verdict}, score {decision.score:.3f}", picture))
    return pictures


def mirrored_and_darkened(photo: Photo, _: Landmarks) -> Photo:
    """Mirror a photo and halve its brightness."""
    return np.ascontiguousarray(photo[:, ::-1] // 2)


def with_sunglasses(photo: Photo, landmarks: Landmarks) -> Photo:
    """Draw sunglasses over the eyes."""
    image = Image.fromarray(photo)
    draw = ImageDraw.Draw(image)
    right, left = landmarks[:2]
    radius = 0.4 * float(np.linalg.norm(left - right))
    for x, y in (right, left):
        draw.ellipse((x - radius, y - 0.7 * radius, x + radius, y + 0.7 * radius), fill=(12, 12, 14))
    draw.line((*right, *left), fill=(12, 12, 14), width=max(2, round(radius / 6)))
    return np.asarray(image)


def with_another_nose(photo: Photo, landmarks: Landmarks) -> Photo:
    """Twist the nose, and leave everything else as it is."""
    eye_distance = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    x, y = landmarks[2] - (0, 0.1 * eye_distance)
    twisted = swirl(photo, center=(x, y), strength=4, radius=0.75 * eye_distance, preserve_range=True)
    copy: Photo = twisted.astype(np.uint8)
    return copy


EDITS: dict[str, Callable[[Photo, Landmarks], Photo]] = {
    "mirrored_and_darkened": mirrored_and_darkened,
    "with_sunglasses": with_sunglasses,
    "with_another_nose": with_another_nose,
}
"""Name → edit of a photo, given its five landmarks."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for photographs and pictures.")] = Path("out/demo"),
    recognizer: Annotated[str, typer.Option(help="Name or weight file.")] = DEFAULT_RECOGNIZER,
) -> None:
    """Run the demonstration."""
    console = Console()
    start = time.perf_counter()
    try:
        model = load_recognizer(recognizer)
        with console.status("explaining …"):
            pictures = run_demo(out, model)
    except XfrError as error:
        typer.echo(f"demo: error: {error}", err=True)
        raise typer.Exit(2) from error
    console.print(
        f"recognizer {model.name}: {model.provenance.source} ({model.provenance.licence})", highlight=False
    )
    table = Table("astronaut against herself", "picture")
    for result, picture in pictures:
        table.add_row(result, str(picture))
    console.print(table)
    console.print(
        f"done in {time.perf_counter() - start:.0f} s; open the pictures in {out}/", highlight=False
    )


if __name__ == "__main__":
    typer.run(main)
