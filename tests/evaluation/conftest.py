"""Drawn faces of a few people, once for each file of tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.evaluation_faces import write_faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder)
    return folder
