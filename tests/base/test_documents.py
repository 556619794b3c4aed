"""A key that is given twice is refused wherever documents of others are read: readers differ in which one counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xfr_plugin.base.documents import Document, RepeatedKeyError, check_keys, read_json
from xfr_plugin.base.weights import METADATA_KEY, read_metadata, read_weights
from xfr_plugin.cli.options import read_options
from xfr_plugin.errors import XfrError
from xfr_plugin.explanation.document import read_explanation
from xfr_plugin.recognition.loading import read_card
from xfr_plugin.swaps.planting import read_plantings

TWICE = [
    '{"a": 1, "a": 1}',
    '{"a": 1, "\\u0061": 2}',
    '[{"b": {"a": [], "c": "\\"a\\":", "a": null}}]',
    '{"": 1, "": 2}',
    '{"a": NaN, "a": 1e999}',
]
ONCE = [
    '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}',
    '{"a": "\\"a\\": 1, \\"a\\": 2"}',
    '{"a": 1, "A": 2}',
    "3",
]


@pytest.mark.parametrize("text", TWICE)
def test_keys_that_are_given_twice(text: str) -> None:
    for data in (text, text.encode()):
        with pytest.raises(RepeatedKeyError, match="is given twice"):
            check_keys(data)
        with pytest.raises(RepeatedKeyError, match="is given twice"):
            read_json(data)


@pytest.mark.parametrize("text", ONCE)
def test_keys_that_are_given_once(text: str) -> None:
    check_keys(text)
    read_json(text)


def test_a_document_says_which() -> None:
    class Pair(Document):
        left: int
        right: int = 0

    assert Pair.model_validate_json('{"left": 1, "right": 2}').right == 2
    with pytest.raises(ValueError, match="the key 'left' is given twice"):
        Pair.model_validate_json(b'{"left": 1, "right": 2, "left": 3}')


def weights_with(path: Path, text: str) -> None:
    save_file({"a": torch.zeros(1)}, path, {METADATA_KEY: text})


@pytest.mark.parametrize("read", [read_card, read_explanation, read_plantings])
def test_files_of_others(tmp_path: Path, read: Callable[[Path], object]) -> None:
    file = tmp_path / "file.json"
    file.write_text('{"format": 1, "format": 2}')
    with pytest.raises(XfrError, match="'format' is given twice"):
        read(file)


def test_weights_and_options(tmp_path: Path) -> None:
    weights_with(tmp_path / "w.safetensors", '{"card": 1, "card": 2}')
    for read in (read_weights, read_metadata):
        with pytest.raises(XfrError, match="'card' is given twice"):
            read(tmp_path / "w.safetensors")
    for pairs, twice in ((['a={"b": 1, "b": 2}'], "'b'"), (["a=1", "a=2"], "a")):
        with pytest.raises(XfrError, match=f"{twice} is given twice"):
            read_options(pairs)
