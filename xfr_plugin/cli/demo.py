"""The command `xfr demo`: the whole chain on what comes with the package."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.cli.options import OutOption, RecognizerOption
from xfr_plugin.cli.output import print_lines, working
from xfr_plugin.errors import FaceWarning

app = typer.Typer()


@app.command("demo")
def demo_command(
    out: OutOption = Path("out/demo"), recognizer: RecognizerOption = DEFAULT_RECOGNIZER
) -> None:
    """Explain a public photograph against edited copies of it, and two people who are nobody."""
    from xfr_plugin.cli.demonstration import run_demo
    from xfr_plugin.recognition import load_recognizer

    start = time.perf_counter()
    model = load_recognizer(recognizer)
    with working("explaining"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceWarning)  # the pictures say the same
        pictures = run_demo(out, model)
    lines = [f"recognizer {model.name}: {model.provenance.source} ({model.provenance.licence})"]
    lines += [line for result, picture in pictures for line in (result, f"    {picture}")]
    photos = f"{out / 'astronaut.png'} {out / 'astronaut_with_sunglasses.png'}"
    lines += [f"a report on a pair: xfr report {photos} --out {out / 'report.html'}"]
    lines += ["all this on a page in the browser: xfr web"]
    lines += [f"done in {time.perf_counter() - start:.0f} s; the pictures are in {out}"]
    print_lines(*lines)
