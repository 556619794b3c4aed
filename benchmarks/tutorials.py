"""Run the tutorials (`docs/tutorials/*.ipynb`) and keep what they print and show, pictures as small JPEGs.

    python benchmarks/tutorials.py [NAME …]

They run without `XFR_DATA`, on what the package ships, as a new user has it.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
WIDEST = 1000
_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


def execute(path: Path, folder: Path | None = None) -> Any:
    """Run a notebook from a folder, and return it with its outputs; an error in a cell is an error here."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(folder or path.parent))
    return notebook


def smaller(png: str) -> str:
    """A picture (base64) as a JPEG that is 1,000 pixels wide at most."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def compact(notebook: Any) -> Any:
    """A notebook with small pictures, each once, and without what changes from run to run."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":  # what libraries warn of depends on the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = _PNG.sub(
                    lambda found: f"data:image/jpeg;base64,{smaller(found[1])}", data["text/html"]
                )
                data.pop("image/png", None)  # the same once more
            if "image/png" in data:
                data["image/jpeg"] = smaller(data.pop("image/png"))
            if "image/jpeg" in data:
                data["text/plain"] = re.sub(r" at 0x[0-9A-F]+", "", data["text/plain"])
            output.pop("metadata", None)
            if output.output_type in ("display_data", "execute_result"):
                output.metadata = {}
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names
    os.environ.pop("XFR_DATA", None)
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(compact(execute(path)), path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
