"""People on whom nothing was trained, for the benchmarks that need some."""

from __future__ import annotations

from pathlib import Path

from xfr_plugin.faces.folder import Split, in_split
from xfr_plugin.faces.lfw import image_path, read_people


def held_out_people(root: Path, split: Split) -> dict[str, list[str]]:
    """Aligned faces of each person of a split, `dev` or `test`, of those on whom nothing was trained."""
    return {
        name: [f for i in range(count) if (root / "lfw112" / (f := image_path(name, i + 1))).is_file()]
        for name, count in read_people(root / "peopleDevTest.txt").items()
        if in_split(name, split)
    }
