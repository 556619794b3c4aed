"""Input contracts of recognizers that people have: what a file of that name takes, and where it is from.

The weights are the user's. A card is found by the name of the file, so that a renamed file gets none. What is given
by hand goes before the card, and the self-test tells of a range that is wrong. Where the checksum of the published
file is known, provenance says whether it is that one.
"""

from __future__ import annotations

from fnmatch import fnmatch
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import TypeAdapter

from xfr_plugin.recognition.contract import InputContract

__all__ = ["PublishedCard", "contract_of_file", "published_cards"]


class PublishedCard(InputContract):
    """What is published about a recognizer whose weights do not come with us.

    Attributes:
        name: of the model, or of a family that takes the same.
        files: patterns of the names of its files.
        embedding: length of an embedding.
        trained_on_template: how its training faces were aligned; we align on ArcFace's template.
        licence: of the weights, as their source states it.
        source: where to get it.
        facts: where the settings stand.
        use: how to load it.
        sha256: of published files, as far as they are known; of OpenVINO's the `.xml`.
    """

    name: str
    files: tuple[str, ...]
    embedding: int
    trained_on_template: str
    licence: str
    source: str
    facts: str
    use: str
    sha256: tuple[str, ...] = ()


@cache
def published_cards() -> tuple[PublishedCard, ...]:
    """All cards, in the order of their list."""
    text = (resources.files("xfr_plugin.recognition") / "zoo_data" / "published" / "cards.json").read_text(
        "utf-8"
    )
    return TypeAdapter(tuple[PublishedCard, ...]).validate_json(text)


def contract_of_file(path: Path) -> PublishedCard | None:
    """The card of a file by its name; None if no pattern fits."""
    name = path.name.lower()
    fitting = (card for card in published_cards() if any(fnmatch(name, pattern) for pattern in card.files))
    return next(fitting, None)
