"""The command `xfr recognizers`: those that have a name, and what files of others take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from xfr_plugin.cli.output import terminal

if TYPE_CHECKING:
    from xfr_plugin.recognition import Calibration
    from xfr_plugin.recognition.contract import InputContract

app = typer.Typer()


_SHIPPED = {"decoder": "decoder", "evidence network": "region_effects"}
"""What the metadata of models that ship for a recognizer call it."""


@app.command(
    "recognizers", epilog="Example: `xfr recognizers my.json` shows a card that `xfr calibrate` wrote."
)
def recognizers_command(
    cards: Annotated[list[Path] | None, typer.Argument(help="Cards of yours to show too.")] = None,
) -> None:
    """List recognizers: contract, calibration, and what ships for them; and the contracts of files of others."""
    console = terminal()
    console.print(_named(cards or []))
    console.print(_published())


def _named(cards: list[Path]) -> Table:
    from xfr_plugin.base.weights import shipped_documents
    from xfr_plugin.recognition import list_recognizers, zoo_card
    from xfr_plugin.recognition.loading import read_card

    table = Table(
        Column("name; takes", no_wrap=True),
        Column("calibration; what ships; licence, source", overflow="fold"),
        show_lines=True,
    )
    models = {
        what: {document["recognizer"] for document in shipped_documents(key).values()}
        for what, key in _SHIPPED.items()
    }
    for name in list_recognizers():
        card = zoo_card(name)
        ships = [what for what, known in models.items() if name in known]
        ships += ["region shares"] if card.region_shares else []
        table.add_row(
            f"{name}\narchitecture {card.architecture}\n{_takes(card)}",
            f"{_words(card.calibration)}\nships: {', '.join(ships) or 'nothing'}\n"
            f"{card.provenance.licence}, {card.provenance.source}",
        )
    for path in cards:
        own = read_card(path)
        table.add_row(
            f"{path.name}\n{own.name}\n{_takes(own)}",
            f"{_words(own.calibration)}\nmeasured: {', '.join(own.region_shares) or 'no region shares'}\n"
            f"{own.source}, gives {own.gives}",
        )
    return table


def _published() -> Table:
    from xfr_plugin.recognition.published import published_cards

    table = Table(
        Column("files of others; licence, source, use", overflow="fold"),
        Column("take", no_wrap=True),
        show_lines=True,
    )
    for card in published_cards():
        named = (card.name, ", ".join(card.files), f"alignment in training: {card.trained_on_template}")
        origin = (card.licence, card.source, card.use, *(f"sha256 {digest}" for digest in card.sha256))
        takes = _takes(card).removesuffix(f"\n{card.template} template")
        table.add_row("\n".join((*named, *origin)), f"{takes}\ngive {card.embedding} numbers")
    return table


def _takes(card: InputContract) -> str:
    return card.description.replace(", ", "\n")


def _words(calibration: Calibration | None) -> str:
    if calibration is None:
        return "not calibrated"
    rates = ", ".join(f"{rate:g}" for rate in calibration.nominal_fmr)
    return f"threshold {calibration.threshold:.3f}\nFMR {rates or 'none'}\non {calibration.dataset}"
