"""Which methods point at planted evidence? Any registered methods, beside the floors, in one run.

    python benchmarks/planted_evidence.py --methods reconstruction,lrp,ebp --count 70 --out out/planted.md

Same plantings, halves of people and scores as `reconstruction_study.py`, which says more about them.
"""

from __future__ import annotations

import time
from pathlib import Path

from reconstruction_study import attributed, parse_options, plant, report

from xfr_plugin.attr import get_method
from xfr_plugin.evaluation import PlantedScore, centre_prior, random_maps, score_maps
from xfr_plugin.recognition import load_recognizer


def main() -> None:
    options = parse_options(__doc__, methods="reconstruction,lrp,ebp,channel_relevance")
    recognizer = load_recognizer(options.recognizer)
    pairs, controls = plant(recognizer, options)
    rows: list[PlantedScore] = []
    control_rows: list[PlantedScore] = []
    forms = {"floor: random": random_maps, "floor: centre prior": centre_prior}
    for name in options.methods.split(","):
        method = get_method(name).build(recognizer, recognizer.threshold)
        forms[name] = attributed(recognizer, method.attribute)
    for name, form in forms.items():
        began = time.perf_counter()
        rows += score_maps(name, form(pairs), pairs)
        control_rows += score_maps(name, form(controls), controls)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    text = report(options, recognizer, pairs, rows, control_rows)
    print(text)
    if options.out:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
