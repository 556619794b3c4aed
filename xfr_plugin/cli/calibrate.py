"""The command `xfr calibrate`: thresholds and likelihood ratios for a recognizer of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xfr_plugin.base.files import check_targets
from xfr_plugin.cli.options import ArchitectureOption, DeviceOption, JsonOption, RecognizerOption
from xfr_plugin.cli.output import print_document, print_lines, working

app = typer.Typer()


@app.command(
    "calibrate",
    epilog="Example: `xfr calibrate -r w600k_r50.onnx --faces faces --pairs pairs.csv --out my.json`.",
)
def calibrate_command(
    recognizer: RecognizerOption,
    faces: Annotated[Path, typer.Option(help="Folder of aligned faces, one subfolder a person.")],
    pairs: Annotated[
        Path, typer.Option(help="Labelled pairs: a CSV with probe, reference and genuine, or LFW's lists.")
    ],
    out: Annotated[Path, typer.Option(help="The card that is written; `-r` takes it afterwards.")] = Path(
        "card.json"
    ),
    dataset: Annotated[
        str | None, typer.Option(help="What the pairs are of, for those who read a decision.")
    ] = None,
    shares: Annotated[
        int,
        typer.Option(
            min=0, help="Genuine pairs to measure what regions bring on, 100 passes each; 0 for what ships."
        ),
    ] = 50,
    shapley: Annotated[
        int,
        typer.Option(min=0, help="The same for Shapley values, some 1,000 passes a pair; 0 for what ships."),
    ] = 0,
    architecture: ArchitectureOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Measure thresholds by false match rate, and what a score is worth as evidence; write a card."""
    check_targets((out,), (pairs, recognizer))
    from xfr_plugin.evaluation.measured_card import (
        check_card_name,
        measure_card,
        measure_region_shares,
        score_pairs,
        write_card,
    )
    from xfr_plugin.recognition import load_recognizer

    check_card_name(out)
    with working("calibrating"):
        model = load_recognizer(recognizer, architecture=architecture, device=device)
        scores = score_pairs(model, faces, pairs)
        regions = measure_region_shares(model, faces, pairs, shares, shapley) if shares or shapley else None
        card = measure_card(model, recognizer, scores, dataset or pairs.stem, region_shares=regions)
        write_card(card, out)
    if as_json:
        print_document(card.model_dump_json(indent=1))
        return
    found = card.calibration
    support = found.support
    bounds = (
        f"these pairs show no more than 10^{support.lower_bound:g} … 10^{support.upper_bound:g}"
        if support
        else "how far it can be believed is not known: pip install 'xfr-plugin[calibrate]'"
    )
    missing = f", {scores.missing} pairs without a face left out" if scores.missing else ""
    print_lines(
        f"{card.name} on {found.dataset}: {found.genuine_pairs} genuine and {found.impostor_pairs} impostor "
        f"pairs{missing}",
        f"threshold {found.threshold:.4f} at the equal error rate ({found.eer.fmr:.2%} false matches, "
        f"{found.eer.fnmr:.2%} false non-matches)",
        *(
            f"threshold {point.threshold:.4f} for an FMR of {rate:g} (false non-matches {point.fnmr:.2%})"
            for rate, point in zip(found.nominal_fmr, found.at_fmr, strict=True)
        ),
        f"log-likelihood ratio {found.llr_slope:.3f} · score {found.llr_intercept:+.3f}, Cllr {found.cllr:.3f}; "
        f"{bounds}",
        f"written:  {out}",
    )
