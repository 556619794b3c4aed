"""Explicit downloads of public weights, each verified by its SHA-256."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import torch

from xfr_plugin.base.files import make_folder, reason, shown
from xfr_plugin.base.weights import check_sha256
from xfr_plugin.errors import ChecksumError, InputError, OutputError, WeightsError

__all__ = ["cache_folder", "cached_weights", "download_weights"]


def cache_folder() -> Path:
    """Folder of downloaded weights: `XFR_CACHE`, or `xfr-plugin` in the user's cache folder.

    Raises:
        WeightsError: neither is set, and the user has no home.
    """
    if folder := os.environ.get("XFR_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "xfr-plugin"
    try:
        return Path.home() / ".cache" / "xfr-plugin"
    except RuntimeError as error:
        raise WeightsError("there is no home folder for weights: set XFR_CACHE to a folder") from error


def cached_weights(file: str) -> Path:
    """Path that the weight file `file` has in the cache, present or not."""
    return cache_folder() / file


def download_weights(url: str, sha256: str, file: str | None = None, progress: bool = False) -> Path:
    """Download a weight file once, verify it, and return its path in the cache.

    Args:
        url: an https address.
        sha256: the published checksum, 64 hexadecimal digits.
        file: its name in the cache; the checksum and the last part of the address, if left out.
        progress: show a bar on standard error.

    Raises:
        InputError: the address is not https, or the checksum is none.
        ChecksumError: what arrived is not what was published; nothing is kept.
        WeightsError: the address cannot be reached.
        OutputError: the cache cannot be written.
    """
    if not url.startswith("https://"):
        raise InputError(f"weights are only fetched over https, not from {url}")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise InputError("sha256 must be 64 lower-case hexadecimal digits")
    path = cached_weights(file or f"{sha256[:16]}-{url.rsplit('/', 1)[-1]}")
    if os.path.isfile(path):
        check_sha256(path, sha256)
        return path
    make_folder(path.parent, "set XFR_CACHE to a folder that can be written")
    try:
        # downloads to a temporary file and moves it only when the hash is right
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=progress)
    except RuntimeError as error:
        raise ChecksumError(f"what {url} sent is not the published file: {error}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise OutputError(
            f"the cache {shown(path.parent)} cannot be written ({reason(error)}): "
            "set XFR_CACHE to a folder that can"
        ) from error
    except (URLError, OSError, ValueError) as error:
        raise WeightsError(f"cannot download {shown(url)}: {reason(error)}") from error
    return path
